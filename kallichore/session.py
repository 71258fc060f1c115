"""One supervised kernel with an id: it outlives its runs and its clients (CONTRACT 3).

Owns the session's nursery, in which its kernel's runs and its clients are tasks, and its socket.
"""

from __future__ import annotations

import logging
import secrets
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from kallichore import guardian, listeners
from kallichore.control import Control
from kallichore.conversation import Conversation
from kallichore.description import describe
from kallichore.errors import NoConnectionInfo, SessionNotFound, SessionRunning, StartupFailed
from kallichore.executing import execute
from kallichore.kernel.connection import safe_name
from kallichore.kernel.rendezvous import drawn_connection
from kallichore.nurseries import SessionGone, hand_over, run_in
from kallichore.protocol.lifecycle import MAY_BE_DELETED, MAY_BE_STARTED
from kallichore.stamps import now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kallichore.frontend import Peer
    from kallichore.kernel.run import RunTools
    from kallichore.models import (
        ActiveSession,
        ConnectionInfo,
        ExecuteReply,
        ExecuteRequest,
        ExecutionHistoryEntry,
        NewSession,
        RestartSession,
        Status,
    )
    from kallichore.outbox import MemoryBudget

__all__ = ["Session"]

T = TypeVar("T")
log = logging.getLogger(__name__)
_PORTS = 5


