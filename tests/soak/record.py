"""What a soak has seen: counts of everything done, and every check that failed."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kallichore.client.errors import RequestFailed, ServerGone, UnexpectedAnswer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator

__all__ = ["ALLOWED", "CheckFailed", "Record", "leaves"]

START_FAILURES = frozenset(
    f"500 KS-{number}" for number in (2, 5, 6, 7, 8, 13, 14, 15, 16, 17, 19)
) | {"404 KS-1"}
ALLOWED: dict[str, frozenset[str]] = {
    "new": frozenset(
        {"400 KS-0", "400 KS-9", "400 KS-19", "400 bad_request", "400 too_many_sessions"}
    ),
    "get": frozenset({"404 KS-1"}),
    "list": frozenset(),
    "status": frozenset(),
    "metrics": frozenset(),
    "configuration": frozenset({"400 bad_request"}),
    "history": frozenset({"404 KS-1"}),
    "start": START_FAILURES,
    "restart": START_FAILURES,
    "delete": frozenset({"400 KS-2", "404 KS-1"}),
    "kill": frozenset({"400 KS-3", "400 KS-4", "400 KS-12", "404 KS-1"}),
    "interrupt": frozenset({"400 KS-3", "400 KS-10", "404 KS-1"}),
    "adopt": START_FAILURES,
    "connection info": frozenset({"500 KS-18", "404 KS-1"}),
    "execute": frozenset({"400 session_not_ready", "408 timeout", "404 KS-1"}),
}
"""The refusals that CONTRACT 2 has for each operation."""
SHOWN = 60
"""Failures written out in the report; the rest are counted."""


class CheckFailed(Exception):
    """Something happened that must not, or did not happen that must."""


@dataclass
class Record:
    """Everything counted so far."""

    seed: int
    deeds: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    """By operation and outcome: ``start 200``, ``kill 400 KS-12``."""
    messages: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    failed: int = 0
    slowest_status: float = 0.0
    slowest_quiet: float = 0.0
    own_lag: float = 0.0
    """How late the soak's own loop was."""
    peak_bytes: int = 0
    peak_descriptors: int = 0
    peak_processes: int = 0

    def fail(self, where: str, what: str) -> None:
        """Note a check that failed."""
        self.failed += 1
        if len(self.failures) < SHOWN:
            self.failures.append(f"{where}: {what}")
        print(f"FAILED {where}: {what}", flush=True)

    @contextmanager
    def noting(self, where: str) -> Iterator[list[str]]:
        """Note what goes wrong in the block, and go on after it; give a list of that."""
        noted: list[str] = []
        try:
            yield noted
        except Exception as exc:  # noqa: BLE001 - whatever it is, the soak goes on and tells it
            for leaf in leaves(ExceptionGroup("", [exc])):
                noted.append(f"{type(leaf).__name__}: {leaf}")
                self.fail(where, noted[-1])

    async def ask(
        self,
        operation: str,
        call: Callable[[], Awaitable[object]],
        may: Collection[str] = (),
    ) -> object | RequestFailed:
        """Ask the server; give its answer, or a refusal if that is among those that may come."""
        assert ALLOWED[operation] >= set(may), (operation, may)
        try:
            answer = await call()
        except RequestFailed as refusal:
            said = f"{refusal.status} {refusal.code}"
            self.answers[f"{operation} {said}"] += 1
            if said not in may:
                raise CheckFailed(f"{operation} answered {said}: {refusal.message}") from refusal
            return refusal
        except (ServerGone, UnexpectedAnswer) as exc:
            raise CheckFailed(f"{operation}: {exc}") from exc
        self.answers[f"{operation} 200"] += 1
        return answer


def leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    """Give the errors of a tree of groups."""
    for exc in group.exceptions:
        if isinstance(exc, ExceptionGroup):
            yield from leaves(exc)
        else:
            yield exc
