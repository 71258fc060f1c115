"""The reception: accepts the connections of one listener, bounds their number, and sees them out.

Closing is bounded whatever the peers do: connections that wait for a request end at once, running
exchanges get `Deadlines.http_close_seconds`, and then the sockets are closed under them, which is
the only thing that ends a write that Hypercorn shields.
"""

from __future__ import annotations

import errno
import logging
import socket
from typing import TYPE_CHECKING

import trio

from kallichore.nurseries import Activity, contain
from kallichore.web.inbound import Inbound
from kallichore.web.refusal import Refused, response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kallichore.config import Config
    from kallichore.web.inbound import Head

__all__ = ["Connection", "Reception"]

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NO_ROOM_PAUSE_SECONDS = 0.1

log = logging.getLogger(__name__)


class Connection:
    """One accepted stream, with what its task needs to serve it."""

    def __init__(self, stream: trio.SocketStream, reception: Reception, config: Config) -> None:
        self.stream = stream
        self.inbound = Inbound(stream, config.limits, config.deadlines)
        self._reception = reception
        self._deadlines = config.deadlines
        self._span: bytes | None = None
        self._at_rest: trio.CancelScope | None = None
        self._holds_place = True

    async def next_head(self) -> Head | None:
        """The next request's head; None when there is none, and the connection is to end.

        Raises:
            Refused: The head cannot be used.

        """
        self._span, begun = None, False
        if not self._reception.is_closing:
            with trio.CancelScope() as self._at_rest:
                self._reception.changed.note()
                begun = await self.inbound.wait()
            self._at_rest = None
        head = await self.inbound.head() if begun else None
        self._span = head.span if head else None
        return head

    async def write(self, data: bytes | bytearray) -> None:
        """Write in bounded time.

        Raises:
            trio.BrokenResourceError: The peer is gone, or takes no data.

        """
        with trio.move_on_after(self._deadlines.write_seconds) as patience:
            await self.stream.send_all(data)
        if patience.cancelled_caught:
            raise trio.BrokenResourceError("the peer takes no data")

    async def refuse(self, refused: Refused) -> None:
        """Answer the last request in place of an application, and end the connection."""
        log.debug("Request refused: %s", refused)
        await self.write(response(refused, self._span))
        await self.see_out()

    async def see_out(self) -> None:
        """End our side, and let the peer finish its own for a moment.

        A socket that is closed with bytes unread takes the answer back from under its reader.
        """
        with trio.move_on_after(self._deadlines.linger_seconds) as self._at_rest:
            await self.stream.send_eof()
            await self.inbound.drain()
        self._at_rest = None

    def dismiss(self) -> bool:
        """End the connection if nothing is going on there; whether that is so."""
        if self._at_rest is None:
            return False
        self._at_rest.cancel(reason="the connection is idle, and in the way")
        return True

    def cut_off(self) -> None:
        """Close the socket under whoever reads or writes; a channel is left to its session."""
        if self._holds_place:
            self.stream.socket.close()

    def give_up_place(self) -> None:
        """Become a channel: no longer count among the connections of the listener."""
        if self._holds_place:
            self._holds_place = False
            self._reception.free_places += 1
            self._reception.changed.note()


class Reception:
    """The connections of one listener."""

    def __init__(self, config: Config, serve: Callable[[Connection], Awaitable[None]]) -> None:
        """Serve each connection with ``serve``, which may raise what it likes."""
        self.free_places = config.limits.connections
        self.changed = Activity()
        """A connection has come to rest, has become a channel, or has left."""
        self._config = config
        self._serve = serve
        self._present: dict[Connection, None] = {}
        self._accepting = trio.CancelScope()
        self._closing = trio.Event()

    @property
    def is_closing(self) -> bool:
        """Whether no further request is served."""
        return self._closing.is_set()

    async def run(
        self,
        listener: trio.SocketListener,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve ``listener``, which is ours from now on, until `close`; then close everything.

        Cancelling it closes everything at once.
        """
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(self._close_when_told, nursery)
            task_status.started()
            with self._accepting:
                await self._accept(listener, nursery)
            await listener.aclose()

    def close(self) -> None:
        """Begin to close: nobody else comes in, who is idle goes, the others get a moment."""
        self._closing.set()
        self._accepting.cancel(reason="the door is closing")
        for connection in self._present:
            connection.dismiss()

    async def _close_when_told(self, nursery: trio.Nursery) -> None:
        try:
            await self._closing.wait()
            with trio.move_on_after(self._config.deadlines.http_close_seconds):
                while self._present:
                    await self.changed.next()
        finally:
            for connection in self._present:
                connection.cut_off()
            nursery.cancel_scope.cancel(reason="the door is closed")

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        borrowed = socket.socket(fileno=listener.socket.fileno())
        try:
            while True:
                await self._wait_for_place(listener)
                self._welcome(await self._next_stream(listener), nursery)
                self._accept_those_who_wait(borrowed, nursery)
        finally:
            borrowed.detach()

    def _accept_those_who_wait(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        """Take whoever else is there already.

        Trio gives a turn of the loop to each connection, which is long when kernels flood: behind a
        crowd of hundreds a request would wait for many seconds.
        """
        for _ in range(min(self.free_places, self._config.limits.accepted_at_once)):
            try:
                accepted, _address = listener.accept()
            except OSError:  # nobody is there, or whatever it is will come again
                return
            self.free_places -= 1
            self._welcome(trio.SocketStream(trio.socket.from_stdlib_socket(accepted)), nursery)

    def _welcome(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        """Begin to serve a connection; they are remembered in the order in which they came."""
        connection = Connection(stream, self, self._config)
        self._present[connection] = None
        nursery.start_soon(self._receive, connection)

    async def _wait_for_place(self, listener: trio.SocketListener) -> None:
        """Take a place for the next connection. Idle ones make way, but only if somebody knocks."""
        while self.free_places == 0:
            await trio.lowlevel.wait_readable(listener.socket)
            if self.free_places == 0:
                self._dismiss_one()
                await self.changed.next()
        self.free_places -= 1

    async def _next_stream(self, listener: trio.SocketListener) -> trio.SocketStream:
        while True:
            try:
                return await listener.accept()
            except OSError as exc:
                if exc.errno not in _NO_ROOM:
                    raise
                log.error("Cannot accept a connection: %s", exc.strerror)  # noqa: TRY400 (no news)
            self._dismiss_one()
            await trio.sleep(_NO_ROOM_PAUSE_SECONDS)

    def _dismiss_one(self) -> None:
        """Make the idle connection that came first leave, if there is one."""
        any(connection.dismiss() for connection in self._present)

    async def _receive(self, connection: Connection) -> None:
        """Serve one connection to its end."""
        try:
            async with connection.stream:
                await contain("a connection", self._serve_unless_gone, connection)
        finally:
            del self._present[connection]
            connection.give_up_place()
            self.changed.note()

    async def _serve_unless_gone(self, connection: Connection) -> None:
        try:
            await self._serve(connection)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
            log.debug("The peer of a connection is gone: %s", exc)
