"""What differs between operating systems, stated once; one module per system answers.

Callers import the functions from here and never ask which system they are on. It is imported by the
guardian too, so it stays small: the standard library only, and of that only what is cheap.
"""

# ruff: noqa: TID251 - here is where platforms differ

from __future__ import annotations

import sys

from kallichore._platform._facts import MemoryEvidence, ProcessFacts

TYPE_CHECKING = False  # as `typing` has it, which is not imported: see `_facts`

if sys.platform == "linux":
    from kallichore._platform import _linux as _system
elif sys.platform == "darwin":
    from kallichore._platform import _darwin as _system
else:
    _UNSUPPORTED = f"Kallichore runs on Linux and macOS, not on {sys.platform}"
    raise ImportError(_UNSUPPORTED)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

__all__ = [
    "MemoryEvidence",
    "ProcessFacts",
    "become_subreaper",
    "children",
    "current_directory",
    "descendants",
    "die_with_parent",
    "environment",
    "ephemeral_ports",
    "keep_free_memory",
    "open_memory_watch",
    "process_facts",
    "process_start_time",
    "raise_descriptor_limit",
    "reap",
    "restore_descriptor_limit",
    "return_free_memory",
    "set_process_name",
]


if TYPE_CHECKING:

    class MemoryWatch(Protocol):
        """Looks for signs that the operating system killed something because memory ran out."""

        def evidence(self, pid: int) -> MemoryEvidence:
            """Say whether ``pid``, just dead of an unexplained SIGKILL, was such a victim."""

        def close(self) -> None:
            """Give up what is held open for watching."""

    class Platform(Protocol):
        """The questions and requests that a platform module must meet."""

        def process_facts(self, pid: int) -> ProcessFacts | None:
            """Describe a process, or return None when there is none that we may look at."""

        def children(self, pid: int) -> list[int]:
            """List the direct children of a process, whichever of its threads they belong to."""

        def environment(self, pid: int) -> bytes:
            """Return the environment a process began with, NUL after each entry, or nothing."""

        def current_directory(self, pid: int) -> str | None:
            """Return the working directory of a process, or None where it cannot be known."""

        def reap(self, known: Iterable[int]) -> tuple[int, int] | None:
            """Reap one child that has exited and return its pid and exit code (-N for signal N).

            ``known`` are the children we started. Where we adopt orphans, those are reaped as well.
            """

        def become_subreaper(self) -> bool:
            """Have orphans below us become our children; False where that cannot be."""

        def die_with_parent(self, signal_number: int) -> bool:
            """Have the system signal us when the thread that forked us ends; False if it cannot."""

        def set_process_name(self, name: str) -> None:
            """Set the name that `ps` and ``/proc/<pid>/comm`` show, as far as the system allows."""

        def ephemeral_ports(self) -> range:
            """Return the ports that the system hands to outgoing connections."""

        def raise_descriptor_limit(self) -> int:
            """Raise our limit of open files as far as we may and return it."""

        def restore_descriptor_limit(self, pid: int) -> None:
            """Give a child the limit of open files that we were started with."""

        def keep_free_memory(self, size: int) -> None:
            """Have our allocator keep free blocks up to ``size`` bytes at hand.

            By itself it gets what is big from the system each time, page by page.
            """

        def return_free_memory(self) -> None:
            """Return to the system what our allocator holds and nobody uses. Takes milliseconds."""

        def open_memory_watch(self) -> MemoryWatch:
            """Begin to watch for processes killed because memory ran out."""


answers: Platform = _system
process_facts = _system.process_facts
children = _system.children
environment = _system.environment
current_directory = _system.current_directory
reap = _system.reap
become_subreaper = _system.become_subreaper
die_with_parent = _system.die_with_parent
set_process_name = _system.set_process_name
ephemeral_ports = _system.ephemeral_ports
raise_descriptor_limit = _system.raise_descriptor_limit
restore_descriptor_limit = _system.restore_descriptor_limit
keep_free_memory = _system.keep_free_memory
return_free_memory = _system.return_free_memory
open_memory_watch = _system.open_memory_watch


def process_start_time(pid: int) -> int | None:
    """Return what tells this process from a later one with the same pid, or None if it is gone."""
    facts = process_facts(pid)
    return None if facts is None or facts.zombie else facts.start_time


def descendants(pid: int, limit: int) -> list[int]:
    """List the living tree under a process, parents before children, at most ``limit`` of them."""
    found = children(pid)
    for parent in found:
        if len(found) >= limit:
            break
        found += children(parent)
    return found[:limit]
