"""Linux: ``/proc``, ``prctl`` and ``prlimit``. Imports late what the guardian does not need."""

# ruff: noqa: PTH110, PTH115, PTH123, PTH208 - pathlib is not cheap, and the guardian imports this

from __future__ import annotations

import os
import resource

from kallichore._platform._facts import ProcessFacts

TYPE_CHECKING = False  # as `typing` has it, which is not imported: see `_facts`

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

    from kallichore._platform._linux_memory import LinuxMemoryWatch

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

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
READ_BYTES: Final = 65536
DEFAULT_EPHEMERAL: Final = range(32768, 61000)
DESCRIPTOR_CEILING: Final = 1 << 20

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

inherited_limits: Final = resource.getrlimit(resource.RLIMIT_NOFILE)


def process_facts(pid: int) -> ProcessFacts | None:
    """See `kallichore._platform.Platform`; proc(5) numbers the fields, ours start at its third."""
    line = read_file(f"/proc/{pid}/stat")
    after_name = line.rfind(b")") + 2
    if after_name < 2:  # noqa: PLR2004 - nothing was found
        return None
    field = line[after_name:].split()
    return ProcessFacts(
        parent=int(field[1]),
        group=int(field[2]),
        session=int(field[3]),
        zombie=field[0] in b"ZX",
        start_time=int(field[19]),
        cpu_seconds=(int(field[11]) + int(field[12])) / TICKS_PER_SECOND,
        waited_cpu_seconds=(int(field[13]) + int(field[14])) / TICKS_PER_SECOND,
        resident_bytes=int(field[21]) * PAGE_BYTES,
        threads=int(field[17]),
    )


def children(pid: int) -> list[int]:
    """See `kallichore._platform.Platform`."""
    tasks = f"/proc/{pid}/task"
    try:
        threads = os.listdir(tasks)
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        found += map(int, read_file(f"{tasks}/{thread}/children").split())
    return found if found or has_children_files else children_by_scan(pid)


def children_by_scan(pid: int) -> list[int]:
    """Find children by asking every process for its parent, on a kernel that keeps no list."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            facts = process_facts(int(entry))
            if facts is not None and facts.parent == pid:
                found.append(int(entry))
    return found


def environment(pid: int) -> bytes:
    """See `kallichore._platform.Platform`."""
    return read_file(f"/proc/{pid}/environ")


def current_directory(pid: int) -> str | None:
    """See `kallichore._platform.Platform`."""
    try:
        directory = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None
    return None if directory.endswith(" (deleted)") else directory


def reap(known: Iterable[int]) -> tuple[int, int] | None:
    """See `kallichore._platform.Platform`; all children are asked for at once."""
    del known
    try:
        exited = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if exited is None:
            return None
        pid, status = os.waitpid(exited.si_pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def become_subreaper() -> bool:
    """See `kallichore._platform.Platform`."""
    return prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal_number: int) -> bool:
    """See `kallichore._platform.Platform`."""
    return prctl(PR_SET_PDEATHSIG, signal_number)


def set_process_name(name: str) -> None:
    """See `kallichore._platform.Platform`; fifteen bytes of it are kept."""
    with open("/proc/self/comm", "wb", buffering=0) as comm:
        comm.write(name.encode())


def ephemeral_ports() -> range:
    """See `kallichore._platform.Platform`."""
    bounds = read_file("/proc/sys/net/ipv4/ip_local_port_range").split()
    if len(bounds) != 2:  # noqa: PLR2004 - the first and the last port
        return DEFAULT_EPHEMERAL
    return range(int(bounds[0]), int(bounds[1]) + 1)


def raise_descriptor_limit() -> int:
    """See `kallichore._platform.Platform`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTOR_CEILING if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTOR_CEILING)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def restore_descriptor_limit(pid: int) -> None:
    """See `kallichore._platform.Platform`."""
    if resource.getrlimit(resource.RLIMIT_NOFILE) == inherited_limits:
        return
    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, inherited_limits)
    except OSError:  # it is gone already, or has become somebody else
        return


def keep_free_memory(size: int) -> None:
    """See `kallichore._platform.Platform`."""
    import ctypes  # noqa: PLC0415 - see `prctl`

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, size)
        mallopt(M_TRIM_THRESHOLD, 2 * size)  # the proportion that glibc keeps


def return_free_memory() -> None:
    """See `kallichore._platform.Platform`."""
    import ctypes  # noqa: PLC0415 - see `prctl`

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl returns it by itself
    if trim is not None:
        trim(ctypes.c_size_t(0))


def open_memory_watch() -> LinuxMemoryWatch:
    """See `kallichore._platform.Platform`."""
    from kallichore._platform._linux_memory import LinuxMemoryWatch  # noqa: PLC0415 - see above

    return LinuxMemoryWatch()


def prctl(option: int, value: int) -> bool:
    """Ask the system for what only `prctl` offers, and say whether it obeyed."""
    import ctypes  # noqa: PLC0415 - a megabyte, and needed only at start

    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0)


def read_file(path: str) -> bytes:
    """Return what a small kernel file says, or nothing when it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = b""
        while piece := os.read(descriptor, READ_BYTES):  # a list of children comes page by page
            data += piece
    except OSError:  # ESRCH: the process ended between opening and reading
        return b""
    else:
        return data
    finally:
        os.close(descriptor)


has_children_files: Final = os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
