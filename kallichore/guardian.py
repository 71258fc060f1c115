"""The guardian: a tiny parent process that sees to it that nothing outlives the supervisor.

`guard` forks before anything big is imported. The child returns and becomes the supervisor; the
parent stays behind as the guardian: it passes signals on, and when the supervisor is gone, however
it went, kills what it has left running, removes the files it has left, and ends as it ended.

The supervisor holds one end of a socket pair, the guardian the other; that the other side is gone
shows as its end. Over it the supervisor tells which files and process groups are its own.
"""

# ruff: noqa: PTH106, PTH108, PTH118, PTH208 - the guardian is to stay small

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from kallichore import _platform

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Guardian",
    "forget",
    "forget_group",
    "guard",
    "guardian_gone",
    "guardian_pid",
    "remember",
    "remember_group",
]

GUARDIAN_NAME: Final = "kc-guardian"
SUPERVISOR_NAME: Final = "kcserver"
FORWARDED: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals that are passed on to the supervisor."""
LEFT_IGNORED: Final = frozenset({signal.SIGHUP, signal.SIGQUIT})
"""Of these, those that stay ignored if they were at the start (`nohup`)."""
SWEPT: Final = 100_000
"""Processes looked for in one round of the sweep."""
RECEIVE_BYTES: Final = 65536
FAILED: Final = 1 << 8
"""The wait status of a process that has ended with exit code 1."""


class _Link:
    """The supervisor's end of the connection to its guardian."""

    def __init__(self, end: socket.socket, pid: int, *, adopting: bool) -> None:
        self.end = end
        self.pid = pid
        self.adopting = adopting
        self._unsent = b""
        end.settimeout(0)

    def tell(self, kind: bytes, value: str) -> None:
        """Send one record, now or, when the guardian is stopped, together with a later one."""
        self._unsent += kind + os.fsencode(value) + b"\0"
        try:
            sent = self.end.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:  # it is gone; `guardian_gone` tells
            self._unsent = b""
            return
        self._unsent = self._unsent[sent:]


_link: _Link | None = None
"""This process is about one supervisor, and so is this connection (None without a guardian)."""


