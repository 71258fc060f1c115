"""What a client has yet to read: order, bounds, accounts, and clients that come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kallichore.config import Limits
from kallichore.outbox import MemoryBudget, Outbox
from kallichore.traffic import Traffic
from tests.small_disks import FillingDisk
from tests.spooling import OVERHEAD, SIZE, frame, notice, seqs_of, small_writes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["small_writes"]

COST = SIZE + OVERHEAD
LIMITS = Limits(
    outbox_memory_bytes=5 * COST,
    outbox_segment_bytes=1000,
    outbox_disk_bytes=3000,
    resume_tail_bytes=4 * COST,
)


@pytest.fixture
def budget() -> MemoryBudget:
    return MemoryBudget(100 * COST)


@pytest.fixture
def make(budget: MemoryBudget, tmp_path: Path) -> Callable[..., Outbox]:
    made = 0

    def outbox(limits: Limits = LIMITS) -> Outbox:
        nonlocal made
        made += 1
        return Outbox(limits, budget, Traffic(0), tmp_path / f"spool-{made}", notice)

    return outbox


@pytest.fixture
def outbox(make: Callable[..., Outbox]) -> Outbox:
    return make()


def fill(outbox: Outbox, count: int, kind: str = "reply") -> None:
    for _ in range(count):
        outbox.append(frame(outbox.last_seq + 1, kind), droppable=kind == "stream")


def drain(outbox: Outbox, size: int = 3 * SIZE) -> list[int]:
    """Read everything, as a client that takes ``size`` bytes at a time; give the numbers."""
    read: list[int] = []
    while taken := outbox.take(size):
        read += seqs_of(taken)
        outbox.release(len(taken))
    return read


# -- order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5, 6, 9, 10, 40])
def test_frames_come_in_order_from_memory_and_disk(outbox: Outbox, count: int) -> None:
    fill(outbox, count)
    assert not outbox.empty
    assert drain(outbox) == list(range(1, count + 1))
    assert outbox.empty


def test_a_frame_does_not_overtake_those_on_disk_through_memory_that_is_free(
    outbox: Outbox,
) -> None:
    fill(outbox, 20)
    first = outbox.take(10 * SIZE)
    assert seqs_of(first) == [1, 2, 3, 4, 5]
    outbox.release(5)
    fill(outbox, 3)
    assert outbox.spooled_bytes
    assert drain(outbox) == list(range(6, 24))
    fill(outbox, 2)
    assert outbox.spooled_bytes == 0
    assert drain(outbox) == [24, 25]


def test_frames_are_taken_up_to_a_size_but_at_least_one(outbox: Outbox) -> None:
    outbox.append(b"x" * 1000)
    fill(outbox, 2)
    assert [len(numbered.frame) for numbered in outbox.take(10)] == [1000]
    outbox.release(1)
    assert seqs_of(outbox.take(SIZE + 1)) == [2, 3]


def test_a_frame_bigger_than_all_memory_is_kept_like_others(outbox: Outbox) -> None:
    outbox.append(b"x" * 100 * COST)
    fill(outbox, 1)
    outbox.append(b"y" * 100 * COST)
    fill(outbox, 1)
    assert drain(outbox) == [1, 2, 3, 4]


def test_what_is_taken_stays_until_it_is_released(outbox: Outbox) -> None:
    fill(outbox, 4)
    outbox.take(2 * SIZE)
    assert (len(outbox), outbox.empty) == (4, False)
    assert seqs_of(outbox.take(SIZE)) == [1, 2, 3]
    outbox.release(1)
    assert len(outbox) == 3
    assert seqs_of(outbox.take(SIZE)) == [2, 3, 4]
    outbox.release(3)
    assert outbox.empty


# -- bounds and accounts -------------------------------------------------------------------------


def test_memory_is_bounded_and_the_rest_is_on_disk(outbox: Outbox, budget: MemoryBudget) -> None:
    fill(outbox, 40)
    assert budget.used == LIMITS.outbox_memory_bytes + outbox._spool.memory_bytes
    assert (len(outbox), outbox.spooled_bytes >= 32 * SIZE) == (5, True)


def test_the_budget_is_shared(make: Callable[..., Outbox], budget: MemoryBudget) -> None:
    budget.limit = 7 * COST
    one, two, three = make(), make(), make()
    for outbox in (one, two, three):
        fill(outbox, 5)
    assert [len(outbox) for outbox in (one, two, three)] == [5, 2, 0]
    assert [drain(outbox) for outbox in (three, one, two)] == [[1, 2, 3, 4, 5]] * 3
    assert budget.used == 0


@pytest.mark.parametrize("released", [0, 1, 3])
def test_closing_gives_everything_back(
    outbox: Outbox, budget: MemoryBudget, tmp_path: Path, released: int
) -> None:
    fill(outbox, 40)
    outbox.take(3 * SIZE)
    outbox.release(released)
    outbox.close()
    assert budget.used == 0
    assert list(tmp_path.iterdir()) == []


def test_what_the_spool_gathers_is_in_memory_too(
    outbox: Outbox, make: Callable[..., Outbox], budget: MemoryBudget
) -> None:
    fill(outbox, 5)
    full = budget.used
    fill(outbox, 3)
    assert budget.used == full + 3 * SIZE
    fill(outbox, 1)
    assert budget.used == full
    fill(outbox, 2)
    outbox.begin(10)
    assert budget.used == COST
    assert drain(outbox) == [11]
    assert budget.used == 0


def test_resuming_clients_leave_no_debts(outbox: Outbox, budget: MemoryBudget) -> None:
    outbox.begin(0)
    fill(outbox, 30)
    drain(outbox)
    assert budget.used == 0
    outbox.begin(27)
    assert budget.used == 3 * COST
    outbox.take(2 * SIZE)
    outbox.begin(29)
    assert budget.used == COST
    assert drain(outbox) == [30]
    assert budget.used == 0


def test_beyond_the_disk_bound_stream_output_makes_way_with_a_notice(outbox: Outbox) -> None:
    fill(outbox, 5)
    fill(outbox, 60, "stream")
    fill(outbox, 1)
    read = []
    while taken := outbox.take(SIZE):
        read += taken
        outbox.release(len(taken))
    gone = outbox.dropped_frames
    assert gone
    assert seqs_of(read) == [1, 2, 3, 4, 5, 5 + gone, *range(6 + gone, 67)]
    assert read[5].frame == b"dropped %d frames, %d bytes" % (gone, gone * SIZE)


@pytest.mark.parametrize("kind", ["reply", "stream"])
def test_a_full_disk_stalls_nobody(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What could not be written is given at once, also when the disk had room for nothing."""
    disk = FillingDisk(monkeypatch)
    disk.full = True
    fill(outbox, 5)
    fill(outbox, 4, kind)
    fill(outbox, 4)
    assert disk.failures
    expected = [6, 7, 8, 9] if kind == "reply" else [9]
    assert drain(outbox) == [1, 2, 3, 4, 5, *expected, 10, 11, 12, 13]


