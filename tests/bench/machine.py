"""What processes use, read from /proc, and how busy the machine is otherwise."""

from __future__ import annotations

import os
import platform
import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024 * 1024
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """CPU time of all living threads of a process, to the nanosecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


class CpuClock:
    """CPU time that a process uses while this is open."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._begin = cpu_seconds(self._pid)
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = cpu_seconds(self._pid) - self._begin


def memory_bytes(pid: int) -> int:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextmanager
def peak_memory(pid: int) -> Iterator[list[int]]:
    """Give a list that holds, at the end, by how many bytes resident memory grew at its peak."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    before = memory_bytes(pid)
    grown: list[int] = []
    yield grown
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    grown.append(int(match[1]) * 1024 - before if match else 0)


def wait(seconds: float) -> None:
    """Let time pass: benchmarks stall on purpose."""
    time.sleep(seconds)  # noqa: TID251


def idle_share(seconds: float) -> float:
    """How much of the machine nobody uses, from 0 to 1, watched for this long."""

    def jiffies() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
        return fields[3] + fields[4], sum(fields[:8])

    idle, total = jiffies()
    wait(seconds)
    idle_then, total_then = jiffies()
    return (idle_then - idle) / max(1, total_then - total)


def describe() -> dict[str, object]:
    """Say what this machine is and how loaded."""
    return {
        "cpus": os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "idle_before": round(idle_share(1.0), 3),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
