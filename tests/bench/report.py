"""Figures, what they are compared with, and the one table that shows them."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


class By(StrEnum):
    """What of a figure is held against its target."""

    VALUE = "the figure itself"
    RATIO = "the figure divided by its floor"
    ADDED = "the figure minus its floor"


@dataclass(kw_only=True)
class Figure:
    """One row of the table; the figure and its floor are medians of all rounds."""

    what: str
    unit: str
    rounds: list[float]
    floor_rounds: list[float] = field(default_factory=list)
    by: By = By.VALUE
    target: float | None = None
    at_least: bool = False
    rust: str = ""
    """The Rust server's figure, on the same class of machine (issue 5)."""
    note: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.rounds)

    @property
    def floor(self) -> float | None:
        return statistics.median(self.floor_rounds) if self.floor_rounds else None

    @property
    def measure(self) -> float:
        """What is held against the target."""
        floor = self.floor
        if floor is None or self.by is By.VALUE:
            return self.value
        return self.value / floor if self.by is By.RATIO else self.value - floor

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.measure >= self.target if self.at_least else self.measure <= self.target

    def to_json(self) -> dict[str, object]:
        derived = {"value": self.value, "floor": self.floor, "measure": self.measure}
        return asdict(self) | derived | {"met": self.met}


def percentile(values: Iterable[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def number(value: float) -> str:
    """Write a number with about three digits that count."""
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


_HEAD: Final = ("what", "figure", "floor", "compared", "target", "Rust", "met")
_VERDICTS: Final = {True: "yes", False: "NO", None: ""}


def _cells(figure: Figure) -> tuple[str, ...]:
    sign = "≥" if figure.at_least else "≤"
    mark = {By.VALUE: "", By.RATIO: "x ", By.ADDED: "+ "}[figure.by]
    floor = figure.floor
    return (
        figure.what,
        f"{number(figure.value)} {figure.unit}",
        "" if floor is None else number(floor),
        "" if figure.by is By.VALUE else mark + number(figure.measure),
        "" if figure.target is None else f"{sign} {mark}{number(figure.target)}",
        figure.rust,
        _VERDICTS[figure.met],
    )


def table(figures: Sequence[Figure]) -> str:
    rows = [_HEAD, *map(_cells, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        " | ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-+-".join("-" * width for width in widths))
    notes = [f"  {figure.what}: {figure.note}" for figure in figures if figure.note]
    return "\n".join([*lines, *notes])


def progress(text: str) -> None:
    """Say on stderr what is being measured, so that stdout holds the table alone."""
    print(text, file=sys.stderr, flush=True)


def save(path: Path, machine: dict[str, object], figures: Sequence[Figure]) -> None:
    document = {"machine": machine, "figures": [figure.to_json() for figure in figures]}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
