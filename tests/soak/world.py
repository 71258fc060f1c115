"""What every part of a soak has at hand: the server, a client of it, the record, and chance."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import psutil
import trio

from tests.soak.record import CheckFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kallichore.client import Client, LaunchedServer
    from tests.soak.record import Record

__all__ = ["MARKER", "World", "ours", "pause", "until"]

T = TypeVar("T")

MARKER = "KALLICHORE_SOAK"
"""Environment variable that every process of a soak has."""
PACE = 0.05
"""Seconds between two looks at something that tells nobody when it changes."""


@dataclass(frozen=True)
class World:
    """One round of a soak."""

    server: LaunchedServer
    client: Client
    record: Record
    directory: Path
    """The server's temporary directory, empty whenever there is no session."""
    environment: dict[str, str]
    stage: str
    deadline: float
    """When the actors of this round begin nothing new, by Trio's clock."""

    @property
    def over(self) -> bool:
        """Whether it is time to come to an end."""
        return trio.current_time() > self.deadline

    def chance(self, *names: object) -> random.Random:
        """Give the dice of one turn: the same in each soak with the same seed."""
        return random.Random(f"{self.record.seed}/{self.stage}/{names}")


async def pause(seconds: float) -> None:
    """Let time pass."""
    await trio.sleep(seconds)


async def until(
    what: str, look: Callable[[], Awaitable[T]], seconds: float, pace: float = PACE
) -> T:
    """Look again and again until there is something to see, and give it."""
    with trio.move_on_after(seconds):
        while True:
            if seen := await look():
                return seen
            await trio.sleep(pace)
    raise CheckFailed(f"not within {seconds:g} s: {what}")


def ours(mark: str) -> dict[int, str]:
    """Give the processes of this soak that live: server, guardian, kernels and what they began."""
    found = {}
    wanted = f"{MARKER}={mark}".encode()
    for process in psutil.process_iter():
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:  # noqa: PTH123
                marked = wanted in file.read().split(b"\0")
            if marked and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(process.cmdline())[:80]
        except (OSError, psutil.Error):
            continue
    return found
