"""What kernels send, good and bad, and what of it reaches the client (CONTRACT 5.3, 6)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kallichore.models import ExecuteRequest
from tests.listening import Ear, word, words
from tests.puppets import start_puppet

if TYPE_CHECKING:
    from tests.serving import Serving

CONTENT = (
    rb'{ "z":1 ,"a" : 1.50e+3,"big":123456789012345678901234567890,'
    rb'"e":"\u00e9\/\n","z":2,"deep":{"y":[],"x":{}}, "name":"stdout","text":"t"}'
)
METADATA = b'{"tags" : [ "b","a" ],"n":0.10}'


def published(msg_type: str, content: bytes, **more: str) -> str:
    """Say as code that a message with this very content is to be published."""
    extra = "".join(f", {name}={value}" for name, value in more.items())
    return f"publish({msg_type!r}, {content!r}{extra})"


async def heard(serving: Serving, code: str) -> list[dict[str, Any]]:
    """Start a kernel, and give all that comes of some code."""
    await start_puppet(serving.client)
    async with serving.client.open_channel("one") as channel:
        return await Ear(channel).execute(code)


async def test_contents_pass_byte_by_byte(both_ways: Serving) -> None:
    client = both_ways.client
    await start_puppet(client)
    code = published("stream", CONTENT, metadata=repr(METADATA))
    await client.execute_code("one", ExecuteRequest(code=code))
    async with client.open_channel("one") as channel:
        while True:
            text = await channel.receive_text()
            assert isinstance(text, str)
            if '"stream"' in text:
                break
    assert '"content":' + CONTENT.decode() in text
    assert '"metadata":' + METADATA.decode() in text


async def test_headers_come_with_every_field_the_kernel_sent(serving: Serving) -> None:
    code = (
        "import json; h = {'msg_id': 'x-1', 'msg_type': 'stream', 'username': 'ü', 'session': 's',"
        " 'date': '2020-01-01T00:00:00.000001Z', 'version': '5.4', 'subshell_id': None, 'own': [1]}"
        "\nimport hmac\n"
        "parts = [json.dumps(p).encode() for p in"
        " (h, kernel.parent, {}, {'name': 'stdout', 'text': 't'})]\n"
        "sign = hmac.new(kernel.key.encode(), b''.join(parts), 'sha256').hexdigest().encode()\n"
        "raw(b'<IDS|MSG>', sign, *parts)"
    )
    frames = await heard(serving, code)
    (stream,) = [one for one in frames if word(one) == "iopub:stream"]
    assert stream["header"] == {
        "msg_id": "x-1",
        "msg_type": "stream",
        "username": "ü",
        "session": "s",
        "date": "2020-01-01T00:00:00.000001Z",
        "version": "5.4",
        "subshell_id": None,
        "own": [1],
    }
    assert stream["parent_header"]["session"]
    assert stream["parent_header"]["date"]
    assert list(stream) == [
        *("kind", "header", "parent_header", "channel", "content", "metadata", "buffers")
    ]


async def test_the_kernel_gets_what_the_client_gave(serving: Serving) -> None:
    """The client's header fields unchanged, and the missing ones filled in."""
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        header = {
            "msg_id": "m1",
            "msg_type": "execute_request",
            "session": "mine",
            "username": "me",
            "date": "2020-01-01T00:00:00Z",
            "version": "5.0",
        }
        for given in (header, {"msg_id": "m2", "msg_type": "execute_request"}):
            frame = {
                "kind": "jupyter",
                "header": given,
                "parent_header": {},
                "channel": "shell",
                "content": {"code": "import json; say(json.dumps(kernel.parent))"},
                "metadata": {},
                "buffers": [],
            }
            await channel._connection.send_message(json.dumps(frame))
        streams = [(await ear.until("iopub:stream"))[-1] for _ in range(2)]
    first, second = (json.loads(one["content"]["text"]) for one in streams)
    assert first == header
    assert second.keys() == header.keys()
    assert (second["msg_id"], second["username"]) == ("m2", "tester")
    assert all(second.values())


async def test_what_strict_json_lacks_is_made_readable(serving: Serving) -> None:
    loose = rb'{"name":"stdout","text":"NaN","a":[NaN,Infinity,-Infinity,1],"s":"\ud800"}'
    frames = await heard(
        serving, published("stream", loose) + "\n" + published("x", b'{"t":"\xff\xfe"}')
    )
    (stream,) = [one for one in frames if word(one) == "iopub:stream"]
    assert stream["content"] == {
        "name": "stdout",
        "text": "NaN",
        "a": [None, None, None, 1],
        "s": "\ud800",
    }
    (other,) = [one for one in frames if word(one) == "iopub:x"]
    assert other["content"]["t"] == "\N{REPLACEMENT CHARACTER}" * 2


