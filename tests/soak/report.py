"""The report of a soak, in Markdown."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil

from tests.bench.machine import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.soak.audit import Account
    from tests.soak.record import Record

__all__ = ["Course", "write"]


@dataclass
class Course:
    """Everything that a soak has come to."""

    record: Record
    minutes: float
    transport: str
    accounts: list[Account] = field(default_factory=list)
    """At the beginning, and after each round."""
    exit_code: int | None = None
    shutdown_seconds: float = 0.0
    warnings: Counter[str] = field(default_factory=Counter)

    @property
    def passed(self) -> bool:
        """Whether every check has held."""
        return not self.record.failed and self.exit_code == 0


def write(course: Course) -> str:
    """Write the report."""
    return "\n".join(_lines(course)) + "\n"


def _lines(course: Course) -> Iterator[str]:
    record = course.record
    verdict = "passed" if course.passed else f"FAILED ({record.failed} checks)"
    yield from (f"**Verdict: {verdict}.**", "")
    yield from _table(
        ("", ""),
        [
            ("seed", record.seed),
            ("duration", f"{course.minutes:g} minutes"),
            ("transport", course.transport),
            ("ended", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
            (
                "machine",
                (
                    f"{psutil.cpu_count()} cores, {platform.system()}, "
                    f"Python {platform.python_version()}"
                ),
            ),
            ("deeds and faults", sum(record.deeds.values())),
            ("answers of the server checked", sum(record.answers.values())),
            ("slowest `/status`", f"{record.slowest_status * 1000:.0f} ms"),
            ("slowest small execution of a quiet session", f"{record.slowest_quiet * 1000:.0f} ms"),
            ("the server's loop was late by at most", f"{_lag(course):.0f} ms"),
            ("the soak's own loop was late by at most", f"{record.own_lag * 1000:.0f} ms"),
            ("memory at its highest", f"{record.peak_bytes / MIB:.1f} MiB"),
            ("descriptors at their highest", record.peak_descriptors),
            ("processes at their highest", record.peak_processes),
            (
                "shutdown with kernels that do not obey",
                f"exit code {course.exit_code} after {course.shutdown_seconds:.1f} s",
            ),
        ],
    )
    yield from ("", "Messages that were numbered and accounted for:", "")
    wanted = (
        "sent by kernels",
        "received",
        "lost",
        "in the sockets of broken connections",
        "requests",
        "replies",
    )
    yield from _table(("messages", "count"), [(name, record.messages[name]) for name in wanted])
    yield from ("", "What the server had, whenever all sessions were deleted:", "")
    yield from _table(
        ("when", "minute", "descriptors", "tasks", "processes", "files", "listening", "memory"),
        [_row(account) for account in course.accounts],
    )
    yield from ("", "Failed checks:", "")
    yield from [f"- {_plain(failure)}" for failure in record.failures] or ["None."]
    yield from ("", "What was done, and how often:", "")
    yield from _table(("deed or fault", "times"), sorted(record.deeds.items()))
    yield from ("", "What the server answered:", "")
    yield from _table(("operation and answer", "times"), sorted(record.answers.items()))
    if course.warnings:
        yield from ("", "Warnings in its log, by logger:", "")
        yield from _table(("logger", "times"), sorted(course.warnings.items()))


def _lag(course: Course) -> float:
    return max((account.worst_lag for account in course.accounts), default=0.0) * 1000


def _row(account: Account) -> tuple[object, ...]:
    return (
        account.stage,
        f"{account.seconds / 60:.1f}",
        account.descriptors.total(),
        account.tasks.total(),
        len(account.processes),
        account.files.total(),
        account.listening.total(),
        f"{account.memory_bytes / MIB:.1f} MiB",
    )


def _table(titles: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    titles = list(titles)
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"
    for row in rows:
        yield f"| {' | '.join(_plain(str(cell)) for cell in row)} |"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:600]
