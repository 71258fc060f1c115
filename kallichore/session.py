"""One supervised kernel with an id: it outlives its runs and its clients (CONTRACT 3).

Owns the session's nursery and the lifecycle: start, restart, adopt, interrupt, kill, end.
"""

from __future__ import annotations

import logging
import secrets
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio

from kallichore import listeners
from kallichore._platform import current_directory
from kallichore.conversation import Conversation
from kallichore.description import describe
from kallichore.errors import (
    BadRequest,
    InterruptFailed,
    NoConnectionInfo,
    NoProcess,
    ProcessNotFound,
    RestartFailed,
    SessionNotFound,
    SessionNotRunning,
    SessionRunning,
    StartFailed,
    StartupFailed,
)
from kallichore.executing import execute
from kallichore.kernel.adopted import AdoptedRun
from kallichore.kernel.connection import safe_name
from kallichore.kernel.launched import LaunchedRun
from kallichore.kernel.rendezvous import drawn_connection
from kallichore.kernel.run import RunExit, own_request
from kallichore.models import InterruptMode, LastExit, Status
from kallichore.nurseries import SessionGone, hand_over, run_in
from kallichore.protocol.events import AdoptionFailed, QueueCleared, RunEnded, StartAccepted
from kallichore.protocol.lifecycle import MAY_BE_DELETED, MAY_BE_STARTED, RUNNING
from kallichore.protocol.message import Channel
from kallichore.stamps import now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kallichore.frontend import Peer
    from kallichore.kernel.run import KernelRun, RunTools
    from kallichore.models import (
        ActiveSession,
        ConnectionInfo,
        ExecuteReply,
        ExecuteRequest,
        ExecutionHistoryEntry,
        NewSession,
        ResourceUsage,
        RestartSession,
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
    ) -> None:
        """Begin uninitialized."""
        self.id = spec.session_id
        self.spec = spec
        self.created = now()
        self.key = secrets.token_hex(16)
        self.working_directory = spec.working_directory or str(Path.cwd())
        self.initial_env: dict[str, str] | None = None
        self.last_exit: LastExit | None = None
        self.resource_usage: ResourceUsage | None = None
        self.talk = Conversation(
            spec.session_id,
            spec.username,
            tools.limits,
            tools.deadlines,
            budget,
            tools.directory / f"spool-{safe_name(spec.session_id)}",
            self._locate_kernel,
        )
        self.socket_path: Path | None = None
        self._tools = tools
        self._socket_directories = socket_directories
        self._control = trio.Lock()  # start, restart, adopt and delete, one at a time
        self._restarting = False
        self._run_over = trio.Event()
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
                    await trio.sleep_forever()
        finally:
            self._closed.set()
            self._opened.set()
            self.talk.outbox.close()
            self._tools.ports.release(self._ports)
            if self.socket_path is not None:
                listeners.remove_socket(self.socket_path)

    # -- what is known of it --------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """Where it is in its life."""
        return self.talk.state.status

    @property
    def running(self) -> bool:
        """Whether it has a kernel, or is about to."""
        return self.status in RUNNING

    @property
    def connected(self) -> bool:
        """Whether a client is on its channel."""
        return self.talk.frontend is not None

    @property
    def process_id(self) -> int | None:
        """The kernel's pid, while it runs."""
        run = self.talk.run
        alive = run is not None and run.process is not None and run.process.returncode is None
        return run.process.pid if alive and run is not None and run.process is not None else None

    def describe(self) -> ActiveSession:
        """Describe it as it is now."""
        return describe(self)

    def history(self) -> list[ExecutionHistoryEntry]:
        """Give what was executed, oldest first."""
        return list(self.talk.history)

    async def execute(self, asked: ExecuteRequest) -> ExecuteReply:
        """Run code on a caller's behalf; see `kallichore.executing.execute`."""
        return await execute(self, asked, self._tools.limits, self._tools.deadlines)

    def connection_info(self) -> ConnectionInfo:
        """Where the kernel is reached.

        A session without a command is meant to adopt a kernel: it draws its ports on first asking.

        Raises:
            NoConnectionInfo: The kernel has not been started, or has not registered yet.
        """
        run = self.talk.run
        if run is not None and run.connection is not None:
            return run.connection
        if self.spec.argv:
            why = "the kernel has not registered" if self.running else "the kernel is not running"
            raise NoConnectionInfo(self.id, why)
        if not self._ports:
            try:
                self._ports = self._tools.ports.reserve(_PORTS)
            except OSError as error:
                raise NoConnectionInfo(self.id, str(error)) from error
        return drawn_connection(self._ports, self.key)

    def _locate_kernel(self) -> None:
        """Follow the kernel process's working directory (CONTRACT 3.7)."""
        pid = self.process_id
        directory = current_directory(pid) if pid is not None else None
        if directory is not None and directory != self.working_directory:
            self.working_directory = directory
            self.talk.announce("workingDirChanged", directory)

    # -- lifecycle ------------------------------------------------------------------------------

    async def start(self) -> bytes:
        """Start the kernel; give the content of its `kernel_info_reply`.

        The start belongs to the session: if the caller is cancelled, it goes on.

        Raises:
            StartupFailed: It was refused or failed. Nothing is left of it.
        """
        if self.status not in MAY_BE_STARTED:
            raise StartupFailed(SessionRunning(self.id))
        return await self._command(self._start)

    async def _start(self) -> bytes:
        async with self._control:
            if self.status not in MAY_BE_STARTED:
                raise StartupFailed(SessionRunning(self.id))
            return await self._launch()

    async def restart(self, changes: RestartSession | None) -> None:
        """End the kernel, if there is one, and start another; clients stay.

        Raises:
            StartupFailed: It was refused or failed.
        """
        if self._restarting:
            raise StartupFailed(RestartFailed("another restart is under way"))
        self._restarting = True
        await self._command(partial(self._restart, changes))

    async def _restart(self, changes: RestartSession | None) -> None:
        try:
            async with self._control:
                run = self.talk.run
                if run is not None:
                    self.talk.receive(QueueCleared())
                    polite = self._tools.deadlines.restart_shutdown_seconds
                    await run.shut_down(restart=True, polite_seconds=polite)
                    await self._run_over.wait()
                self._change_spec(changes)
                await self._launch()
        finally:
            self._restarting = False

    def _change_spec(self, changes: RestartSession | None) -> None:
        directory = self.working_directory
        if changes is not None and changes.working_directory:
            wanted = Path(changes.working_directory).expanduser()
            if wanted.is_dir():
                directory = str(wanted)
            else:
                log.warning("%s is no directory and is ignored", wanted)
        env = self.spec.env
        if changes is not None and changes.env is not None:
            env = changes.env
        self.spec = msgspec.structs.replace(self.spec, working_directory=directory, env=env)

    async def _launch(self) -> bytes:
        """Start a run; a kernel that loses the race for a port is started again, unseen."""
        self.resource_usage = None
        self.talk.kernel_info = b"{}"
        timeout = self.spec.connection_timeout or self._tools.deadlines.connection_seconds
        deadline = trio.current_time() + timeout
        self.talk.receive(StartAccepted())
        for attempt in range(1, self._tools.limits.start_attempts + 1):
            left = max(deadline - trio.current_time(), 0)
            run = LaunchedRun(self._tools, self.talk, self.spec, self.key, left)
            try:
                await self._begin(run)
            except StartupFailed as failure:
                last = attempt == self._tools.limits.start_attempts or run.requested
                if not last and run.lost_port_race(failure):
                    log.info("the kernel lost the race for a port; starting it again")
                    continue
                self._start_failed(failure, run)
                raise
            break
        directory = current_directory(self.process_id) if self.process_id is not None else None
        self.working_directory = directory or self.working_directory
        return self.talk.kernel_info

    def _start_failed(self, failure: StartupFailed, run: LaunchedRun) -> None:
        code = failure.exit_code if failure.exit_code is not None else -1
        self._ended(
            RunExit(
                exit_code=code,
                reason=failure.error.message,
                requested=run.requested,
                output_tail=run.output_tail(),
            )
        )

    async def adopt(self, connection: ConnectionInfo) -> bytes:
        """Talk to a kernel that somebody else runs; give the content of its `kernel_info_reply`.

        Raises:
            KallichoreError: It was refused or failed; the session is as it was.
        """
        if connection.transport != "tcp" or connection.signature_scheme != "hmac-sha256":
            raise BadRequest("`transport`, `signature_scheme`: expected tcp and hmac-sha256")
        return await self._command(partial(self._adopt, connection))

    async def _adopt(self, connection: ConnectionInfo) -> bytes:
        async with self._control:
            if self.status not in MAY_BE_STARTED:
                raise SessionRunning(self.id)
            before = self.talk.kernel_info
            timeout = self.spec.connection_timeout or self._tools.deadlines.connection_seconds
            try:
                await self._begin(
                    AdoptedRun(self._tools, self.talk, self.id, connection, timeout)
                )
            except StartupFailed as failure:
                self.talk.receive(AdoptionFailed())
                self.talk.kernel_info = before
                raise failure.error from failure
            return self.talk.kernel_info

    async def _begin(self, run: KernelRun) -> None:
        assert self._nursery is not None  # noqa: S101 (commands run in it)
        self._run_over = trio.Event()
        await self._nursery.start(self._live, run)

    async def _live(self, run: KernelRun, *, task_status: trio.TaskStatus[None]) -> None:
        """Be the task of one run."""
        self.talk.run = run
        over = self._run_over
        try:
            exit_ = await run.run(task_status=task_status)
        except StartupFailed:
            self.talk.run = None
            raise
        except Exception as error:
            log.exception("the run failed")
            self.talk.run = None
            if self.status in MAY_BE_STARTED or self.status is Status.STARTING:
                raise StartupFailed(StartFailed(str(error))) from error
            exit_ = RunExit(exit_code=-1, reason=f"The supervisor lost the kernel: {error}")
        finally:
            if isinstance(run, LaunchedRun) and run.environment is not None:
                self.initial_env = run.environment
        self.talk.run = None
        self._ended(exit_)
        over.set()

    def _ended(self, exit_: RunExit) -> None:
        self.last_exit = LastExit(
            exit_code=exit_.exit_code,
            signal=exit_.signal,
            out_of_memory=exit_.out_of_memory or None,
            requested=exit_.requested,
            at=now(),
            output_tail=exit_.output_tail or None,
        )
        self.resource_usage = None
        self.talk.receive(RunEnded(exit_.exit_code, exit_.reason))

    async def interrupt(self) -> None:
        """Interrupt the kernel; what is held behind its work is answered as aborted.

        Raises:
            SessionNotRunning: There is no kernel.
            InterruptFailed: It could not be interrupted.
        """
        self.interrupt_nowait()

    def interrupt_nowait(self) -> None:
        """See `interrupt`; it never waits."""
        run = self.talk.run
        if not self.running or run is None:
            raise SessionNotRunning(self.id)
        self.talk.receive(QueueCleared())
        if self.spec.interrupt_mode is InterruptMode.MESSAGE:
            if not run.send(own_request(Channel.CONTROL, "interrupt_request", {})):
                raise InterruptFailed(self.id, "the kernel takes no messages")
            return
        if run.process is None:
            raise InterruptFailed(self.id, "there is no process to signal")
        try:
            run.process.signal_group(signal.SIGINT)
        except OSError as error:
            raise InterruptFailed(self.id, str(error) or "the process is gone") from error

    def kill(self) -> None:
        """Kill the kernel and everything it has started; answered at once.

        Raises:
            SessionNotRunning, NoProcess, ProcessNotFound: There is nothing to kill.
        """
        run = self.talk.run
        if self.status is Status.EXITED:
            raise SessionNotRunning(self.id)
        if run is None or run.process is None:
            raise NoProcess(self.id)
        if run.process.returncode is not None:
            raise ProcessNotFound(run.process.pid, self.id)
        run.requested = True
        self.talk.receive(QueueCleared())
        run.process.kill_tree()

    async def shut_down(self) -> None:
        """End the kernel politely, then by force, within bounds. For the server's own end."""
        run = self.talk.run
        if run is not None:
            self.talk.receive(QueueCleared())
            polite = self._tools.deadlines.kernel_shutdown_seconds
            await run.shut_down(restart=False, polite_seconds=polite)

    async def delete(self) -> None:
        """End the session; its client gets a close frame.

        Raises:
            SessionRunning: Its kernel runs.
        """
        if self.status not in MAY_BE_DELETED:
            raise SessionRunning(self.id)
        async with self._control:
            if self.status not in MAY_BE_DELETED:
                raise SessionRunning(self.id)
            if self.talk.frontend is not None:
                self.talk.frontend.dismiss(1000, "the session was deleted")
            self._scope.cancel(reason="the session was deleted")
        await self._closed.wait()

    async def _command(self, command: Callable[[], Awaitable[T]]) -> T:
        await self._opened.wait()
        if self._nursery is None or self._closed.is_set():
            raise SessionNotFound(self.id)
        try:
            return await hand_over(self._nursery, command)
        except SessionGone:
            raise SessionNotFound(self.id) from None

    # -- channel --------------------------------------------------------------------------------

    async def attach(self, websocket: Peer, after: int | None) -> None:
        """Serve a client in the session's nursery until it is gone; the newest wins.

        Raises:
            SessionGone: The session ended.
        """
        await self._opened.wait()
        if self._nursery is None or self._closed.is_set():
            websocket.abort()
            raise SessionGone
        await run_in(self._nursery, self.talk.attach, websocket, after)

    async def open_socket(
        self, serve: Callable[[trio.SocketListener], Awaitable[None]]
    ) -> Path:
        """Give the path of the session's own socket, listening from the first call on.

        Raises:
            SocketPathTooLong, OSError: It cannot be made.
        """
        await self._opened.wait()
        if self.socket_path is None:
            if self._nursery is None or self._closed.is_set():
                raise SessionNotFound(self.id)
            name = f"kc-{safe_name(self.id)[-16:]}-{secrets.token_hex(4)}.sock"
            limits = self._tools.limits
            path = listeners.socket_path(self._socket_directories, name, limits)
            listener = listeners.listen_unix(path, limits.listen_backlog)
            self.socket_path = path
            self._nursery.start_soon(serve, listener)
        return self.socket_path