# -- waking the reader ---------------------------------------------------------------------------


async def test_a_reader_wakes_up_for_a_frame_and_for_a_poke(
    outbox: Outbox, nursery: trio.Nursery
) -> None:
    woken = 0

    async def read() -> None:
        nonlocal woken
        while True:
            await outbox.wait()
            woken += 1

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    assert woken == 0
    fill(outbox, 2)
    await wait_all_tasks_blocked()
    assert woken == 1
    outbox.poke()
    await wait_all_tasks_blocked()
    assert woken == 2
    nursery.cancel_scope.cancel(reason="enough")


async def test_a_reader_that_goes_leaves_nothing_behind(outbox: Outbox) -> None:
    with trio.move_on_after(0):
        await outbox.wait()
    outbox.poke()
    fill(outbox, 1)
    assert drain(outbox) == [1]


# -- readers come and go -------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 2, 5])
@pytest.mark.parametrize("released", [0, 1, 2])
def test_the_next_reader_begins_with_what_the_last_one_did_not_finish(
    outbox: Outbox, taken: int, released: int
) -> None:
    fill(outbox, 12)
    outbox.take(taken * SIZE)
    outbox.release(min(released, taken))
    assert outbox.begin(None) is None
    assert drain(outbox) == list(range(min(released, taken) + 1, 13))


