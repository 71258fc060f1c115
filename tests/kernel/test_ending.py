"""The words for how a process has ended."""

from __future__ import annotations

import signal

import pytest

from kallichore._platform import MemoryEvidence
from kallichore.kernel.ending import exit_reason, how_it_ended, reported_exit_code


@pytest.mark.parametrize(
    ("returncode", "how", "reported", "reason"),
    [
        (0, "exit status: 0", 0, "The kernel exited normally"),
        (3, "exit status: 3", 3, "The kernel exited with status 3"),
        (-9, "signal: 9 (SIGKILL)", -1, "The kernel was ended from outside with SIGKILL"),
        (-15, "signal: 15 (SIGTERM)", -1, "The kernel was ended from outside with SIGTERM"),
        (
            -11,
            "signal: 11 (SIGSEGV)",
            -1,
            "The kernel crashed with SIGSEGV (invalid memory access)",
        ),
        (-40, "signal: 40 (signal 40)", -1, "The kernel was ended from outside with signal 40"),
    ],
)
def test_endings_have_words(returncode: int, how: str, reported: int, reason: str) -> None:
    assert how_it_ended(returncode) == how
    assert reported_exit_code(returncode) == reported
    assert exit_reason(returncode) == reason


def test_memory_is_named_as_surely_as_it_is_known() -> None:
    assert exit_reason(-signal.SIGKILL, MemoryEvidence.CERTAIN) == (
        "The kernel was killed (SIGKILL) by the operating system because memory ran out"
    )
    assert exit_reason(-signal.SIGKILL, MemoryEvidence.LIKELY) == (
        "The kernel was killed (SIGKILL) probably by the operating system because memory ran out"
    )


def test_what_was_asked_for_is_no_accident() -> None:
    assert exit_reason(0, requested=True) == "The kernel was shut down"
    assert exit_reason(2, requested=True) == "The kernel exited with status 2"
    assert exit_reason(-signal.SIGTERM, requested=True) == (
        "The kernel was ended with SIGTERM as requested"
    )
    assert exit_reason(-signal.SIGSEGV, requested=True) == (
        "The kernel crashed with SIGSEGV (invalid memory access)"
    )
