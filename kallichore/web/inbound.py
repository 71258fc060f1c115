"""What a peer sends on an HTTP connection: heads under limits, bodies, and bytes that come early.

h11 does the parsing, one fresh `h11.Connection` a request; this module gives it a head only when
the head is complete, so that one which comes byte by byte costs a search and no parsing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import h11
import trio

from kallichore.errors import BadRequest
from kallichore.web.refusal import Headers, Refused

if TYPE_CHECKING:
    from kallichore.config import Deadlines, Limits

__all__ = ["Head", "Inbound"]

_READ_BYTES = 64 * 1024
_HEAD_END = re.compile(rb"\n\r?\n")
_HEAD_END_BYTES = 3
_NOT_FIELDS = 2
"""Lines of a head that are no fields: the request line, and the empty one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of a request, in origin form."""

    method: str
    path: str
    """Still percent-encoded."""
    query: str
    http_version: str
    headers: Headers

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field of that name."""
        return [value for field, value in self.headers if field == name]

    def tokens(self, name: bytes) -> set[bytes]:
        """The comma-separated tokens of those fields, in lower case."""
        parts = b",".join(self.values(name)).lower().split(b",")
        return {part.strip(b" \t") for part in parts} - {b""}

    @property
    def span(self) -> bytes | None:
        """The caller's ``X-Span-ID``."""
        return next(iter(self.values(b"x-span-id")), None)

    @property
    def is_last(self) -> bool:
        """Whether the connection ends with this request."""
        return self.http_version == "1.0" or b"close" in self.tokens(b"connection")