def guard(sweep_seconds: float = 2.0) -> None:
    """Fork. The child returns, as the supervisor; the parent is the guardian and never returns.

    To be called once, before threads are started or much is imported. The supervisor is in a
    session of its own, so that a terminal's Ctrl-C reaches it only through the guardian, once; it
    can still write to the terminal. It is given SIGTERM when the guardian dies.
    """
    global _link  # noqa: PLW0603 - see there
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    guardian_end, supervisor_end = socket.socketpair()
    adopting = _platform.become_subreaper()
    guardian = os.getpid()
    spared = frozenset(_platform.children(guardian))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would lose us the exit status
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    supervisor = os.fork()
    if supervisor:
        supervisor_end.close()
        Guardian(
            supervisor, guardian_end, before, sweep_seconds, adopting=adopting, spared=spared
        ).run()
    guardian_end.close()
    os.setsid()
    point_at_nothing(0)
    _platform.set_process_name(SUPERVISOR_NAME)
    _platform.become_subreaper()
    _platform.die_with_parent(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if os.getppid() != guardian:  # it died before we asked to be told
        os._exit(1)
    _link = _Link(supervisor_end, guardian, adopting=adopting)


def guardian_pid() -> int | None:
    """Return the guardian's process id, or None when there is no guardian."""
    return None if _link is None else _link.pid


def remember(path: str | os.PathLike[str]) -> None:
    """Have the guardian remove a file of ours, or a directory with all it holds, if we cannot.

    Only the very file that is there now is removed, not another one in its place.
    """
    if _link is not None:
        status = os.lstat(path)
        where = os.path.abspath(path)  # noqa: PTH100 - links stay as they are
        _link.tell(b"+", f"{status.st_dev} {status.st_ino} {where}")


def forget(path: str | os.PathLike[str]) -> None:
    """Tell the guardian that a file is removed, or is not ours any more."""
    if _link is not None:
        _link.tell(b"-", os.path.abspath(path))  # noqa: PTH100 - links stay as they are


def remember_group(group: int, start_time: int | None) -> None:
    """Have the guardian kill a process group; of use where the system lets it adopt no orphans."""
    if _link is not None and not _link.adopting:
        _link.tell(b"g", f"{group} {start_time or 0}")


def forget_group(group: int) -> None:
    """Tell the guardian that nothing is left of a process group."""
    if _link is not None and not _link.adopting:
        _link.tell(b"G", str(group))


async def guardian_gone() -> None:
    """Wait until the guardian has died; without a guardian, for ever. Can be cancelled."""
    import trio  # noqa: PLC0415 - the guardian does not need it

    if _link is None:
        await trio.sleep_forever()
    else:
        await trio.lowlevel.wait_readable(_link.end)


class Guardian:
    """The parent of the supervisor."""

    def __init__(
        self,
        supervisor: int,
        end: socket.socket,
        mask: set[int | signal.Signals],
        sweep_seconds: float,
        *,
        adopting: bool,
        spared: frozenset[int],
    ) -> None:
        """Take over.

        Args:
            supervisor: Our child.
            end: Our end of the connection to it.
            mask: How signals were blocked before the fork.
            sweep_seconds: How long the sweep may take.
            adopting: Whether orphans among our descendants become our children.
            spared: Children that were ours before, and are none of our business.
        """
        self._supervisor = supervisor
        self._end = end
        self._mask = mask
        self._sweep_seconds = sweep_seconds
        self._adopting = adopting
        self._spared = spared
        self._unread = b""
        self._owned: dict[bytes, tuple[int, int]] = {}
        """Files by path, and which they were: at the same path there may be another by now."""
        self._groups: dict[int, int] = {}

    def run(self) -> NoReturn:
        """Guard until the supervisor is gone, clean up after it, and end as it did."""
        status = FAILED
        try:
            self._settle()
            status = self._watch()
            self._sweep()
            self._remove_files()
        except BaseException:  # noqa: BLE001 - it is said, and then this process ends at once
            sys.excepthook(*sys.exc_info())
        finally:
            end_as(status)

    def _settle(self) -> None:
        """Become small and quiet: nothing here is to keep a directory or a terminal busy."""
        import gc  # noqa: PLC0415 - needed nowhere else

        gc.freeze()
        gc.disable()
        _platform.set_process_name(GUARDIAN_NAME)
        os.chdir("/")
        point_at_nothing(0, 1)

    def _watch(self) -> int:
        """Pass signals on and take notes until the supervisor is dead; return its wait status."""
        wake_reading, wake_writing = socket.socketpair()
        for end in (wake_reading, wake_writing, self._end):
            end.settimeout(0)
        signal.set_wakeup_fd(wake_writing.fileno(), warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGCHLD):
            if number not in LEFT_IGNORED or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _do_nothing)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask - {*FORWARDED, signal.SIGCHLD})
        poll = select.poll()
        poll.register(wake_reading, select.POLLIN)
        poll.register(self._end, select.POLLIN)
        while True:
            status = self._reap_supervisor()
            if status is not None:
                self._take_notes()
                return status
            ready = {descriptor for descriptor, _ in poll.poll()}
            if wake_reading.fileno() in ready:
                self._forward(wake_reading.recv(RECEIVE_BYTES))
            if self._end.fileno() in ready and not self._take_notes():
                poll.unregister(self._end)

    def _forward(self, received: bytes) -> None:
        for number in received:
            if number != signal.SIGCHLD:
                os.kill(self._supervisor, number)  # not reaped yet, so the pid is still its own

    def _reap_supervisor(self) -> int | None:
        """Reap what has exited, adopted orphans too; return the supervisor's status if among it."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return FAILED
            if pid == self._supervisor:
                return status
            if pid == 0:
                return None

    def _take_notes(self) -> bool:
        """Read what the supervisor has to say; return whether it may say more."""
        while True:
            try:
                data = self._end.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            *records, self._unread = (self._unread + data).split(b"\0")
            for record in records:
                self._take_note(record)

    def _take_note(self, record: bytes) -> None:
        kind, value = record[:1], record[1:]
        if kind == b"+":
            device, inode, path = value.split(b" ", 2)
            self._owned[path] = (int(device), int(inode))
        elif kind == b"-":
            self._owned.pop(value, None)
        elif kind == b"g":
            group, start_time = map(int, value.split())
            self._groups[group] = start_time
        else:
            self._groups.pop(int(value), None)

    def _sweep(self) -> None:
        """Kill all that the supervisor has left behind, and wait, for a bounded time, for its end.

        What we have adopted is everything; without adoption, it is the groups that we know of.
        """
        signal.signal(signal.SIGALRM, _raise_timeout)
        signal.setitimer(signal.ITIMER_REAL, self._sweep_seconds)
        try:
            if not self._adopting:
                kill_groups(self._groups)
            while kill_everything_below(os.getpid(), self._spared):
                os.waitpid(-1, 0)
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
        except (ChildProcessError, TimeoutError):
            return
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _remove_files(self) -> None:
        for path, owned in self._owned.items():
            try:
                status = os.lstat(path)
                if (status.st_dev, status.st_ino) == owned:
                    remove(path)
            except OSError:
                continue


def kill_everything_below(pid: int, spared: frozenset[int]) -> bool:
    """Stop all descendants, so that none can start another, and kill them; say whether any was."""
    stopped: set[int] = set()
    while running := find_everything_below(pid, spared) - stopped:
        for descendant in running:
            send(os.kill, descendant, signal.SIGSTOP)
        stopped |= running
    for descendant in stopped:
        send(os.kill, descendant, signal.SIGKILL)
    return bool(stopped)


def find_everything_below(pid: int, spared: frozenset[int]) -> set[int]:
    """Find all descendants but some children and what is below those."""
    found: set[int] = set()
    for child in _platform.children(pid):
        if child not in spared:
            found.add(child)
            found.update(_platform.descendants(child, SWEPT))
    return found


def point_at_nothing(*descriptors: int) -> None:
    """Have descriptors stand for the null device."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor)
    if nothing not in descriptors:
        os.close(nothing)


def kill_groups(groups: dict[int, int]) -> None:
    """Kill process groups whose leaders are the processes that were meant, or are gone."""
    for group, start_time in groups.items():
        if _platform.process_start_time(group) in {None, start_time}:
            send(os.killpg, group, signal.SIGKILL)


def send(kill: Callable[[int, int], None], pid: int, number: int) -> None:
    """Send a signal to whoever is still there and ours."""
    try:
        kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def remove(path: bytes) -> None:
    """Remove a file, or a directory with all it holds; links are removed, not followed."""
    try:
        os.unlink(path)
    except OSError:  # a directory
        for name in os.listdir(path):
            remove(os.path.join(path, name))
        os.rmdir(path)


def end_as(status: int) -> NoReturn:
    """End with the exit code, or by the signal, that a wait status tells of."""
    code = os.waitstatus_to_exitcode(status)
    try:
        if code < 0:
            import resource  # noqa: PLC0415 - needed here alone

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file is enough
            if -code not in {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(-code, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
            os.kill(os.getpid(), -code)
    finally:
        os._exit(code if code >= 0 else 128 - code)


def _do_nothing(_number: int, _frame: object) -> None:
    """Let a signal do no more than wake us up."""


def _raise_timeout(_number: int, _frame: object) -> None:
    raise TimeoutError
