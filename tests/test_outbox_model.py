"""The outbox against a plain list, whatever happens in whatever order."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kallichore import spool as spool_module
from kallichore.config import Limits
from kallichore.outbox import MemoryBudget, Outbox
from kallichore.traffic import Traffic
from tests.small_disks import FillingDisk
from tests.spooling import OVERHEAD, SIZE, notice

if TYPE_CHECKING:
    from kallichore.spool import Numbered

COST = SIZE + OVERHEAD
LIMITS = Limits(
    outbox_memory_bytes=6 * COST,
    outbox_segment_bytes=700,
    outbox_disk_bytes=2500,
    resume_tail_bytes=5 * COST,
)
MOST = 6 * COST + 20 * COST + 2 * (LIMITS.outbox_segment_bytes + 1000)
"""Memory, what a resuming client gets again, what is loaded at once, and big frames."""
SIZES = st.integers(10, 3 * SIZE) | st.just(1000)


def _cost(frames: list[Numbered]) -> int:
    return sum(len(numbered.frame) + OVERHEAD for numbered in frames)


class OutboxModel(RuleBasedStateMachine):
    """A client that reads, and now and then another, or none."""

    def __init__(self) -> None:
        super().__init__()
        self._patches = pytest.MonkeyPatch()
        self._patches.setattr(spool_module, "WRITE_BYTES", 3 * SIZE)
        self._disk = FillingDisk(self._patches)
        self._directory = tempfile.TemporaryDirectory()
        self._budget = MemoryBudget(12 * COST)
        self._outbox = Outbox(
            LIMITS, self._budget, Traffic(0), Path(self._directory.name) / "s", notice
        )
        self._frames: dict[int, bytes] = {}
        self._droppable: set[int] = set()
        self._next = 1  # the first number that the client has not been given for good
        self._taken: list[Numbered] = []
        self._given_back = 0

    # -- what may happen ------------------------------------------------------------------------

    @rule(size=SIZES, droppable=st.booleans(), count=st.sampled_from([1, 3, 10]))
    def append(self, size: int, droppable: bool, count: int) -> None:  # noqa: FBT001
        for _ in range(count):
            seq = len(self._frames) + 1
            self._frames[seq] = (b"%d " % seq).ljust(size, b"x")
            if droppable:
                self._droppable.add(seq)
            self._outbox.append(self._frames[seq], droppable=droppable)
            assert self._outbox.last_seq == seq

    @rule(size=st.integers(1, 5 * SIZE))
    def take(self, size: int) -> None:
        waiting = not self._outbox.empty
        self._taken = list(self._outbox.take(size))
        assert bool(self._taken) == waiting

    @precondition(lambda self: self._taken)
    @rule(part=st.floats(0, 1))
    def release(self, part: float) -> None:
        count = round(part * len(self._taken))
        self._check(self._taken[:count])
        self._outbox.release(count)
        del self._taken[:count]

    @rule()
    def another_client(self) -> None:
        assert self._outbox.begin(None) is None
        self._give_back()

    def _give_back(self) -> None:
        """What was taken, which is as much as the reader likes, waits again in memory."""
        self._given_back = _cost(self._taken)
        self._taken = []

    @rule(back=st.integers(-3, 12))
    def the_client_again(self, back: int) -> None:
        after = max(self._next - 1 - back, 0)
        oldest = self._outbox.begin(after)
        self._give_back()
        first = self._outbox._queue[0] if self._outbox._queue else None
        if first is not None and first.frame.startswith(b"dropped"):
            self._next = first.seq + 1 - int(first.frame.split()[1])
        elif oldest is None:
            assert after <= len(self._frames)
            self._next = after + 1
        else:
            assert oldest <= self._next  # what was never delivered is never lost
            assert after > len(self._frames) or oldest > after + 1
            self._next = oldest

    @rule(full=st.booleans())
    def the_disk(self, full: bool) -> None:  # noqa: FBT001
        self._disk.full = full

    @rule()
    def read_everything(self) -> None:
        while self._outbox.take(2 * SIZE):
            taken = list(self._outbox.take(1))
            self._check(taken)
            self._outbox.release(len(taken))
        self._give_back()
        assert self._outbox.empty
        assert self._next == len(self._frames) + 1
        assert self._outbox.spooled_bytes == 0
        assert self._budget.used == 0

    # -- what must be true ----------------------------------------------------------------------

    def _check(self, given: list[Numbered]) -> None:
        """What the client was given follows what it had; what is missing is told, and droppable."""
        for numbered in given:
            seq, frame = numbered.seq, numbered.frame
            if frame.startswith(b"dropped"):
                gone = range(self._next, seq + 1)
                assert set(gone) <= self._droppable
                frames, size = len(gone), sum(len(self._frames[one]) for one in gone)
                assert frame == b"dropped %d frames, %d bytes" % (frames, size)
            else:
                assert (seq, frame) == (self._next, self._frames[self._next])
            self._next = seq + 1

    @invariant()
    def memory_is_bounded(self) -> None:
        assert 0 <= self._budget.used == self._outbox._memory
        if not self._disk.failures:  # replies that a full disk will not have are kept here
            more = self._given_back + _cost(self._taken)
            assert self._budget.used - more <= MOST

    @invariant()
    def the_disk_is_bounded_but_for_replies(self) -> None:
        replies = sum(
            len(frame) + 13 for seq, frame in self._frames.items() if seq not in self._droppable
        )
        gaps = 29 * (len(self._frames) - len(self._droppable) + 2)
        slack = LIMITS.outbox_segment_bytes + 10_000
        assert self._outbox.spooled_bytes <= LIMITS.outbox_disk_bytes + replies + gaps + slack

    def teardown(self) -> None:
        self._disk.full = False
        self._outbox.close()
        assert self._budget.used == 0
        assert not list(Path(self._directory.name).iterdir())
        self._patches.undo()
        self._directory.cleanup()


TestOutboxModel = OutboxModel.TestCase
TestOutboxModel.settings = settings(stateful_step_count=40)