class Inbound:
    """The receiving half of one connection. One task at a time may use it."""

    def __init__(
        self, stream: trio.abc.ReceiveStream, limits: Limits, deadlines: Deadlines
    ) -> None:
        self._stream = stream
        self._limits = limits
        self._deadlines = deadlines
        self._early = bytearray()
        self._framing = h11.Connection(h11.SERVER)
        self._fresh = True
        self._head_deadline = trio.current_time() + deadlines.head_seconds
        self.body_is_complete = True
        """Whether all of the current request's body has been read."""

    async def wait(self) -> bool:
        """Wait for the first byte of a head; False if none comes. Cancelling it loses nothing.

        Raises:
            Refused: 408, if a new connection stays silent; one that has been used before may.

        """
        fresh, self._fresh = self._fresh, False
        patience = self._deadlines.head_seconds if fresh else self._deadlines.keep_alive_seconds
        started = trio.current_time()
        with trio.move_on_after(patience):
            while not self._has_begun():
                if not await self._receive():
                    return False
            since = started if fresh else trio.current_time()
            self._head_deadline = since + self._deadlines.head_seconds
            return True
        if fresh:
            raise self._too_slow()
        return False

    async def head(self) -> Head | None:
        """Read the head that has begun; None if the peer hangs up instead.

        Raises:
            Refused: 408, 431, or 400 and its relatives if it is malformed.

        """
        searched = 0
        with trio.move_on_at(self._head_deadline):
            while (end := self._end_of_head(searched)) is None:
                searched = max(0, len(self._early) - _HEAD_END_BYTES + 1)
                if not await self._receive():
                    return None
            return self._parse(end)
        raise self._too_slow()

    async def body(self) -> bytes:
        """Read more of the current request's body; empty at its end.

        Raises:
            Refused: 400 for a malformed body.
            trio.BrokenResourceError: The peer hung up before the end of it.

        """
        while True:
            if (data := self.body_nowait()) or self.body_is_complete:
                return data
            received = await self._stream.receive_some(_READ_BYTES)
            if not received:
                raise trio.BrokenResourceError("hung up amid a request")
            self._framing.receive_data(bytes(received))

    def body_nowait(self) -> bytes:
        """The part of the body that is here already, maybe empty.

        Raises:
            Refused: 400 for a malformed body.

        """
        data = bytearray()
        while not self.body_is_complete:
            if self._early:
                self._framing.receive_data(bytes(self._early))
                self._early.clear()
            try:
                event = self._framing.next_event()
            except h11.RemoteProtocolError as exc:
                raise _malformed(exc) from None
            if isinstance(event, h11.Data):
                data += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.body_is_complete = True
                self._early += self._framing.trailing_data[0]
            else:
                break
        return bytes(data)

    @property
    def peer_waits_to_continue(self) -> bool:
        """Whether the peer wants a ``100 Continue`` before it sends the body."""
        return self._framing.they_are_waiting_for_100_continue

    async def hung_up(self) -> None:
        """Return when the peer has ended its sending side; keep what comes before that.

        Cancelling it loses nothing.
        """
        while len(self._early) <= self._limits.head_bytes:
            if not await self._receive():
                return
        await trio.sleep_forever()  # its next requests are waiting, so it is there

    async def finish_body(self, most_bytes: int) -> None:
        """Read and forget the rest of the current request's body, if it is not longer than that.

        Raises:
            Refused: 400 for a malformed body.
            trio.BrokenResourceError: The peer hung up before the end of it.

        """
        while most_bytes > 0 and not self.body_is_complete:
            most_bytes -= len(await self.body())

    async def drain(self) -> None:
        """Read and forget everything until the peer hangs up."""
        while await self._stream.receive_some(_READ_BYTES):
            pass

    def rest(self) -> bytes:
        """Take what has come after the last request."""
        data = bytes(self._early)
        self._early.clear()
        return data

    def _too_slow(self) -> Refused:
        seconds = self._deadlines.head_seconds
        return Refused.because(
            408, "timeout", f"The request's head was not complete after {seconds:g} seconds"
        )

    async def _receive(self) -> bool:
        data = await self._stream.receive_some(_READ_BYTES)
        self._early += data
        return bool(data)

    def _has_begun(self) -> bool:
        """Whether a head has; line ends before it are dropped (RFC 9112, 2.2)."""
        while self._early[:1] == b"\n" or self._early[:2] == b"\r\n":
            del self._early[: self._early.index(b"\n") + 1]
        return bytes(self._early[:2]) not in {b"", b"\r"}

    def _end_of_head(self, searched: int) -> int | None:
        """Where the head ends, if it has come so far."""
        limit = self._limits.head_bytes
        if not self._early[:1].isalpha():
            raise _bad("This is no HTTP request")
        match = _HEAD_END.search(self._early, searched)
        if (match.end() if match else len(self._early)) > limit:
            raise _too_large(f"The request's head has more than {limit} bytes")
        return match.end() if match else None

    def _parse(self, end: int) -> Head:
        """Make a `Head` of the first ``end`` bytes, and take them away."""
        most_fields = self._limits.head_fields
        if self._early.count(b"\n", 0, end) > most_fields + _NOT_FIELDS:
            raise _too_large(f"The request's head has more than {most_fields} fields")
        self._framing = h11.Connection(
            h11.SERVER, max_incomplete_event_size=self._limits.head_bytes
        )
        self._framing.receive_data(bytes(self._early[:end]))
        del self._early[:end]
        try:
            request = self._framing.next_event()
        except h11.RemoteProtocolError as exc:
            raise _malformed(exc) from None
        if not isinstance(request, h11.Request):
            raise _bad("This is no HTTP request")
        self.body_is_complete = False
        return _head(request)


def _head(request: h11.Request) -> Head:
    version = request.http_version.decode("ascii")
    if not version.startswith("1."):
        raise _bad(f"HTTP/{version} is not spoken here; HTTP/1.1 is")
    target, headers = request.target.decode("ascii"), tuple(request.headers)
    if not target.startswith("/"):
        target, headers = _origin_form(target, headers)
    path, _, query = target.partition("?")
    return Head(
        method=request.method.decode("ascii"),
        path=path,
        query=query,
        http_version=version,
        headers=headers,
    )


def _origin_form(target: str, headers: Headers) -> tuple[str, Headers]:
    """The target without its authority, which goes before any ``Host`` (RFC 9112, 3.2.2)."""
    try:
        parts = urlsplit(target)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise _bad("The request's target is not a path")
    others = tuple(field for field in headers if field[0] != b"host")
    query = f"?{parts.query}" if parts.query else ""
    return (parts.path or "/") + query, ((b"host", parts.netloc.encode("ascii")), *others)


def _malformed(error: h11.RemoteProtocolError) -> Refused:
    why = str(error).partition(": bytearray")[0]  # what follows may hold a token
    return _bad(f"The request is malformed: {why}")


def _bad(message: str) -> Refused:
    return Refused.by(BadRequest(message))


def _too_large(message: str) -> Refused:
    return Refused.because(431, "head_too_large", message)
