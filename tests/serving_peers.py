"""Frontends that run in a test, each with a peer in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from kallichore.config import Deadlines, Limits
from kallichore.frontend import Frontend
from kallichore.outbox import MemoryBudget, Outbox
from kallichore.protocol.envelope import kernel_event, with_seq
from kallichore.traffic import Traffic
from tests.spooling import notice

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.peers import MeteredPeer

LIMITS = Limits(write_bytes=200, control_frames=4)
DEADLINES = Deadlines()


class Served:
    """A frontend that runs, and what came of it."""

    def __init__(self, outbox: Outbox, *, resuming: bool = False) -> None:
        self.outbox = outbox
        self.said: list[str | bytearray] = []
        self.resuming = resuming
        self.over = trio.Event()
        self.frontend: Frontend

    async def run(self, peer: MeteredPeer, oldest: bytes = b"") -> None:
        numbers = with_seq if self.resuming else None
        hear = self.said.append
        self.frontend = Frontend(peer, self.outbox, hear, LIMITS, DEADLINES, numbers)
        try:
            await self.frontend.run(oldest)
        finally:
            assert self.frontend.released.is_set()
            assert peer.aborted
            self.over.set()


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(LIMITS, MemoryBudget(10**6), Traffic(0), tmp_path / "spool", notice)


@pytest.fixture
def served(outbox: Outbox) -> Served:
    return Served(outbox)


@pytest.fixture
def serve(nursery: trio.Nursery, served: Served) -> Callable[[MeteredPeer], None]:
    """Give what starts the frontend with a peer."""

    def start(peer: MeteredPeer) -> None:
        nursery.start_soon(served.run, peer)

    return start


def fill(outbox: Outbox, count: int, size: int = 0) -> None:
    """Add frames that say their own number."""
    for _ in range(count):
        text = str(outbox.last_seq + 1)
        outbox.append(kernel_event("workingDirChanged", text.ljust(size, ".")))


def numbers(peer: MeteredPeer) -> list[int]:
    """The numbers that have reached the peer."""
    told = (message["workingDirChanged"] for message in peer.messages)
    return [int(text.strip(".")) for text in told]


def left(outbox: Outbox) -> list[int]:
    """The numbers that the next client begins with."""
    outbox.begin(None)
    return [numbered.seq for numbered in outbox.take(1_000_000)]