BAD = {
    "a wrong signature": "publish('stream', {'name': 'stdout', 'text': 'bad'}, key='0' * 32)",
    "no signature": (
        "f = kernel.frames('stream', {'name': 'stdout', 'text': 'bad'}, kernel.parent);"
        " raw(f[0], b'', *f[2:])"
    ),
    "half a signature": (
        "f = kernel.frames('stream', {'name': 'stdout', 'text': 'bad'}, kernel.parent);"
        " raw(f[0], f[1][:32], *f[2:])"
    ),
    "too few frames": "raw(b'<IDS|MSG>', b'x', b'{}')",
    "no delimiter": "raw(b'a', b'b', b'c', b'd', b'e', b'f', b'g')",
    "a lone frame": "raw(b'')",
    "content that is no JSON": published("stream", b'{"name":'),
    "content that is no object": published("stream", b"[1]"),
    "content that breaks out": published("stream", b'{},"channel":"shell"'),
    "two contents": published("stream", b"{}{}"),
    "an empty content": published("stream", b""),
    "content of depth 100000": "n = 100000; publish('x', b'{\"a\":' + b'[' * n + b']' * n + b'}')",
    "a parent that is a list": "publish('stream', b'{}', parent=b'[1]')",
    "a parent that is no JSON": "publish('stream', b'{}', parent=b'\\x00')",
    "metadata that is a string": "publish('stream', b'{}', metadata=b'\"x\"')",
    "a header without fields": (
        "import hmac; p = [b'{}', b'{}', b'{}', b'{}'];"
        " raw(b'<IDS|MSG>', hmac.new(kernel.key.encode(), b''.join(p),"
        " 'sha256').hexdigest().encode(), *p)"
    ),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_message_is_dropped_and_nothing_else(serving: Serving, what: str) -> None:
    frames = await heard(serving, f"say('before'); {BAD[what]}; say('after')")
    texts = [one["content"]["text"] for one in frames if word(one) == "iopub:stream"]
    assert texts == ["before", "after"]
    counters = serving.supervisor.get("one").talk.counters
    assert counters.bad_signatures + counters.malformed == 1
    assert counters.bad_signatures == int("signature" in what)


async def test_only_known_streams_and_states_reach_a_client(serving: Serving) -> None:
    code = (
        "say('a', 'stdout'); say('b', 'stderr'); say('c', 'log'); say('d', '')\n"
        "kernel.status('starting', {}); kernel.status('restarting', {}); kernel.status('dead', {})"
    )
    frames = await heard(serving, code)
    streams = [one["content"] for one in frames if word(one) == "iopub:stream"]
    assert [(one["name"], one["text"]) for one in streams] == [
        ("stdout", "a"),
        ("stderr", "b"),
        ("stdout", "c"),
        ("stdout", "d"),
    ]
    states = {said for said in words(frames) if said.startswith("iopub:status")}
    assert states == {"iopub:status=busy", "iopub:status=idle", "iopub:status=starting"}


async def test_a_parent_of_nothing_is_null(serving: Serving) -> None:
    code = "publish('x', {}, parent=b'{}'); publish('y', {}, parent=b' { } ')"
    frames = await heard(serving, code)
    parents = [one["parent_header"] for one in frames if word(one) in {"iopub:x", "iopub:y"}]
    assert parents == [None, None]


async def test_raw_output_is_passed_on_at_once_and_in_part(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.send("os.write(1, b'no newline'); say('now')\nwhile True: pass")
        (*_, output) = await ear.until("output")
        assert output["output"] == ["stdout", "no newline"]
        await client.interrupt_session("one")
        await ear.until("iopub:status=idle")
        await ear.send("os.write(2, b'\\xc3'); os.write(2, b'\\xa9\\xff')")
        text = ""
        while len(text) < 2:
            (*_, output) = await ear.until("output")
            assert output["output"][0] == "stderr"
            text += output["output"][1]
    assert text == "é\N{REPLACEMENT CHARACTER}"


async def test_all_output_comes_before_exited(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.send("os.write(1, b'x' * 60000); os.write(2, b'last words'); os._exit(0)")
        frames = await ear.until("exited=0")
    assert sum(len(one["output"][1]) for one in frames if "output" in one) == 60010
    assert words(frames)[-2:] == ["status=exited", "exited=0"]


async def test_the_last_messages_of_a_kernel_are_received(serving: Serving) -> None:
    """It exits right after its last word, in order."""
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.send("[say(str(n)) for n in range(200)]; kernel.end()")
        frames = await ear.until("exited=0")
    texts = [one["content"]["text"] for one in frames if word(one) == "iopub:stream"]
    assert texts == [str(number) for number in range(200)]


async def test_the_working_directory_is_followed(serving: Serving, tmp_path: Any) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.execute("pass")
        await ear.send(f"os.chdir({str(tmp_path)!r})")
        (*_, moved) = await ear.until("workingDirChanged")
        assert moved["workingDirChanged"] == str(tmp_path)
        frames = await ear.execute("pass")
    assert "workingDirChanged" not in words(frames)
    assert "workingDirChanged" not in words(ear.heard[: ear.heard.index(moved)])
    assert (await client.get_session("one")).working_directory == str(tmp_path)
