"""macOS: libproc and sysctl, through ctypes. Written from Apple's headers and not yet tried."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from functools import cache

from kallichore._platform._facts import MemoryEvidence, ProcessFacts

TYPE_CHECKING = False  # as `typing` has it, which is not imported: see `_facts`
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

__all__ = [
    "become_subreaper",
    "children",
    "current_directory",
    "die_with_parent",
    "environment",
    "ephemeral_ports",
    "keep_free_memory",
    "open_memory_watch",
    "process_facts",
    "raise_descriptor_limit",
    "reap",
    "restore_descriptor_limit",
    "return_free_memory",
    "set_process_name",
]

PROC_PPID_ONLY: Final = 6
PROC_PIDTASKALLINFO: Final = 2
PROC_PIDVNODEPATHINFO: Final = 9
CTL_KERN: Final = 1
KERN_PROCARGS2: Final = 49
ZOMBIE: Final = 5

TASKALLINFO: Final = struct.Struct("=3I2I7I16s32s5Ii2Q6Q12i")
"""`struct proc_taskallinfo`: a `proc_bsdinfo`, then a `proc_taskinfo`."""
STATUS, PARENT, GROUP, STARTED, STARTED_MICROSECONDS = 1, 4, 15, 20, 21
RESIDENT, USER_TIME, SYSTEM_TIME, THREADS = 23, 24, 25, 37
VNODEPATHINFO_BYTES: Final = 2352
VNODE_INFO_BYTES: Final = 152
"""What stands before the path in a `vnode_info_path`."""
PATH_BYTES: Final = 1024
ARGUMENTS_BYTES: Final = 1 << 20

DEFAULT_EPHEMERAL: Final = range(49152, 65536)
OPEN_MAX: Final = 10240

libc: Final = ctypes.CDLL(None, use_errno=True)


def process_facts(pid: int) -> ProcessFacts | None:
    """See `kallichore._platform.Platform`."""
    data = ctypes.create_string_buffer(TASKALLINFO.size)
    got = libc.proc_pidinfo(pid, PROC_PIDTASKALLINFO, ctypes.c_uint64(0), data, len(data))
    if got != TASKALLINFO.size:
        return None
    field = TASKALLINFO.unpack(data.raw)
    try:
        session = os.getsid(pid)
    except OSError:
        return None
    return ProcessFacts(
        parent=field[PARENT],
        group=field[GROUP],
        session=session,
        zombie=field[STATUS] == ZOMBIE,
        start_time=field[STARTED] * 1_000_000 + field[STARTED_MICROSECONDS],
        cpu_seconds=(field[USER_TIME] + field[SYSTEM_TIME]) * seconds_per_tick(),
        waited_cpu_seconds=0.0,
        resident_bytes=field[RESIDENT],
        threads=field[THREADS],
    )


@cache
def seconds_per_tick() -> float:
    """Return how long one unit of Mach's clock is."""
    ratio = (ctypes.c_uint32 * 2)()
    if libc.mach_timebase_info(ratio) != 0 or ratio[1] == 0:
        return 1e-9
    return 1e-9 * int(ratio[0]) / int(ratio[1])


def children(pid: int) -> list[int]:
    """See `kallichore._platform.Platform`."""
    size = libc.proc_listpids(PROC_PPID_ONLY, ctypes.c_uint32(pid), None, 0)
    if size <= 0:
        return []
    pids = (ctypes.c_int * (size // ctypes.sizeof(ctypes.c_int) + 16))()
    size = libc.proc_listpids(PROC_PPID_ONLY, ctypes.c_uint32(pid), pids, ctypes.sizeof(pids))
    count = max(size, 0) // ctypes.sizeof(ctypes.c_int)
    return [child for child in pids[:count] if child]


def environment(pid: int) -> bytes:
    """See `kallichore._platform.Platform`; the arguments stand before it and are skipped."""
    data = ctypes.create_string_buffer(ARGUMENTS_BYTES)
    size = ctypes.c_size_t(len(data))
    name = (ctypes.c_int * 3)(CTL_KERN, KERN_PROCARGS2, pid)
    if libc.sysctl(name, 3, data, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return b""
    raw = data.raw[: size.value]
    count = int.from_bytes(raw[:4], "little")
    _, _, rest = raw[4:].partition(b"\0")  # the program's path, padded with NULs
    return b"\0".join(rest.lstrip(b"\0").split(b"\0")[count:])


def current_directory(pid: int) -> str | None:
    """See `kallichore._platform.Platform`."""
    data = ctypes.create_string_buffer(VNODEPATHINFO_BYTES)
    got = libc.proc_pidinfo(pid, PROC_PIDVNODEPATHINFO, ctypes.c_uint64(0), data, len(data))
    if got != VNODEPATHINFO_BYTES:
        return None
    path = data.raw[VNODE_INFO_BYTES : VNODE_INFO_BYTES + PATH_BYTES].partition(b"\0")[0]
    return os.fsdecode(path) or None


def reap(known: Iterable[int]) -> tuple[int, int] | None:
    """See `kallichore._platform.Platform`; there are no orphans to adopt."""
    for child in list(known):
        try:
            pid, status = os.waitpid(child, os.WNOHANG)
        except ChildProcessError:
            continue
        if pid:
            return pid, os.waitstatus_to_exitcode(status)
    return None


def become_subreaper() -> bool:
    """See `kallichore._platform.Platform`; orphans go to launchd."""
    return False


def die_with_parent(signal_number: int) -> bool:
    """See `kallichore._platform.Platform`; the connection to the guardian must do."""
    del signal_number
    return False


def set_process_name(name: str) -> None:
    """See `kallichore._platform.Platform`; a process keeps its name, so its thread gets it."""
    libc.pthread_setname_np(name.encode())


def ephemeral_ports() -> range:
    """See `kallichore._platform.Platform`."""
    first = sysctl_number(b"net.inet.ip.portrange.first")
    last = sysctl_number(b"net.inet.ip.portrange.last")
    return DEFAULT_EPHEMERAL if first is None or last is None else range(first, last + 1)


def sysctl_number(name: bytes) -> int | None:
    """Return a number that the system goes by."""
    value = ctypes.c_int()
    size = ctypes.c_size_t(ctypes.sizeof(value))
    failed = libc.sysctlbyname(
        name, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
    )
    return None if failed else value.value


def raise_descriptor_limit() -> int:
    """See `kallichore._platform.Platform`; the system takes no more than `OPEN_MAX`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_MAX)
    if soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def restore_descriptor_limit(pid: int) -> None:
    """See `kallichore._platform.Platform`; nobody can change another's limits here."""
    del pid


class BlindMemoryWatch:
    """Sees nothing: the system says nowhere what it kills for memory."""

    def evidence(self, pid: int) -> MemoryEvidence:
        """See `kallichore._platform.MemoryWatch`."""
        del pid
        return MemoryEvidence.NONE

    def close(self) -> None:
        """See `kallichore._platform.MemoryWatch`."""


def keep_free_memory(size: int) -> None:
    """See `kallichore._platform.Platform`; the allocator here does so by itself."""


def return_free_memory() -> None:
    """See `kallichore._platform.Platform`."""
    libc.malloc_zone_pressure_relief(None, ctypes.c_size_t(0))


def open_memory_watch() -> BlindMemoryWatch:
    """See `kallichore._platform.Platform`."""
    return BlindMemoryWatch()
