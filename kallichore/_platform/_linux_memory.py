"""Linux: was a process killed because memory ran out?

The kernel's log names the victim, but is often not ours to read, and speaks of pids outside of
our container. The counters of our control group say that *somebody* in it was killed, and the
counter of the whole machine that somebody anywhere was.
"""

# ruff: noqa: PTH115, PTH123 - pathlib is not cheap, and the guardian imports this

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple, final

from kallichore._platform._facts import MemoryEvidence

__all__ = ["LinuxMemoryWatch", "MemoryCounters", "read_counters", "victims"]

KERNEL_LOG: Final = "/dev/kmsg"
RECORD_BYTES: Final = 8192
RECORDS: Final = 20_000
"""Records of the kernel's log read for one death; the log itself is smaller than that."""
INITIAL_PID_NAMESPACE: Final = "pid:[4026531836]"
KILLED: Final = re.compile(rb"Killed process (\d+)[ ,]")


class MemoryCounters(NamedTuple):
    """How many processes were killed for memory so far; None where it cannot be known."""

    group: int | None
    machine: int | None


@final
class LinuxMemoryWatch:
    """Remembers how things stood, so that a change can be noticed."""

    def __init__(self) -> None:
        """Note the counters and go to the end of the kernel's log, if we may read it."""
        self._counters = read_counters()
        self._log = open_kernel_log()
        self._victims: set[int] = set()

    def evidence(self, pid: int) -> MemoryEvidence:
        """See `kallichore._platform.MemoryWatch`."""
        before, self._counters = self._counters, read_counters()
        named = set() if self._log is None else victims(self._log)
        self._victims |= named
        if pid in self._victims:
            self._victims.discard(pid)
            return MemoryEvidence.CERTAIN
        if named:  # the counters have risen for others
            return MemoryEvidence.NONE
        if rose(before.group, self._counters.group):
            return MemoryEvidence.CERTAIN if self._log is None else MemoryEvidence.LIKELY
        if rose(before.machine, self._counters.machine):
            return MemoryEvidence.LIKELY
        return MemoryEvidence.NONE

    def close(self) -> None:
        """See `kallichore._platform.MemoryWatch`."""
        if self._log is not None:
            os.close(self._log)
            self._log = None


def rose(before: int | None, after: int | None) -> bool:
    """Say whether a counter is known and has gone up."""
    return before is not None and after is not None and after > before


def read_counters() -> MemoryCounters:
    """Read the counters of our control group (version 2 or 1) and of the machine."""
    group = None
    for path in group_files():
        group = counter(path)
        if group is not None:
            break
    return MemoryCounters(group, counter("/proc/vmstat"))


def counter(path: str) -> int | None:
    """Return the number behind ``oom_kill`` in a file of names and numbers."""
    try:
        with open(path, "rb") as file:
            for line in file:
                name, _, value = line.partition(b" ")
                if name == b"oom_kill":
                    return int(value)
    except OSError:
        return None
    return None


def group_files() -> list[str]:
    """Name the files that may hold our control group's counter, the likeliest first.

    Inside a container the path in ``/proc/self/cgroup`` may begin outside of what is mounted, so
    the mount's own top is tried as well.
    """
    paths: list[str] = []
    for line in lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        mounted, name = (
            ("", "memory.events") if not controllers else ("memory", "memory.oom_control")
        )
        if not controllers or mounted in controllers.split(","):
            for mount in mounts(mounted):
                paths += [f"{mount}{path.rstrip('/')}/{name}", f"{mount}/{name}"]
    return paths


def mounts(controller: str) -> list[str]:
    """Name the places where control groups are mounted: of a version 1 controller, or version 2."""
    found = []
    for line in lines("/proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == ("cgroup" if controller else "cgroup2") and (
            not controller or controller in options.split(",")
        ):
            found.append(fields.split()[4])
    return found


def lines(path: str) -> list[str]:
    """Return the lines of a text file, or none when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def open_kernel_log() -> int | None:
    """Open the kernel's log at its end, where it is readable and speaks of pids as we know them."""
    try:
        if os.readlink("/proc/self/ns/pid") != INITIAL_PID_NAMESPACE:
            return None
        log = os.open(KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        os.lseek(log, 0, os.SEEK_END)
        os.read(log, RECORD_BYTES)
    except BlockingIOError:
        return log
    except OSError:  # reading is forbidden although opening was not
        os.close(log)
        return None
    return log


def victims(log: int) -> set[int]:
    """Read what was added to the kernel's log and return the pids that were killed for memory."""
    found: set[int] = set()
    for _ in range(RECORDS):
        try:
            record = os.read(log, RECORD_BYTES)
        except (
            BrokenPipeError
        ):  # records were overwritten before we read them; the next is the oldest
            continue
        except OSError:
            break
        if not record:
            break
        found.update(map(int, KILLED.findall(record)))
    return found
