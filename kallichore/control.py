"""A session's lifecycle: start, restart, adopt, interrupt, kill, shut down (CONTRACT 3.2 and 3.5).

Start, restart and adopt are done one at a time; interrupt and kill never wait behind them.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from kallichore._platform import current_directory
from kallichore.errors import (
    BadRequest,
    InterruptFailed,
    NoProcess,
    ProcessNotFound,
    RestartFailed,
    SessionNotRunning,
    SessionRunning,
    SpawnFailed,
    StartFailed,
    StartupFailed,
)
from kallichore.kernel import launch
from kallichore.kernel.adopted import AdoptedRun
from kallichore.kernel.launched import NO_COMMAND, LaunchedRun
from kallichore.kernel.run import RunExit, own_request
from kallichore.models import InterruptMode, LastExit, Status
from kallichore.protocol.events import AdoptionFailed, QueueCleared, RunEnded, StartAccepted
from kallichore.protocol.lifecycle import MAY_BE_STARTED, RUNNING
from kallichore.protocol.message import Channel
from kallichore.stamps import now

if TYPE_CHECKING:
    from kallichore.conversation import Conversation
    from kallichore.kernel.run import KernelRun, RunTools
    from kallichore.models import ConnectionInfo, NewSession, ResourceUsage, RestartSession

__all__ = ["Control"]

log = logging.getLogger(__name__)


class Control:
    """The lives of one session's kernel, one after the other."""

    def __init__(self, spec: NewSession, key: str, tools: RunTools, talk: Conversation) -> None:
        """Begin without a kernel. Every run signs with ``key``, unless it is adopted."""
        self.spec = spec
        self.lock = trio.Lock()
        """Held by whatever changes the session's life as a whole."""
        self.last_exit: LastExit | None = None
        self.initial_env: dict[str, str] | None = None
        self.resource_usage: ResourceUsage | None = None
        self.working_directory = str(Path(spec.working_directory or ".").absolute())
        self._key = key
        self._tools = tools
        self._talk = talk
        self._restarting = False
        self._run_over = trio.Event()

    @property
    def status(self) -> Status:
        """Where the session is in its life."""
        return self._talk.state.status

    @property
    def running(self) -> bool:
        """Whether there is a kernel, or is about to be."""
        return self.status in RUNNING

    @property
    def process_id(self) -> int | None:
        """The kernel's pid, while it runs."""
        run = self._talk.run
        process = None if run is None else run.process
        return None if process is None or process.returncode is not None else process.pid

    def locate_kernel(self) -> None:
        """Follow the kernel process's working directory (CONTRACT 3.7)."""
        pid = self.process_id
        directory = None if pid is None else current_directory(pid)
        if directory is not None and directory != self.working_directory:
            self.working_directory = directory
            self._talk.announce("workingDirChanged", directory)

    # -- start ----------------------------------------------------------------------------------

    async def start(self, nursery: trio.Nursery) -> bytes:
        """Start the kernel as a task of ``nursery``; give its `kernel_info_reply`'s content.

        Raises:
            StartupFailed: It was refused or failed. Nothing is left of it.
        """
        async with self.lock:
            if self.status not in MAY_BE_STARTED:
                raise StartupFailed(SessionRunning(self.spec.session_id))
            return await self._launch(nursery)

    async def _launch(self, nursery: trio.Nursery) -> bytes:
        """Start a run; a kernel that loses the race for a port is started again, unseen."""
        self.resource_usage = None
        self._talk.kernel_info = b"{}"
        timeout = self.spec.connection_timeout or self._tools.deadlines.connection_seconds
        began = trio.current_time()
        tally = self._tools.tally
        tally.starts += 1
        self._run_over = trio.Event()
        self._talk.receive(StartAccepted())
        for attempt in range(1, self._tools.limits.start_attempts + 1):
            run = LaunchedRun(
                self._tools, self._talk, self.spec, self._key, began, timeout, self._spawned
            )
            try:
                await self._begin(nursery, run)
            except StartupFailed as failure:
                last = (
                    attempt == self._tools.limits.start_attempts
                    or run.requested
                    or trio.current_time() >= began + timeout
                )
                if not last and run.lost_port_race:
                    tally.lost_port_races += 1
                    log.info("the kernel lost the race for a port; starting it again")
                    continue
                tally.failed_starts += 1
                run.release_output()
                self._ended(run.exit_of(failure))
                raise
            break
        tally.start_times.note(trio.current_time() - began)
        pid = self.process_id
        directory = None if pid is None else current_directory(pid)
        self.working_directory = directory or self.working_directory
        return self._talk.kernel_info

    def _spawned(self, environment: dict[str, str]) -> None:
        self.initial_env = environment

    async def _begin(self, nursery: trio.Nursery, run: KernelRun) -> None:
        await nursery.start(self._live, run)

    async def _live(self, run: KernelRun, *, task_status: trio.TaskStatus[None]) -> None:
        """Be the task of one run."""
        self._talk.run = run
        try:
            exit_ = await run.run(task_status=task_status)
        except StartupFailed:
            raise
        except Exception as error:
            log.exception("the run failed")
            if self.status in MAY_BE_STARTED or self.status is Status.STARTING:
                raise StartupFailed(StartFailed(str(error))) from error
            exit_ = RunExit(exit_code=-1, reason=f"The supervisor lost the kernel: {error}")
        finally:
            self._talk.run = None
        self._ended(exit_)

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
        self._talk.receive(RunEnded(exit_.exit_code, exit_.reason))
        self._run_over.set()

    # -- restart, adopt -------------------------------------------------------------------------

    async def restart(self, nursery: trio.Nursery, changes: RestartSession | None) -> None:
        """End the kernel, if there is one, and start another; clients stay.

        Raises:
            StartupFailed: It was refused or failed.
        """
        if self._restarting:
            raise StartupFailed(RestartFailed("another restart is under way"))
        self._restarting = True
        try:
            async with self.lock:
                if not self.spec.argv:  # an adopted kernel lives on
                    raise StartupFailed(SpawnFailed(NO_COMMAND))
                self._tools.tally.restarts += 1
                await self._end_run(restart=True)
                self._change_spec(changes)
                await self._launch(nursery)
        finally:
            self._restarting = False

    async def _end_run(self, *, restart: bool) -> None:
        run, over = self._talk.run, self._run_over
        if run is not None:
            self._talk.receive(QueueCleared())
            deadlines = self._tools.deadlines
            polite = (
                deadlines.restart_shutdown_seconds if restart else deadlines.kernel_shutdown_seconds
            )
            await run.shut_down(restart=restart, polite_seconds=polite)
            await over.wait()

    def _change_spec(self, changes: RestartSession | None) -> None:
        directory = self.working_directory
        if changes is not None and changes.working_directory:
            wanted = os.path.expanduser(changes.working_directory)  # noqa: PTH111 - raises nothing
            found = launch.usable_directory(wanted)
            if found is None:
                log.warning("%s is not a directory, and is ignored", wanted)
            directory = found or directory
        env = self.spec.env
        if changes is not None and changes.env is not None:
            env = changes.env
        self.spec = msgspec.structs.replace(self.spec, working_directory=directory, env=env)

    async def adopt(self, nursery: trio.Nursery, connection: ConnectionInfo) -> bytes:
        """Talk to a kernel that somebody else runs; give its `kernel_info_reply`'s content.

        Raises:
            KallichoreError: It was refused or failed; the session is as it was.
        """
        if connection.transport != "tcp" or connection.signature_scheme != "hmac-sha256":
            raise BadRequest("`transport`, `signature_scheme`: expected tcp and hmac-sha256")
        async with self.lock:
            if self.status not in MAY_BE_STARTED:
                raise SessionRunning(self.spec.session_id)
            before = self._talk.kernel_info
            self._run_over = trio.Event()
            timeout = self.spec.connection_timeout or self._tools.deadlines.connection_seconds
            run = AdoptedRun(self._tools, self._talk, self.spec.session_id, connection, timeout)
            try:
                await self._begin(nursery, run)
            except StartupFailed as failure:
                self._talk.receive(AdoptionFailed())
                self._run_over.set()
                self._talk.kernel_info = before
                raise failure.error from failure
            return self._talk.kernel_info

    # -- what never waits -----------------------------------------------------------------------

    def interrupt(self) -> None:
        """Interrupt the kernel; what is held behind its work is answered as aborted.

        Raises:
            SessionNotRunning: There is no kernel.
            InterruptFailed: It could not be interrupted.
        """
        if not self.running or self._talk.run is None:
            raise SessionNotRunning(self.spec.session_id)
        self._talk.receive(QueueCleared())
        self.interrupt_what_runs()

    def interrupt_what_runs(self) -> None:
        """Interrupt the kernel's work; what is held behind it goes on. Raises as `interrupt`."""
        run, session_id = self._talk.run, self.spec.session_id
        if not self.running or run is None:
            raise SessionNotRunning(session_id)
        if self.spec.interrupt_mode is InterruptMode.MESSAGE:
            if not run.send(own_request(Channel.CONTROL, "interrupt_request", {})):
                raise InterruptFailed(session_id, "the kernel takes no messages")
            return
        if run.process is None:
            raise InterruptFailed(session_id, "there is no process to signal")
        try:
            run.process.signal_group(signal.SIGINT)
        except OSError as error:
            raise InterruptFailed(session_id, str(error) or "the process is gone") from error

    def kill(self) -> None:
        """Kill the kernel and everything it has started.

        Raises:
            SessionNotRunning, NoProcess, ProcessNotFound: There is nothing to kill.
        """
        run, session_id = self._talk.run, self.spec.session_id
        if self.status is Status.EXITED:
            raise SessionNotRunning(session_id)
        if run is None or run.process is None:
            raise NoProcess(session_id)
        if run.process.returncode is not None:
            raise ProcessNotFound(run.process.pid, session_id)
        run.requested = True
        self._talk.receive(QueueCleared())
        run.process.kill_tree()

    async def shut_down(self) -> None:
        """End the kernel politely, then by force, within bounds. For the server's own end."""
        await self._end_run(restart=False)
