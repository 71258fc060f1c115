"""The states of a session, drawn and tabulated from the transition table."""

from __future__ import annotations

import math
from html import escape

from kallichore.models import Status
from kallichore.protocol.lifecycle import TRANSITIONS, Cause

Point = tuple[float, float]

WIDTH, HEIGHT = 800, 430
LOOKS = (
    'xmlns="http://www.w3.org/2000/svg" role="img" aria-label="States of a session" '
    'style="width:100%;height:auto;font-family:inherit"'
)
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto"><path d="M0,0L8,4L0,8z" fill="currentColor"/></marker></defs>'
)
BOX = (124.0, 36.0)
PLACES: dict[Status, Point] = {
    Status.UNINITIALIZED: (90, 180),
    Status.STARTING: (290, 60),
    Status.READY: (500, 60),
    Status.IDLE: (500, 235),
    Status.BUSY: (710, 205),
    Status.OFFLINE: (710, 375),
    Status.EXITED: (290, 375),
}
NUMBERS = {cause: number for number, cause in enumerate(Cause, 1)}


def table() -> str:
    """From each state, what leads where."""
    rows = ["| number | cause | from | to |", "|---|---|---|---|"]
    for cause, number in NUMBERS.items():
        targets: dict[Status, list[str]] = {}
        for origin, moves in TRANSITIONS.items():
            if cause in moves:
                targets.setdefault(moves[cause], []).append(f"`{origin}`")
        rows += [
            f"| {number} | {cause.value} | {', '.join(origins)} | `{target}` |"
            for target, origins in targets.items()
        ]
    return "\n".join(rows)


def drawing() -> str:
    """The automaton as SVG; the numbers on the arrows are those of the table."""
    edges: dict[tuple[Status, Status], list[Cause]] = {}
    for origin, moves in TRANSITIONS.items():
        for cause, target in moves.items():
            if origin is not target:
                edges.setdefault((origin, target), []).append(cause)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" {LOOKS}>',
        TIP,
        *(_edge(origin, target, causes) for (origin, target), causes in edges.items()),
        *(_node(status) for status in PLACES),
        "</svg>",
    ]
    return "```{raw} html\n" + "\n".join(parts) + "\n```"


def _node(status: Status) -> str:
    x, y = PLACES[status]
    width, height = BOX
    return (
        f'<rect x="{x - width / 2}" y="{y - height / 2}" width="{width}" height="{height}" '
        'rx="18" fill="var(--color-background-secondary, white)" stroke="currentColor"/>'
        f'<text x="{x}" y="{y + 5}" text-anchor="middle" font-size="15" fill="currentColor">'
        f"{status}</text>"
    )


def _edge(origin: Status, target: Status, causes: list[Cause]) -> str:
    """An arrow that bends to its left, so that two between the same states stay apart."""
    start, end = PLACES[origin], PLACES[target]
    bend = 0.34 if _blocked(origin, target) else 0.1
    dx, dy = end[0] - start[0], end[1] - start[1]
    middle = ((start[0] + end[0]) / 2 + bend * dy, (start[1] + end[1]) / 2 - bend * dx)
    tail, tip = _border(start, middle), _border(end, middle)
    label = (
        (tail[0] + 2 * middle[0] + tip[0]) / 4,
        (tail[1] + 2 * middle[1] + tip[1]) / 4,
    )
    numbers = ", ".join(str(NUMBERS[cause]) for cause in causes)
    wide = 8 + 6 * len(numbers)
    title = escape("; ".join(cause.value for cause in causes))
    return (
        f'<g opacity="0.8"><title>{origin} to {target}: {title}</title>'
        f'<path d="M{tail[0]:.0f},{tail[1]:.0f}Q{middle[0]:.0f},{middle[1]:.0f} '
        f'{tip[0]:.0f},{tip[1]:.0f}" fill="none" stroke="currentColor" marker-end="url(#tip)"/>'
        f'<rect x="{label[0] - wide / 2:.0f}" y="{label[1] - 8:.0f}" width="{wide}" height="16" '
        'rx="8" fill="var(--color-background-primary, white)"/>'
        f'<text x="{label[0]:.0f}" y="{label[1] + 4:.0f}" text-anchor="middle" font-size="11" '
        f'fill="currentColor">{numbers}</text></g>'
    )


def _blocked(origin: Status, target: Status) -> bool:
    """Whether a third state lies on the straight line between two."""
    start, end = PLACES[origin], PLACES[target]
    length = math.dist(start, end)
    for status, place in PLACES.items():
        if status in {origin, target}:
            continue
        detour = math.dist(start, place) + math.dist(place, end) - length
        if detour < 4:  # noqa: PLR2004 (pixels)
            return True
    return False


def _border(place: Point, towards: Point) -> Point:
    """Where a line from the middle of a state's box leaves the box."""
    dx, dy = towards[0] - place[0], towards[1] - place[1]
    width, height = BOX
    scale = min(
        (width / 2 + 3) / abs(dx) if dx else math.inf,
        (height / 2 + 3) / abs(dy) if dy else math.inf,
    )
    return place[0] + dx * scale, place[1] + dy * scale
