"""Kernel processes: started, waited for, signalled, and ended with everything they have started.

The `Reaper` starts them and owns every wait for a child of ours, including orphans that the system
gives us to adopt. A `Process` is one kernel process as the rest of the package sees it. All of this
happens in the main thread, so that starting and reaping can never overlap.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

import trio

from kallichore import _platform, guardian
from kallichore._platform import MemoryEvidence
from kallichore.kernel.ending import exit_reason, how_it_ended, reported_exit_code, signal_name
from kallichore.kernel.launch import SERVER_MARK, SESSION_MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kallichore.config import Deadlines, Limits
    from kallichore.kernel.launch import Launch

__all__ = [
    "MemoryEvidence",
    "Process",
    "Reaper",
    "exit_reason",
    "how_it_ended",
    "reported_exit_code",
    "signal_name",
]

log = logging.getLogger(__name__)

STOPPING_PASSES: Final = 3
"""Looks at a process tree while it is being stopped, before it is killed as it is; the event loop
waits meanwhile. Two are enough for a tree that does not grow."""
SETTABLE: Final = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}
"""Signals whose handling we may change; that of SIGPIPE is Python's to restore."""


@final
class Reaper:
    """Starts kernel processes and reaps every child of ours that exits.

    Nothing else in this process may wait for children, so no `trio.run_process` beside it.
    """

    def __init__(self, limits: Limits, deadlines: Deadlines) -> None:
        """Make a reaper that owns no process yet."""
        self.limits = limits
        self.deadlines = deadlines
        self._processes: dict[int, Process] = {}
        self._pass_done = trio.Event()
        self._memory: _platform.MemoryWatch = _platform.open_memory_watch()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reap until cancelled, and then, for a bounded time, until no process we started is left.

        So whoever stops a process during a general shutdown still sees it end.
        """
        _platform.become_subreaper()
        with trio.open_signal_receiver(signal.SIGCHLD) as arrivals:
            task_status.started()
            try:
                self.collect()
                async for _ in arrivals:
                    await self.collect_all()
            finally:
                with trio.move_on_after(self.deadlines.shutdown_seconds, shield=True):
                    await self.collect_all()
                    while self._processes:
                        await anext(arrivals)
                        await self.collect_all()
                self._memory.close()

    def spawn(self, launch: Launch) -> Process:
        """Start a process in a session of its own, with only its three standard streams open.

        It has default signal handling, an empty signal mask and the limit of open files that we
        were started with, whatever ours are.

        Raises:
            OSError: It cannot be started; the error says why.
        """
        if launch.startup is not None:
            Path(launch.startup.marker_path).unlink(missing_ok=True)  # an earlier run's
        with ExitStack() as reading_ends, ExitStack() as writing_ends:
            stdout, stdout_of_kernel = _pipe(reading_ends, writing_ends)
            stderr, stderr_of_kernel = _pipe(reading_ends, writing_ends)
            with _default_signals():
                try:
                    child = subprocess.Popen(  # noqa: S603 - running what a client asks for is our job
                        launch.argv,
                        env=launch.env,
                        cwd=launch.cwd,
                        stdin=subprocess.DEVNULL,
                        stdout=stdout_of_kernel,
                        stderr=stderr_of_kernel,
                        start_new_session=True,
                    )
                except ValueError as error:  # a NUL somewhere, or a variable's name with "="
                    raise OSError(str(error)) from error
            reading_ends.pop_all()
        child.returncode = 0  # waiting is ours; Popen must neither warn nor wait
        _platform.restore_descriptor_limit(child.pid)
        process = Process(self, child.pid, launch, stdout, stderr)
        guardian.remember_group(child.pid, process.start_time)
        self._processes[child.pid] = process
        self.collect()
        return process

    def collect(self) -> bool:
        """Reap what has exited; say whether there may be more, for the sake of the other tasks."""
        for _ in range(self.limits.reaped_at_once):
            exited = _platform.reap(self._processes)
            if exited is None:
                break
            process = self._processes.pop(exited[0], None)
            if process is not None:
                process._set_exited(exited[1], self._memory)  # noqa: SLF001 - they are one thing
        self._pass_done.set()
        self._pass_done = trio.Event()
        return exited is not None

    async def pass_done(self) -> None:
        """Wait until the next time that children have been reaped."""
        await self._pass_done.wait()

    def strangers(self) -> list[int]:
        """List the living children that we did not start: orphans of kernels, adopted."""
        return [pid for pid in _platform.children(os.getpid()) if pid not in self._processes]

    def forget(self, process: Process) -> None:
        """Stop expecting the end of a process that cannot be killed; if it ends, it is reaped."""
        self._processes.pop(process.pid, None)

    async def collect_all(self) -> None:
        """Reap all that has exited, and let other tasks have their turn in between."""
        more = self.collect()
        while more:
            await trio.lowlevel.checkpoint()
            more = self.collect()


@final
class Process:
    """A kernel's process, and what it has started. Made by `Reaper.spawn` alone."""

    def __init__(self, reaper: Reaper, pid: int, launch: Launch, stdout: int, stderr: int) -> None:
        """Take over a child and the reading ends of its output."""
        self.pid: Final = pid
        self.start_time: Final = _platform.process_start_time(pid)
        """With the pid, the name of this process for good (None if it was gone at once)."""
        self.stdout: Final = trio.lowlevel.FdStream(stdout)
        self.stderr: Final = trio.lowlevel.FdStream(stderr)
        self.returncode: int | None = None
        """Exit code, -N after signal N, None while it runs."""
        self.out_of_memory = MemoryEvidence.NONE
        """Whether the system killed it because memory ran out, once it has exited."""
        self.startup_succeeded = True
        """False when the process has exited in its startup step, before it became the kernel."""
        self._reaper = reaper
        self._startup = launch.startup
        self._marks = frozenset(
            f"{name}={launch.env[name]}".encode(errors="surrogateescape")
            for name in (SESSION_MARK, SERVER_MARK)
            if name in launch.env
        )
        self._killed_by_us = False
        self._condemned: dict[int, int] = {}
        self._exited = trio.Event()

    async def __aenter__(self) -> Self:
        """Give the process itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave nothing of it behind."""
        await self.aclose()

    async def wait(self) -> int:
        """Wait for the exit and return its code (-N after signal N); any number of tasks may.

        Whoever has inherited the output pipes is not waited for. Cancelling it changes nothing.
        """
        await self._exited.wait()
        assert self.returncode is not None  # noqa: S101 - set before the event
        return self.returncode

    def signal_group(self, signal_number: int) -> None:
        """Send a signal to the process group, as a terminal would.

        Raises:
            ProcessLookupError: The process has exited.
            PermissionError: It has become somebody else's.
        """
        if self.returncode is not None:  # the number may mean another group by now
            raise ProcessLookupError
        if signal_number == signal.SIGKILL:
            self._killed_by_us = True
        os.killpg(self.pid, signal_number)

    def kill_tree(self) -> None:
        """Kill the process and everything it has started, even what has left its session.

        The tree is stopped before it is killed, so that it neither grows nor falls apart meanwhile.
        """
        self._kill_tree()

    def _kill_tree(self) -> bool:
        """Do what `kill_tree` says, and say whether anything was found besides the process."""
        self._killed_by_us = True
        has_group = self.returncode is None or _platform.process_start_time(self.pid) is None
        if has_group:  # once it has exited, others may still be in it
            _send(os.killpg, self.pid, signal.SIGSTOP)
        stopped: set[int] = set()
        for _ in range(STOPPING_PASSES):
            running = self._family() - stopped
            for pid in running:
                _send(os.kill, pid, signal.SIGSTOP)
            stopped |= running
            if not running or len(stopped) >= self._reaper.limits.swept_processes:
                break
        if has_group:
            _send(os.killpg, self.pid, signal.SIGKILL)
        for pid in stopped:
            started = _platform.process_start_time(pid)
            if started is not None:
                self._condemned[pid] = started
            _send(os.kill, pid, signal.SIGKILL)
        return bool(stopped)

    async def stop(self, term_seconds: float) -> None:
        """End the process and all it has started: ask, wait, kill, reap.

        Cancelling it skips the waiting; the rest, at most `Deadlines.reap_seconds`, is always done.
        """
        try:
            if self.returncode is None:
                _send(os.killpg, self.pid, signal.SIGTERM)
                _send(os.killpg, self.pid, signal.SIGCONT)
                with trio.move_on_after(term_seconds):
                    await self.wait()
        finally:
            with trio.CancelScope(shield=True):  # bounded inside
                await self.sweep()

    async def sweep(self) -> None:
        """Kill what is left of the process and of all it has started, and wait until it is reaped.

        At most `Deadlines.reap_seconds`; a process that cannot be killed is given up then.
        """
        with trio.move_on_after(self._reaper.deadlines.reap_seconds):
            while True:
                self._reaper.collect()
                if not self._kill_tree() and self.returncode is not None and not self._dying():
                    await self._reaper.collect_all()
                    return
                await self._reaper.pass_done()
        if self.returncode is None:
            log.error("process %d cannot be killed and is given up", self.pid)
            self._reaper.forget(self)

    async def aclose(self) -> None:
        """Make sure that nothing is left of it, and close its output, read or not."""
        try:
            with trio.CancelScope(shield=True):  # bounded inside
                await self.sweep()
        finally:
            guardian.forget_group(self.pid)
            self.stdout.close()
            self.stderr.close()

    def _family(self) -> set[int]:
        """Find everything alive that the process has started, but not the process itself."""
        limit = self._reaper.limits.swept_processes
        found = set[int]()
        if self.returncode is None:
            found.update(_platform.descendants(self.pid, limit))
        for orphan in self._reaper.strangers():
            if self._is_ours(orphan):
                found.add(orphan)
                found.update(_platform.descendants(orphan, limit))
        return found

    def _dying(self) -> bool:
        """Say whether what we have killed is still there; it may have lost all marks already."""
        for pid, started in list(self._condemned.items()):
            if _platform.process_start_time(pid) != started:
                del self._condemned[pid]
        return bool(self._condemned)

    def _is_ours(self, orphan: int) -> bool:
        """Say whether an adopted process comes from ours: by its mark, or else by its session."""
        facts = _platform.process_facts(orphan)
        if facts is None or facts.zombie:
            return False
        entries = _platform.environment(orphan).split(b"\0")
        if self._marks and self._marks.issubset(entries):
            return True
        marked = any(entry.startswith(f"{SESSION_MARK}=".encode()) for entry in entries)
        return facts.session == self.pid and not marked

    def _set_exited(self, returncode: int, memory: _platform.MemoryWatch) -> None:
        """Take note of the exit. Called by the reaper, once."""
        if returncode == -signal.SIGKILL and not self._killed_by_us:
            self.out_of_memory = memory.evidence(self.pid)
        if self._startup is not None:
            marker = Path(self._startup.marker_path)
            self.startup_succeeded = marker.exists()
            marker.unlink(missing_ok=True)
        self.returncode = returncode
        self._exited.set()


def _send(kill: Callable[[int, int], None], pid: int, signal_number: int) -> None:
    """Send a signal to whoever is still there and ours."""
    with suppress(ProcessLookupError, PermissionError):
        kill(pid, signal_number)


def _pipe(reading_ends: ExitStack, writing_ends: ExitStack) -> tuple[int, int]:
    """Open a pipe, and have its ends closed when the stacks are."""
    reading, writing = os.pipe()
    reading_ends.callback(os.close, reading)
    writing_ends.callback(os.close, writing)
    return reading, writing


@contextmanager
def _default_signals() -> Iterator[None]:
    """Let a child that is started meanwhile have default signal handling and an empty mask.

    What is ignored would be inherited: a shell's background jobs ignore SIGINT, `nohup` ignores
    SIGHUP. A handler that does nothing is as good for us, and is reset in the child.
    """
    ignored = [number for number in SETTABLE if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, _do_nothing)
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def _do_nothing(_number: int, _frame: object) -> None:
    """Handle a signal by ignoring it."""
