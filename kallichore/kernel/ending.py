"""The words for how a process has ended."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Final

from kallichore._platform import MemoryEvidence

__all__ = ["exit_reason", "how_it_ended", "reported_exit_code", "signal_name"]

MEMORY_WORDS: Final = {
    MemoryEvidence.CERTAIN: "by the operating system because memory ran out",
    MemoryEvidence.LIKELY: "probably by the operating system because memory ran out",
}
CRASHES: Final = {
    int(signal.SIGSEGV): "invalid memory access",
    int(signal.SIGBUS): "invalid memory access",
    int(signal.SIGABRT): "it aborted itself",
    int(signal.SIGILL): "illegal instruction",
    int(signal.SIGFPE): "arithmetic error",
    int(signal.SIGSYS): "forbidden system call",
    int(signal.SIGTRAP): "trap",
}


def how_it_ended(returncode: int) -> str:
    """Put an exit code into the words of error KS-8: `exit status: 1`, `signal: 9 (SIGKILL)`."""
    if returncode >= 0:
        return f"exit status: {returncode}"
    return f"signal: {-returncode} ({signal_name(-returncode)})"


def reported_exit_code(returncode: int) -> int:
    """Return the exit code as clients are told it: any signal is -1."""
    return max(returncode, -1)


def signal_name(number: int) -> str:
    """Return a signal's name, also of those that have none of their own."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def exit_reason(
    returncode: int, out_of_memory: MemoryEvidence = MemoryEvidence.NONE, *, requested: bool = False
) -> str:
    """Say in one sentence, for a person, why a kernel is gone."""
    if returncode == 0:
        return "The kernel was shut down" if requested else "The kernel exited normally"
    if returncode > 0:
        return f"The kernel exited with status {returncode}"
    name = signal_name(-returncode)
    if -returncode in CRASHES:
        return f"The kernel crashed with {name} ({CRASHES[-returncode]})"
    if requested:
        return f"The kernel was ended with {name} as requested"
    if out_of_memory is not MemoryEvidence.NONE:
        return f"The kernel was killed ({name}) {MEMORY_WORDS[out_of_memory]}"
    return f"The kernel was ended from outside with {name}"
