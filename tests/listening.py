"""What a session's client hears, in words: frames of a channel as short as a test's expectation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kallichore.client import Channel, Client

__all__ = ["UPGRADE", "Ear", "Frame", "upgraded", "word", "words"]

Frame = dict[str, Any]
_FIELDS = (
    b"Host: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)
UPGRADE = b"GET /any HTTP/1.1\r\n" + _FIELDS


def word(frame: Frame) -> str:
    """Say what a frame is.

    Events of the server are their key, some with their value: ``status=busy``, ``exited=-1``.
    Messages of the kernel are their channel and type, some with what matters in them:
    ``iopub:status=busy``, ``iopub:stream``, ``shell:execute_reply=ok``.
    """
    if frame["kind"] == "kernel":
        (key,) = frame.keys() - {"kind", "seq"}
        if key == "status":
            return f"status={frame[key]['status']}"
        return f"exited={frame[key]}" if key == "exited" else key
    msg_type = frame["header"]["msg_type"]
    name = f"{frame['channel']}:{msg_type}"
    detail = {"status": "execution_state", "execute_reply": "status"}.get(msg_type, "")
    return f"{name}={frame['content'][detail]}" if detail else name


def words(frames: Iterable[Frame], *channels: str) -> list[str]:
    """Say what frames are, leaving out samples of resource usage.

    With ``channels``, messages of these only, and all events: between the sockets of a kernel
    there is no order.
    """
    chosen = [
        frame
        for frame in frames
        if not channels or frame["kind"] == "kernel" or frame["channel"] in channels
    ]
    return [word(frame) for frame in chosen if "resourceUsage" not in frame]


class Ear:
    """Everything that arrives on a channel, kept in order."""

    def __init__(self, channel: Channel) -> None:
        """Listen to ``channel``."""
        self.channel = channel
        self.heard: list[Frame] = []

    async def next(self) -> Frame:
        """Give the next frame."""
        frame: Frame = json.loads(await self.channel.receive_text())
        self.heard.append(frame)
        return frame

    async def until(self, wanted: str, *, parent: str | None = None) -> list[Frame]:
        """Listen up to the first frame that is ``wanted``; give all since the call.

        With ``parent``, only a message whose parent has that id will do.
        """
        frames: list[Frame] = []
        while True:
            frame = await self.next()
            frames.append(frame)
            if word(frame) == wanted and (
                parent is None or (frame["parent_header"] or {}).get("msg_id") == parent
            ):
                return frames

    async def execute(self, code: str, **options: Any) -> list[Frame]:
        """Run code, and listen until both its reply and its idle are there."""
        msg_id = await self.send(code, **options)
        frames: list[Frame] = []
        idle = replied = False
        while not (idle and replied):
            frame = await self.next()
            frames.append(frame)
            if (frame.get("parent_header") or {}).get("msg_id") == msg_id:
                idle = idle or word(frame) == "iopub:status=idle"
                replied = replied or frame["header"]["msg_type"] == "execute_reply"
        return frames

    async def send(self, code: str, **options: Any) -> str:
        """Ask for code to be run; give the request's id."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        return await self.channel.request("execute_request", content | options)


async def upgraded(client: Client, session_id: str = "one") -> trio.SocketStream:
    """Connect to a session's channel by hand, and read no further than the 101."""
    target = client.target
    if target.socket_path is None:
        address = urlsplit(target.base_url)
        stream = await trio.open_tcp_stream(str(address.hostname), address.port or 80)
        head = (
            f"GET /sessions/{session_id}/channels HTTP/1.1\r\nAuthorization: Bearer {target.token}"
        )
        await stream.send_all(head.encode() + b"\r\n" + _FIELDS)
    else:
        stream = await trio.open_unix_socket(await client.channels_upgrade(session_id))
        await stream.send_all(UPGRADE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += await stream.receive_some(1)
    assert answer.startswith(b"HTTP/1.1 101 ")
    return stream
