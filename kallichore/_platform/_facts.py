"""The records in which a platform module answers."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["MemoryEvidence", "ProcessFacts"]


class ProcessFacts(NamedTuple):
    """What the operating system says of one process at one moment."""

    parent: int
    group: int
    session: int
    """The session leader's pid: for a kernel and whatever stayed in its session, the kernel's."""
    zombie: bool
    start_time: int
    """When it started, in a unit of the system's own: with the pid it names a process for good."""
    cpu_seconds: float
    """Time on a processor, of all its threads."""
    waited_cpu_seconds: float
    """The same, of the children it has waited for."""
    resident_bytes: int
    threads: int


class MemoryEvidence(StrEnum):
    """How sure we are that the operating system killed a process because memory ran out."""

    CERTAIN = "certain"
    LIKELY = "likely"
    NONE = "none"
