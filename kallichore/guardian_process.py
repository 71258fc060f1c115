"""The guardian: a tiny parent process that sees to it that nothing outlives the supervisor.

It passes signals on, and when the supervisor is gone, however it went, kills what it has left
running, removes the files it has left, and ends as it ended. It lives as long as the server does,
so it imports as little as it can.
"""

# ruff: noqa: PTH106, PTH108, PTH118, PTH208 - pathlib is not little

from __future__ import annotations

import os
import select
import signal
import sys

from kallichore import _platform

TYPE_CHECKING = False  # as `typing` has it, which is not little either
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final, NoReturn

__all__ = ["FORWARDED", "Charge", "Guardian", "main", "point_at_nothing"]

GUARDIAN_NAME: Final = "kc-guardian"
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
READ_BYTES: Final = 65536
FAILED: Final = 1 << 8
"""The wait status of a process that has ended with exit code 1."""


class Charge:
    """What a guardian is told when it begins; it goes through a command line."""

    def __init__(
        self,
        supervisor: int,
        end: int,
        sweep_seconds: float,
        mask: Iterable[int],
        spared: Iterable[int],
        adopting: int,
    ) -> None:
        """Hold what is to be told.

        Args:
            supervisor: The supervisor's pid.
            end: Descriptor of our end of the connection to it.
            sweep_seconds: How long the sweep may take.
            mask: The signals that were blocked in the first place.
            spared: Children that were ours before, and are none of our business.
            adopting: Whether orphans among our descendants become our children.
        """
        self.supervisor = supervisor
        self.end = end
        self.sweep_seconds = sweep_seconds
        self.mask = frozenset(map(int, mask))
        self.spared = frozenset(spared)
        self.adopting = bool(adopting)

    def words(self) -> list[str]:
        """Put it into the words of a command line."""
        lists = (",".join(map(str, numbers)) for numbers in (self.mask, self.spared))
        alone = (self.supervisor, self.end, self.sweep_seconds)
        return [*map(str, alone), *lists, str(int(self.adopting))]

    @classmethod
    def from_words(cls, words: list[str]) -> Charge:
        """Understand the words of a command line."""
        mask, spared = ([int(number) for number in w.split(",") if number] for w in words[3:5])
        supervisor, end, adopting = int(words[0]), int(words[1]), int(words[5])
        return cls(supervisor, end, float(words[2]), mask, spared, adopting)


def main(words: list[str]) -> NoReturn:
    """Guard until the supervisor is gone, clean up after it, and end as it did."""
    status = FAILED
    try:
        guardian = Guardian(Charge.from_words(words))
        settle()
        status = guardian.watch()
        guardian.sweep()
        guardian.remove_files()
    finally:  # this process ends here, whatever has happened
        error = sys.exc_info()
        if error[0] is not None:
            sys.excepthook(*error)
        end_as(status)


def settle() -> None:
    """Become quiet: nothing here is to keep a directory or a terminal busy."""
    _platform.set_process_name(GUARDIAN_NAME)
    os.chdir("/")
    point_at_nothing(0, 1)


class Guardian:
    """The parent of a supervisor."""

    def __init__(self, charge: Charge) -> None:
        """Begin with nothing to clean up."""
        self._charge = charge
        self._unread = b""
        self._owned: dict[bytes, tuple[int, int]] = {}
        """Files by path, and which they were: at the same path there may be another by now."""
        self._groups: dict[int, int] = {}

    def watch(self) -> int:
        """Pass signals on and take notes until the supervisor is dead; return its wait status."""
        end = self._charge.end
        wake_reading, wake_writing = os.pipe()
        for descriptor in (end, wake_reading, wake_writing):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_writing, warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGCHLD):
            if number not in LEFT_IGNORED or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, do_nothing)
        unblocked = self._charge.mask - {*FORWARDED, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        poll = select.poll()
        poll.register(wake_reading, select.POLLIN)
        poll.register(end, select.POLLIN)
        while (status := self._reap_supervisor()) is None:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if wake_reading in ready:
                self._forward(os.read(wake_reading, READ_BYTES))
            if end in ready and not self._take_notes():
                poll.unregister(end)
        self._take_notes()
        return status

    def sweep(self) -> None:
        """Kill all that the supervisor has left behind, and wait, for a bounded time, for its end.

        What we have adopted is everything; without adoption, it is the groups that we know of.
        """
        signal.signal(signal.SIGALRM, raise_timeout)
        signal.setitimer(signal.ITIMER_REAL, self._charge.sweep_seconds)
        try:
            if not self._charge.adopting:
                kill_groups(self._groups)
            while kill_everything_below(os.getpid(), self._charge.spared):
                os.waitpid(-1, 0)
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
        except (ChildProcessError, TimeoutError):
            return
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def remove_files(self) -> None:
        """Remove the files and directories that the supervisor has not told us to forget."""
        for path, owned in self._owned.items():
            try:
                status = os.lstat(path)
                if (status.st_dev, status.st_ino) == owned:
                    remove(path)
            except OSError:
                continue

    def _forward(self, received: bytes) -> None:
        for number in received:
            if number != signal.SIGCHLD:
                os.kill(self._charge.supervisor, number)  # not reaped yet: the pid is its own

    def _reap_supervisor(self) -> int | None:
        """Reap what has exited, adopted orphans too; return the supervisor's status if among it."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return FAILED
            if pid == self._charge.supervisor:
                return status
            if pid == 0:
                return None

    def _take_notes(self) -> bool:
        """Read what the supervisor has to say; return whether it may say more."""
        while True:
            try:
                data = os.read(self._charge.end, READ_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            *records, self._unread = (self._unread + data).split(b"\0")
            for record in records:
                self._take_note(record[:1], record[1:])

    def _take_note(self, kind: bytes, value: bytes) -> None:
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


def point_at_nothing(*descriptors: int) -> None:
    """Have descriptors stand for the null device."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor)
    if nothing not in descriptors:
        os.close(nothing)


def end_as(status: int) -> NoReturn:
    """End with the exit code, or by the signal, that a wait status tells of."""
    code = os.waitstatus_to_exitcode(status)
    try:
        if code < 0:
            import resource  # noqa: PLC0415 - needed here alone

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file is enough
            if code != -signal.SIGKILL:
                signal.signal(-code, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
            os.kill(os.getpid(), -code)
    finally:
        os._exit(code if code >= 0 else 128 - code)


def do_nothing(_number: int, _frame: object) -> None:
    """Let a signal do no more than wake us up."""


def raise_timeout(_number: int, _frame: object) -> None:
    """Let a signal end what takes too long."""
    raise TimeoutError
