"""The client's end of a connection to the door, byte by byte where that matters."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h11
import trio

from tests.contract.responses import check_response

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TOKEN", "UPGRADE", "Answer", "Wire", "request", "upgrade"]

TOKEN = "a-token-of-the-tests"
PATIENCE_SECONDS = 5
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@dataclass(frozen=True)
class Answer:
    """A response, with how the receiving of it went."""

    status: int
    headers: dict[str, str]
    body: bytes
    informational: list[int] = field(default_factory=list)
    reads: int = 1

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of an error object."""
        return str(self.json["message"])

    def check(self, operation_id: str | None = None) -> Answer:
        """Fail unless the document has this answer."""
        check_response(operation_id, self.status, self.headers.get("content-type"), self.body)
        return self


def request(
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str | None] | None = None,
    version: str = "1.1",
) -> bytes:
    """A request with Host and token, unless ``headers`` say otherwise; None leaves one out."""
    fields: dict[str, str | None] = {"Host": "localhost", "Authorization": f"Bearer {TOKEN}"}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    fields |= headers or {}
    lines = [f"{method} {path} HTTP/{version}"]
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def upgrade(path: str, **changes: str | None) -> bytes:
    """A request for a WebSocket; underscores in names of ``changes`` stand for hyphens."""
    changed = {name.replace("_", "-"): value for name, value in changes.items()}
    return request("GET", path, headers={**UPGRADE, **changed})


class Wire:
    """One connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._rest = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def once(self) -> bytes:
        """What one read gives."""
        with trio.fail_after(PATIENCE_SECONDS):
            return bytes(await self.stream.receive_some(2**20))

    async def to_the_end(self) -> bytes:
        """Everything until the server ends the connection."""
        data = bytearray(self._rest)
        while more := await self.once():
            data += more
        return bytes(data)

    async def ask(self, data: bytes) -> Answer:
        """Send a request and get the answer."""
        await self.send(data)
        return await self.answer(data.partition(b" ")[0].decode())

    async def answer(self, method: str = "GET") -> Answer:
        """The next response."""
        parser = h11.Connection(h11.CLIENT)
        fields = [("Host", "localhost"), ("Upgrade", "websocket"), ("Connection", "Upgrade")]
        parser.send(h11.Request(method=method, target="/", headers=fields))
        parser.send(h11.EndOfMessage())
        parser.receive_data(self._rest) if self._rest else None
        self._rest = b""
        informational: list[int] = []
        response: h11.Response | h11.InformationalResponse | None = None
        body, reads = bytearray(), 0
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await self.once())
                reads += 1
            elif isinstance(event, h11.InformationalResponse):
                informational.append(event.status_code)
                if event.status_code == 101:
                    response = event
                    break
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
        assert response is not None
        self._rest = bytes(parser.trailing_data[0])
        headers = {name.decode(): value.decode("latin-1") for name, value in response.headers}
        return Answer(response.status_code, headers, bytes(body), informational, reads)


def counted_writes(monkeypatch: Any) -> list[bytes]:
    """Every write of every stream of the process from now on, in order."""
    writes: list[bytes] = []
    send_all: Callable[..., Any] = trio.SocketStream.send_all

    async def counting(self: trio.SocketStream, data: bytes) -> None:
        writes.append(bytes(data))
        await send_all(self, data)

    monkeypatch.setattr(trio.SocketStream, "send_all", counting)
    return writes