def test_nobody_gets_again_what_was_delivered_without_asking(outbox: Outbox) -> None:
    outbox.begin(0)
    fill(outbox, 4)
    drain(outbox)
    outbox.begin(None)
    fill(outbox, 1)
    assert drain(outbox) == [5]


@pytest.mark.parametrize("after", [2, 3, 4])
def test_a_client_resumes_within_what_was_delivered(outbox: Outbox, after: int) -> None:
    outbox.begin(0)
    fill(outbox, 4)
    drain(outbox)
    fill(outbox, 2)
    assert outbox.begin(after) is None
    assert drain(outbox) == list(range(after + 1, 7))


@pytest.mark.parametrize("after", [4, 5, 6])
def test_a_client_resumes_within_what_was_taken_and_waits(outbox: Outbox, after: int) -> None:
    outbox.begin(0)
    fill(outbox, 8)
    outbox.take(4 * SIZE)
    outbox.release(3)
    assert outbox.begin(after) is None
    assert drain(outbox) == list(range(after + 1, 9))


@pytest.mark.parametrize("after", range(5, 40, 3))
def test_a_client_resumes_within_what_is_on_disk(outbox: Outbox, after: int) -> None:
    fill(outbox, 40)
    assert outbox.begin(after) is None
    assert drain(outbox) == list(range(after + 1, 41))


def test_a_client_that_has_everything_gets_what_is_new(outbox: Outbox) -> None:
    fill(outbox, 40)
    assert outbox.begin(40) is None
    assert outbox.empty
    fill(outbox, 1)
    assert drain(outbox) == [41]


def test_a_client_that_comes_too_late_is_told_what_is_the_oldest(outbox: Outbox) -> None:
    outbox.begin(0)
    fill(outbox, 20)
    drain(outbox)
    assert outbox.begin(3) == 17
    assert drain(outbox) == [17, 18, 19, 20]


def test_what_a_client_did_not_resume_for_is_gone_for_the_next_one(outbox: Outbox) -> None:
    outbox.begin(None)
    fill(outbox, 3)
    drain(outbox)
    assert outbox.begin(1) == 4
    fill(outbox, 1)
    assert drain(outbox) == [4]


def test_a_number_of_another_life_costs_no_frame(outbox: Outbox) -> None:
    """The session may be another one of the same name."""
    outbox.begin(0)
    fill(outbox, 2)
    drain(outbox)
    fill(outbox, 10)
    assert outbox.begin(500) == 1
    assert drain(outbox) == list(range(1, 13))


def test_a_client_may_resume_more_than_once(outbox: Outbox) -> None:
    outbox.begin(0)
    fill(outbox, 10)
    drain(outbox)
    for after in (7, 8, 9):
        assert outbox.begin(after) is None
        assert drain(outbox) == list(range(after + 1, 11))


def test_a_gap_counts_as_the_last_frame_in_it(outbox: Outbox) -> None:
    fill(outbox, 5)
    fill(outbox, 60, "stream")
    gap = 5 + outbox.dropped_frames
    assert outbox.begin(5) == gap
    assert drain(outbox)[:2] == [gap, gap + 1]


def test_delivered_frames_are_kept_up_to_a_bound(outbox: Outbox) -> None:
    outbox.begin(0)
    outbox.append(b"x" * 10_000)
    drain(outbox)
    assert seqs_of(list(outbox._tail)) == [1]
    fill(outbox, 6)
    drain(outbox)
    assert seqs_of(list(outbox._tail)) == [4, 5, 6, 7]
    assert outbox._tail_bytes == 4 * COST
