"""One HTTP exchange: a request replayed to Hypercorn, and its response gathered into few writes.

Hypercorn's `TCPServer` reads from an `Exchange` as though it were the connection, and it only ever
sees this one request: no upgrade, no HTTP/2, no second request, and no end of stream while the
response matters to anybody. What it writes is gathered: a small response leaves in one piece.

Two of its habits must be known to read this (`TCPServer` is no documented API, hence pinned). It
shields its writes without limit, so ours are bounded here, and closing the socket ends them. And it
starts an idle timer after each response unless its context says that it is to end, so the context
says so just before the response is complete; its `aclose` is then how it lets go of the exchange.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from kallichore.web.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent

    from kallichore.config import Deadlines, Limits
    from kallichore.web.inbound import Head
    from kallichore.web.reception import Connection

    App = Callable[[Any, ASGIReceiveCallable, ASGISendCallable], Awaitable[None]]

__all__ = ["HEED_HANG_UP", "Exchange", "hypercorn_config"]

HEED_HANG_UP = "kallichore.heed_hang_up"
"""A scope extension: call its ``heed``, and the operation ends when its caller hangs up.

Otherwise it goes on: a caller may close its sending side and still wait for the answer.
"""

_GATHERED_BYTES = 64 * 1024
"""A response up to this size leaves in one write."""
_FORGOTTEN_BYTES = 64 * 1024
"""A body that nobody wanted is read to its end, up to this size, so the connection can go on."""
_FOR_ONE_HOP = frozenset({b"connection", b"expect", b"http2-settings", b"upgrade"})

log = logging.getLogger(__name__)


def hypercorn_config(limits: Limits) -> HypercornConfig:
    """How Hypercorn is to treat the exchanges it gets."""
    config = HypercornConfig()
    config.include_server_header = False
    config.errorlog = log
    config.h11_max_incomplete_size = 2 * limits.head_bytes  # the limit has been checked here
    return config


class Exchange:
    """A request on its way to the application, and the response on its way back."""

    def __init__(self, connection: Connection, head: Head, deadlines: Deadlines) -> None:
        self.socket = connection.stream.socket
        """For Hypercorn, which asks it for addresses."""
        self._connection = connection
        self._inbound = connection.inbound
        self._head = head
        self._deadlines = deadlines
        self._chunked = bool(head.values(b"transfer-encoding"))
        self._replay = b""
        self._gathered = bytearray()
        self._has_answered = False
        self._is_complete = False
        self._is_broken = False
        """Whether a write has failed, or has not come to its end."""
        self._refused: Refused | None = None
        self._context = WorkerContext(None)
        self._closed = False
        self._reading = trio.CancelScope()
        self._heeded = trio.Event()

    async def run(self, app: App, config: HypercornConfig) -> bool:
        """Serve the request; say whether the connection can be used for another one.

        Cancelling it ends it at once, unless a write is stuck: then closing the socket does.

        Raises:
            Refused: The body is malformed, and no answer has left yet.

        """
        if self._inbound.peer_waits_to_continue:
            await self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._replay = self._replayed_head() + self._framed(self._inbound.body_nowait())
        await TCPServer(self._served(app), config, self._context, {}, self).run()  # type: ignore[arg-type]
        if self._refused is not None and not self._has_answered:
            raise self._refused
        await self._flush()
        if not self._is_complete or self._head.is_last or self._refused is not None:
            return False
        with trio.move_on_after(self._deadlines.linger_seconds):
            await self._inbound.finish_body(_FORGOTTEN_BYTES)
        return self._inbound.body_is_complete

    # What Hypercorn's TCPServer asks of a stream.

    async def receive_some(self, _max_bytes: int | None = None) -> bytes:
        """The request; then nothing until the exchange ends, or its caller is gone."""
        if self._replay:
            replay, self._replay = self._replay, b""
            return replay
        if not self._closed:
            with trio.CancelScope() as self._reading:
                return await self._more()
        raise trio.ClosedResourceError

    async def send_all(self, data: bytes) -> None:
        """Gather a piece of the response."""
        self._gathered += data
        if len(self._gathered) >= _GATHERED_BYTES:
            await self._flush()

    async def send_eof(self) -> None:
        """The connection goes on: there is nothing to do."""

    async def aclose(self) -> None:
        """Hypercorn is done with the exchange; the connection goes on."""
        self._closed = True
        self._reading.cancel(reason="the exchange is over")

    # Behind it.

    async def _more(self) -> bytes:
        """The next part of the request, or the end of the stream when it matters."""
        try:
            if not self._inbound.body_is_complete:
                return self._framed(await self._inbound.body())
        except Refused as refused:
            self._refused = refused
            raise trio.BrokenResourceError from refused
        await self._inbound.hung_up()
        await self._heeded.wait()
        return b""

    def _replayed_head(self) -> bytes:
        """The head without what concerns this connection alone."""
        head = self._head
        target = f"{head.path}?{head.query}" if head.query else head.path
        lines = [f"{head.method} {target} HTTP/{head.http_version}".encode("ascii")]
        for name, value in head.headers:
            passes = name not in _FOR_ONE_HOP and not name.startswith(b"sec-websocket-")
            if passes and not (self._chunked and name == b"content-length"):
                lines.append(name + b": " + value)
        if head.is_last:
            lines.append(b"connection: close")
        return b"\r\n".join([*lines, b"", b""])

    def _framed(self, data: bytes) -> bytes:
        """A part of the body as the head announced it."""
        if not self._chunked:
            return data
        chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return chunk + (b"0\r\n\r\n" if self._inbound.body_is_complete else b"")

    def _served(self, app: App) -> Callable[..., Awaitable[None]]:
        """The application as Hypercorn calls it, with the end of each response in our hands."""

        async def serve(
            scope: Any,  # noqa: ANN401 (Hypercorn's type has the scopes of other protocols too)
            receive: ASGIReceiveCallable,
            send: Callable[[ASGISendEvent], Awaitable[None]],
            *_thread_functions: object,
        ) -> None:
            async def respond(message: Any) -> None:  # noqa: ANN401 (any of ASGI's messages)
                last = message["type"] == "http.response.body" and not message.get("more_body")
                await (self._complete(send, message) if last else send(message))

            scope["extensions"][HEED_HANG_UP] = {"heed": self._heeded.set}
            try:
                await app(scope, receive, respond)
            finally:
                with trio.move_on_after(1, shield=True):  # Hypercorn's word for it; it never waits
                    await self._context.terminated.set()

        return serve

    async def _complete(
        self, send: Callable[[ASGISendEvent], Awaitable[None]], message: ASGISendEvent
    ) -> None:
        """Send the last part of a response.

        Hypercorn tells the application that the exchange is over while it is still in here, and
        Quart-Trio then cancels itself: hence the shield.
        """
        with trio.move_on_after(self._deadlines.write_seconds, shield=True):
            await self._context.terminated.set()
            await send(message)
            try:
                await self._flush()  # now, not when Hypercorn has cleared its table
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # nobody is there to be told
            self._is_complete = True

    async def _flush(self) -> None:
        """Write what has been gathered, in bounded time also where Hypercorn shields it.

        Hypercorn forgives a write that failed, and goes on: the rest must not follow then.
        """
        if self._is_broken:
            raise trio.BrokenResourceError("an earlier write has failed")
        gathered, self._gathered = self._gathered, bytearray()
        if gathered:
            self._has_answered = self._is_broken = True
            await self._connection.write(gathered)
            self._is_broken = False
