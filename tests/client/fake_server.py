"""A server for tests of the client: answers as it is told, over TCP or a Unix socket.

HTTP is h11's, the channel is wsproto's; the test writes the script of both.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h11
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from wsproto.events import Event

__all__ = ["FakeChannel", "FakeServer", "Received", "header", "jupyter", "kernel", "open_server"]

HANG_UP = b"\0hang up"
"""As a raw answer: close without a word."""


@dataclass
class Received:
    """A request that came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FakeChannel:
    """The server's side of one WebSocket."""

    def __init__(self, stream: trio.abc.Stream, connection: WSConnection) -> None:
        self.stream = stream
        self.connection = connection
        self._events: list[Event] = []

    async def send(self, event: Event) -> None:
        await self.stream.send_all(self.connection.send(event))

    async def send_json(self, *frames: dict[str, Any]) -> None:
        for frame in frames:
            await self.send(TextMessage(data=json.dumps(frame)))

    async def receive(self) -> Event:
        """The next event; a text message comes whole."""
        text = ""
        while True:
            while not self._events:
                data = await self.stream.receive_some()
                self.connection.receive_data(bytes(data) or None)
                self._events.extend(self.connection.events())
            event = self._events.pop(0)
            if not isinstance(event, TextMessage):
                return event
            text += event.data
            if event.message_finished:
                return TextMessage(data=text)

    async def receive_json(self) -> dict[str, Any]:
        event = await self.receive()
        assert isinstance(event, TextMessage), event
        frame: dict[str, Any] = json.loads(event.data)
        return frame

    async def ping(self) -> None:
        """Send a ping, and return when it was answered."""
        await self.send(Ping(payload=b"12345678"))
        while not isinstance(await self.receive(), Pong):
            pass

    async def wait_closed(self) -> None:
        """Read until the client closes, and close too."""
        while not isinstance(event := await self.receive(), CloseConnection):
            pass
        if self.connection.state is ConnectionState.REMOTE_CLOSING:
            await self.send(event.response())

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.send(CloseConnection(code=code, reason=reason))
        while not isinstance(await self.receive(), CloseConnection):
            pass


@dataclass
class FakeServer:
    """What to answer, and what was asked."""

    address: str = ""
    """What a client is opened with."""
    socket_path: str | None = None
    answers: dict[tuple[str, str], tuple[int, bytes]] = field(default_factory=dict)
    raw: dict[str, bytes] = field(default_factory=dict)
    """By path: bytes to answer instead of HTTP, after which the connection is closed."""
    silent: set[str] = field(default_factory=set)
    """Paths that get no answer at all, for as long as the client waits."""
    asked: trio.Event = field(default_factory=trio.Event)
    """Set when a path of `silent` was asked for."""
    refuse_upgrade: tuple[int, bytes] | None = None
    script: Callable[[FakeChannel], Awaitable[None]] | None = None
    requests: list[Received] = field(default_factory=list)
    gone: trio.Event = field(default_factory=trio.Event)
    """Set when a connection has ended on the client's side."""

    def answer(self, method: str, path: str, value: object, status: int = 200) -> None:
        self.answers[method, path] = status, json.dumps(value).encode()

    async def handle(self, stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):
                await self._exchange_all(stream)
        self.gone.set()

    async def _exchange_all(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        head = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await stream.receive_some()
                head += data
                connection.receive_data(data)
            elif isinstance(event, h11.Request):
                headers = {key.decode(): value.decode() for key, value in event.headers}
                request = Received(event.method.decode(), event.target.decode(), headers, b"")
                self.requests.append(request)
                if headers.get("upgrade", "").lower() == "websocket":
                    await self._upgrade(stream, head, request)
                    return
            elif isinstance(event, h11.Data):
                request.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                if not await self._answer(stream, connection, request):
                    return
                connection.start_next_cycle()
                head = b""
            else:
                return

    async def _misbehave(self, stream: trio.SocketStream, path: str) -> bool:
        """Do something that is not HTTP, if the test wants it."""
        if path in self.silent:
            self.asked.set()
            await stream.receive_some()
        elif path in self.raw:
            if self.raw[path] != HANG_UP:
                await stream.send_all(self.raw[path])
        else:
            return False
        return True

    async def _answer(
        self, stream: trio.SocketStream, connection: h11.Connection, request: Received
    ) -> bool:
        path = request.target.partition("?")[0]
        if await self._misbehave(stream, path):
            return False
        status, body = self.answers.get((request.method, path), (404, b""))
        response = h11.Response(status_code=status, headers=[("Content-Length", str(len(body)))])
        parts = connection.send(response), connection.send(h11.Data(data=body))
        await stream.send_all(
            b"".join(part for part in (*parts, connection.send(h11.EndOfMessage())) if part)
        )
        return True

    async def _upgrade(self, stream: trio.SocketStream, head: bytes, request: Received) -> None:
        if await self._misbehave(stream, request.target.partition("?")[0]):
            return
        connection = WSConnection(ConnectionType.SERVER)
        connection.receive_data(head)
        assert isinstance(next(iter(connection.events())), Request)
        channel = FakeChannel(stream, connection)
        if self.refuse_upgrade is not None:
            status, body = self.refuse_upgrade
            headers = [(b"content-length", str(len(body)).encode())]
            await channel.send(RejectConnection(status_code=status, headers=headers, has_body=True))
            await channel.send(RejectData(data=body, body_finished=True))
            return
        await channel.send(AcceptConnection())
        if self.script is not None:
            await self.script(channel)


@asynccontextmanager
async def open_server(path: Path | None) -> AsyncIterator[FakeServer]:
    """Serve on 127.0.0.1, or on a Unix socket at ``path``; the script is up to the test."""
    async with trio.open_nursery() as nursery:
        if path is None:
            listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
            server = FakeServer(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
        else:
            sock = trio.socket.socket(trio.socket.AF_UNIX)
            await sock.bind(str(path))
            sock.listen()
            listener = trio.SocketListener(sock)
            server = FakeServer(f"unix:{path}", str(path))
            server.answer("GET", "/sessions/one/channels", str(path))
        await nursery.start(trio.serve_listeners, server.handle, [listener])
        yield server
        nursery.cancel_scope.cancel(reason="the test has ended")


def header(msg_id: str, msg_type: str) -> dict[str, str]:
    return {"msg_id": msg_id, "msg_type": msg_type, "session": "k", "username": "u", "date": "d"}


def jupyter(
    msg_type: str,
    content: dict[str, Any],
    parent: dict[str, Any] | None = None,
    channel: str = "iopub",
) -> dict[str, Any]:
    """A frame with a message of the kernel."""
    return {
        "kind": "jupyter",
        "header": header(f"k-{msg_type}", msg_type),
        "parent_header": parent,
        "channel": channel,
        "content": content,
        "metadata": {},
        "buffers": [],
    }


def kernel(key: str, value: object) -> dict[str, Any]:
    """A frame with an event of the supervisor."""
    return {"kind": "kernel", key: value}
