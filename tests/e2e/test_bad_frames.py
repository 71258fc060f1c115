"""The bad frames that a client may send: a code or an error, and nobody else suffers."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest

from kallichore.config import Limits
from tests.listening import Ear, upgraded, words
from tests.puppets import start_puppet
from tests.serving import Serving, open_serving

if TYPE_CHECKING:
    import trio


def frame(payload: bytes, opcode: int = 1, *, masked: bool = True, final: bool = True) -> bytes:
    """Make a WebSocket frame, right or wrong."""
    head = bytes([opcode | (0x80 if final else 0)])
    size, mask_bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head += bytes([size | mask_bit])
    elif size < 1 << 16:
        head += bytes([126 | mask_bit]) + struct.pack(">H", size)
    else:
        head += bytes([127 | mask_bit]) + struct.pack(">Q", size)
    return head + (b"\0\0\0\0" if masked else b"") + payload


async def close_code(stream: trio.SocketStream) -> int:
    """Read up to the close frame, and give its code."""
    data = b""
    while True:
        size = data[1] if len(data) > 1 else 0  # of frames so small as those of an idle session
        if len(data) < 2 + size or not data:
            received = await stream.receive_some(65536)
            assert received, "no close frame"
            data += received
        elif data[0] & 15 == 8:
            return int(struct.unpack(">H", data[2:4])[0])
        elif size == 126:
            data = data[4 + struct.unpack(">H", data[2:4])[0] :]
        else:
            data = data[2 + size :]


HEADER = {"msg_id": "a", "msg_type": "execute_request"}
LIMIT = 5000
ENDINGS = {
    "an unmasked frame": (frame(b"{}", masked=False), 1002),
    "a reserved opcode": (frame(b"{}", opcode=3), 1002),
    "a reserved bit": (frame(b"{}", opcode=1 | 0x40), 1002),
    "a long ping": (frame(b"x" * 126, opcode=9), 1002),
    "a continuation of nothing": (frame(b"{}", opcode=0), 1002),
    "invalid UTF-8": (frame(b'{"a":"\xff"}'), 1007),
    "a frame over the limit": (frame(b" " * (LIMIT + 1)), 1009),
    "fragments over the limit": (
        frame(b" " * LIMIT, final=False) + frame(b" " * LIMIT, opcode=0),
        1009,
    ),
    "binary over the limit": (frame(b" " * (LIMIT + 1), opcode=2), 1009),
    "an empty text frame": (frame(b""), 1000),
    "a close with a bad code": (frame(struct.pack(">H", 1005), opcode=8), 1002),
    "a close of one byte": (frame(b"x", opcode=8), 1002),
    "a close with a code": (frame(struct.pack(">H", 3000) + b"bye", opcode=8), 3000),
    "a close without a code": (frame(b"", opcode=8), 1000),
}


@pytest.mark.parametrize("what", ENDINGS)
async def test_a_connection_that_breaks_the_protocol_ends_with_a_code(what: str) -> None:
    data, code = ENDINGS[what]
    async with open_serving(limits=Limits(client_message_bytes=LIMIT)) as serving:
        await start_puppet(serving.client)
        async with await upgraded(serving.client) as stream:
            await stream.send_all(data)
            assert await close_code(stream) == code
        async with serving.client.open_channel("one") as channel:
            assert "iopub:stream" in words(await Ear(channel).execute("say('on')"))


async def test_half_a_frame_and_silence_disturb_nobody(serving: Serving) -> None:
    await start_puppet(serving.client)
    async with await upgraded(serving.client) as stream:
        await stream.send_all(frame(b" " * 1000)[:500])
        assert (await serving.client.server_status()).sessions == 1
    async with serving.client.open_channel("one") as channel:
        assert "iopub:stream" in words(await Ear(channel).execute("say('on')"))


UNUSABLE = {
    "no JSON": "{",
    "a number": "1",
    "no header": "{}",
    "a header that is a list": '{"header":[],"channel":"shell","content":{}}',
    "no msg_id": '{"header":{"msg_type":"x"},"channel":"shell","content":{}}',
    "an unknown channel": json.dumps({"header": HEADER, "channel": "up", "content": {}}),
    "iopub": json.dumps({"header": HEADER, "channel": "iopub", "content": {}}),
    "content that is a list": json.dumps({"header": HEADER, "channel": "shell", "content": []}),
    "invalid base64": json.dumps(
        {"header": HEADER, "channel": "shell", "content": {}, "buffers": ["*"]}
    ),
    "depth": '{"header":' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep content": (
        json.dumps({"header": HEADER, "channel": "shell", "content": "C"}).replace(
            '"C"', '{"code":' + "[" * 100_000 + "]" * 100_000 + "}"
        )
    ),
}


@pytest.mark.parametrize("what", UNUSABLE)
async def test_a_frame_we_cannot_use_is_dropped_and_the_connection_goes_on(
    serving: Serving, what: str
) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one", after=0) as channel:
        ear = Ear(channel)
        await channel._connection.send_message(UNUSABLE[what])
        (*_, told) = await ear.until("error")
        assert told["error"]["code"] == "bad_request"
        assert told["error"]["message"]
        assert "iopub:stream" in words(await ear.execute("say('on')"))
    async with client.open_channel("one") as channel:
        await channel._connection.send_message(UNUSABLE[what])
        frames = await Ear(channel).execute("say('on')")
        assert "error" not in words(frames)


async def test_a_parent_header_may_be_empty_null_or_missing(serving: Serving) -> None:
    await start_puppet(serving.client)
    async with serving.client.open_channel("one") as channel:
        ear = Ear(channel)
        parents: list[dict[str, Any]] = [{"parent_header": {}}, {"parent_header": None}, {}]
        for number, parent in enumerate(parents):
            header = {"msg_id": f"m{number}", "msg_type": "execute_request"}
            content = {"code": "say('on')"}
            message = {"header": header, "channel": "shell", "content": content, **parent}
            await channel._connection.send_message(json.dumps(message))
            frames = await ear.until("iopub:status=idle", parent=f"m{number}")
            assert "iopub:stream" in words(frames)


async def test_binary_frames_are_ignored(serving: Serving) -> None:
    await start_puppet(serving.client)
    async with serving.client.open_channel("one") as channel:
        await channel._connection.send_message(b"\x00\xff")
        assert "iopub:stream" in words(await Ear(channel).execute("say('on')"))
