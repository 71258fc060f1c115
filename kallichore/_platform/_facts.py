"""The records in which a platform module answers.

Nothing here, nor elsewhere in this package, imports `typing` when it runs: the guardian would pay a
megabyte for it.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["MemoryEvidence", "ProcessFacts"]


class ProcessFacts:
    """What the operating system says of one process at one moment."""

    __slots__ = (
        "cpu_seconds",
        "group",
        "parent",
        "resident_bytes",
        "session",
        "start_time",
        "threads",
        "waited_cpu_seconds",
        "zombie",
    )

    def __init__(
        self,
        *,
        parent: int,
        group: int,
        session: int,
        zombie: bool,
        start_time: int,
        cpu_seconds: float,
        waited_cpu_seconds: float,
        resident_bytes: int,
        threads: int,
    ) -> None:
        """Hold what is known of a process.

        Args:
            parent: Its parent's pid.
            group: Its process group.
            session: Its session leader's pid: for a kernel and whatever stayed in its session, the
                kernel's.
            zombie: Whether it has ended and waits to be reaped.
            start_time: When it started, in a unit of the system's own: with the pid it names a
                process for good.
            cpu_seconds: Time on a processor, of all its threads.
            waited_cpu_seconds: The same, of the children it has waited for.
            resident_bytes: Memory in use.
            threads: How many threads it has.
        """
        self.parent = parent
        self.group = group
        self.session = session
        self.zombie = zombie
        self.start_time = start_time
        self.cpu_seconds = cpu_seconds
        self.waited_cpu_seconds = waited_cpu_seconds
        self.resident_bytes = resident_bytes
        self.threads = threads


class MemoryEvidence(StrEnum):
    """How sure we are that the operating system killed a process because memory ran out."""

    CERTAIN = "certain"
    LIKELY = "likely"
    NONE = "none"