class Session:
    """A kernel under supervision. Made by `Supervisor.create`, which also runs it."""

    def __init__(
        self,
        spec: NewSession,
        tools: RunTools,
        budget: MemoryBudget,
        socket_directories: list[Path],
        noticed: Callable[[Session], None],
    ) -> None:
        """Begin uninitialized. ``noticed`` is called when what others go by has changed."""
        self.id = spec.session_id
        self.created = now()
        self.key = secrets.token_hex(16)
        self.talk = Conversation(
            spec.session_id,
            spec.username,
            tools.limits,
            tools.deadlines,
            budget,
            tools.traffic,
            tools.directory / f"spool-{safe_name(spec.session_id)}",
            self._locate_kernel,
            partial(noticed, self),
        )
        self.control = Control(spec, self.key, tools, self.talk)
        self.socket_path: Path | None = None
        self._tools = tools
        self._socket_directories = socket_directories
        self._ports: list[int] = []
        self._nursery: trio.Nursery | None = None
        self._opened = trio.Event()
        self._closed = trio.Event()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Hold the session's tasks until the session is ended; then remove what belonged to it."""
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    self._opened.set()
                    await self.talk.watch_replies()
        finally:
            self._closed.set()
            self._opened.set()
            self.talk.outbox.close()
            self._tools.ports.release(self._ports)
            if self.socket_path is not None:
                listeners.remove_socket(self.socket_path)
                guardian.forget(self.socket_path)

    async def _home(self) -> trio.Nursery:
        """Give the session's nursery. Raises `SessionNotFound` if the session has ended."""
        await self._opened.wait()
        if self._nursery is None or self._closed.is_set():
            raise SessionNotFound(self.id)
        return self._nursery

    # -- what is known of it --------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """Where it is in its life."""
        return self.talk.state.status

    @property
    def connected(self) -> bool:
        """Whether a client is on its channel."""
        return self.talk.frontend is not None

    def describe(self) -> ActiveSession:
        """Describe it as it is now."""
        return describe(self)

    def history(self) -> list[ExecutionHistoryEntry]:
        """Give what was executed, oldest first."""
        return list(self.talk.history)

    def connection_info(self) -> ConnectionInfo:
        """Where the kernel is reached.

        A session without a command is meant to adopt a kernel: it draws its ports on first asking.

        Raises:
            NoConnectionInfo: The kernel has not been started, or has not registered yet.
        """
        run = self.talk.run
        if run is not None and run.connection is not None:
            return run.connection
        if self.control.spec.argv:
            why = "it has not registered yet" if self.control.running else "it is not running"
            raise NoConnectionInfo(self.id, why)
        if not self._ports:
            try:
                self._ports = self._tools.ports.reserve(_PORTS)
            except OSError as error:
                raise NoConnectionInfo(self.id, str(error)) from error
        return drawn_connection(self._ports, self.key)

    def _locate_kernel(self) -> None:
        self.control.locate_kernel()

    # -- lifecycle ------------------------------------------------------------------------------

    async def start(self) -> bytes:
        """Start the kernel; give the content of its `kernel_info_reply`.

        The start belongs to the session: if the caller is cancelled, it goes on.

        Raises:
            StartupFailed: It was refused or failed. Nothing is left of it.
        """
        if self.status not in MAY_BE_STARTED:
            raise StartupFailed(SessionRunning(self.id))
        home = await self._home()
        return await self._hand_over(home, partial(self.control.start, home))

    async def restart(self, changes: RestartSession | None) -> None:
        """End the kernel, if there is one, and start another; clients stay.

        Like a start it goes on if the caller is cancelled.

        Raises:
            StartupFailed: It was refused or failed.
        """
        home = await self._home()
        self._log("a restart is asked for")
        await self._hand_over(home, partial(self.control.restart, home, changes))

    async def adopt(self, connection: ConnectionInfo) -> bytes:
        """Talk to a kernel that somebody else runs; give the content of its `kernel_info_reply`.

        Raises:
            KallichoreError: It was refused or failed; the session is as it was.
        """
        home = await self._home()
        return await self._hand_over(home, partial(self.control.adopt, home, connection))

    async def _hand_over(self, home: trio.Nursery, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await hand_over(home, work)
        except SessionGone:
            raise SessionNotFound(self.id) from None

    async def interrupt(self) -> None:
        """Interrupt the kernel; see `Control.interrupt`. Does not wait."""
        self.control.interrupt()
        self._log("the kernel is interrupted")

    def kill(self) -> None:
        """Kill the kernel; see `Control.kill`."""
        self.control.kill()
        self._log("the kernel is killed")

    async def execute(self, asked: ExecuteRequest) -> ExecuteReply:
        """Run code on a caller's behalf; see `kallichore.executing.execute`."""
        return await execute(self, asked, self._tools.limits, self._tools.deadlines)

    def start_soon(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Have something done in the session's nursery, if the session has not ended."""
        if self._nursery is not None and not self._closed.is_set():
            self._nursery.start_soon(partial(work, *arguments))

    async def delete(self) -> None:
        """End the session; its client gets a close frame.

        Raises:
            SessionRunning: Its kernel runs.
        """
        if self.status not in MAY_BE_DELETED:
            raise SessionRunning(self.id)
        async with self.control.lock:
            if self.status not in MAY_BE_DELETED:
                raise SessionRunning(self.id)
            if self.talk.frontend is not None:
                self.talk.frontend.dismiss(1000, "the session was deleted")
            self._scope.cancel(reason="the session was deleted")
        await self._closed.wait()

    # -- channel --------------------------------------------------------------------------------

    async def attach(self, websocket: Peer, after: int | None) -> None:
        """Serve a client in the session's nursery until it is gone; the newest wins.

        Raises:
            SessionGone: The session ended.
        """
        try:
            home = await self._home()
        except SessionNotFound:
            websocket.abort()
            raise SessionGone from None
        self._log("a client has come", "it resumes" if after is not None else None)
        try:
            await run_in(home, self.talk.attach, websocket, after)
        finally:
            self._log("a client has gone", "another has come" if self.connected else None)

    def _log(self, what: str, reason: str | None = None) -> None:
        log.info(what, extra={"session_id": self.id, "reason": reason})

    async def open_socket(self, serve: Callable[[trio.SocketListener], Awaitable[None]]) -> Path:
        """Give the path of the session's own socket, listening from the first call on.

        Raises:
            SocketPathTooLong, OSError: It cannot be made.
        """
        home = await self._home()
        if self.socket_path is None:
            limits = self._tools.limits
            name = f"kc-{secrets.token_hex(8)}.sock"
            path = listeners.socket_path(self._socket_directories, name, limits)
            listener = listeners.listen_unix(path, limits.listen_backlog)
            guardian.remember(path)
            self.socket_path = path
            home.start_soon(serve, listener)
        return self.socket_path
