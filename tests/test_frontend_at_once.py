"""What a waiting client gets in the very moment in which it comes, without the writer's turn."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from kallichore.frontend import Ping
from kallichore.outbox import MemoryBudget, Outbox
from kallichore.protocol.envelope import kernel_event
from kallichore.traffic import Traffic
from tests.peers import MeteredPeer
from tests.serving_peers import DEADLINES, LIMITS, Served, fill, left, numbers, served
from tests.spooling import notice

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["served"]

PING = 10
SHARED = 0.1
FRAME = len(kernel_event("workingDirChanged", "1"))


@pytest.fixture
def traffic() -> Traffic:
    return Traffic(SHARED)


@pytest.fixture
def outbox(traffic: Traffic, tmp_path: Path) -> Outbox:
    return Outbox(LIMITS, MemoryBudget(10**6), traffic, tmp_path / "spool", notice)


def burst(outbox: Outbox, count: int, *, hurry: bool = True) -> None:
    """Add frames as the end of an execution does."""
    outbox.begin_batch()
    fill(outbox, count)
    if hurry:
        outbox.hurry()
    outbox.end_batch()


async def waiting(nursery: trio.Nursery, served: Served, room: int | None = None) -> MeteredPeer:
    """Give a peer that has read everything, takes ``room`` more bytes, and is alone."""
    peer = MeteredPeer(None if room is None else PING + room)
    burst(served.outbox, 0)
    await trio.sleep(2 * SHARED)
    nursery.start_soon(served.run, peer)
    await wait_all_tasks_blocked()
    return peer


async def test_a_batch_that_hurries_is_written_at_once(
    outbox: Outbox, served: Served, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    peer = await waiting(nursery, served)
    before = peer.writes
    burst(outbox, 3)
    assert numbers(peer) == [1, 2, 3]
    assert outbox.empty
    await wait_all_tasks_blocked()
    assert peer.writes == before + 1


async def test_a_batch_within_a_batch_is_no_end(
    outbox: Outbox, served: Served, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    peer = await waiting(nursery, served)
    outbox.begin_batch()
    burst(outbox, 1)
    assert numbers(peer) == []
    fill(outbox, 1)
    outbox.end_batch()
    assert numbers(peer) == [1, 2]


async def test_the_writer_has_its_turn_when_nobody_hurries(
    outbox: Outbox, served: Served, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Saying so outside a batch means nothing, and one hurry is for one batch."""
    peer = await waiting(nursery, served)
    outbox.hurry()
    burst(outbox, 1, hurry=False)
    assert numbers(peer) == []
    await wait_all_tasks_blocked()
    assert numbers(peer) == [1]


async def test_the_writer_has_its_turn_in_company(
    outbox: Outbox,
    traffic: Traffic,
    served: Served,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    peer = await waiting(nursery, served)
    traffic.note("another session, or a request")
    burst(outbox, 1)
    assert numbers(peer) == []
    await wait_all_tasks_blocked()
    burst(outbox, 1)
    await wait_all_tasks_blocked()
    assert numbers(peer) == [1, 2]
    autojump_clock.jump(2 * SHARED)
    burst(outbox, 1)
    assert numbers(peer) == [1, 2, 3]


async def test_what_is_too_much_for_one_write_is_left_to_the_writer(
    outbox: Outbox, served: Served, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    peer = await waiting(nursery, served)
    count = 2 * LIMITS.write_bytes // FRAME
    burst(outbox, count)
    assert 0 < len(numbers(peer)) < count
    await wait_all_tasks_blocked()
    assert numbers(peer) == list(range(1, count + 1))


@pytest.mark.parametrize("room", range(0, 3 * FRAME, 7))
async def test_what_the_system_does_not_take_is_finished_by_the_writer(
    outbox: Outbox, served: Served, nursery: trio.Nursery, autojump_clock: MockClock, room: int
) -> None:
    """A pong that has come meanwhile stays out of the frame that is half out."""
    peer = await waiting(nursery, served, room)
    burst(outbox, 3)
    assert len(peer.taken) == PING + room
    peer.say(Ping(b"are you there?"))
    fill(outbox, 1)
    await wait_all_tasks_blocked()
    peer.take()
    await wait_all_tasks_blocked()
    assert numbers(peer) == [1, 2, 3, 4]
    assert peer.pongs == [b"are you there?"]
    assert outbox.empty


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("room", range(0, 3 * FRAME, 7))
async def test_a_dismissal_finishes_the_frame_that_is_half_out(
    outbox: Outbox,
    served: Served,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    room: int,
    waits: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    peer = await waiting(nursery, served, room)
    burst(outbox, 3)
    if waits:
        await wait_all_tasks_blocked()
    served.frontend.dismiss(1000, "why", kernel_event("clientDisconnected", "why"), flush=False)
    burst(outbox, 1)
    peer.take()
    await served.over.wait()
    *told, last = peer.messages
    assert last == {"kind": "kernel", "clientDisconnected": "why"}
    read = [int(message["workingDirChanged"]) for message in told]
    assert read + left(outbox) == [1, 2, 3, 4]
    assert len(read) == -(-room // FRAME)


async def test_a_connection_that_is_broken_is_found_out_by_the_writer(
    outbox: Outbox, served: Served, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    peer = await waiting(nursery, served)
    peer.vanish()
    burst(outbox, 2)
    await served.over.wait()
    assert trio.current_time() <= DEADLINES.close_seconds
    assert left(outbox) == [1, 2]


async def test_a_client_that_is_gone_is_not_kept(
    outbox: Outbox, served: Served, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """It may have half a message of a hundred megabytes."""
    peer = await waiting(nursery, served)
    gone = weakref.ref(peer)
    peer.vanish()
    await served.over.wait()
    del peer, served.frontend
    await wait_all_tasks_blocked()
    gc.collect()
    assert gone() is None


STEPS = st.one_of(
    st.tuples(st.just("burst"), st.integers(0, 9)),
    st.tuples(st.just("slow"), st.integers(0, 9)),
    st.tuples(st.just("take"), st.integers(0, 4 * FRAME)),
    st.tuples(st.just("ping"), st.integers(0, 9)),
    st.tuples(st.just("turn"), st.just(0)),
)


@given(steps=st.lists(STEPS, max_size=30), resuming=st.booleans())
def test_whatever_happens_everything_comes_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], *, resuming: bool
) -> None:
    spool = tmp_path_factory.getbasetemp() / "never-made"

    async def run() -> None:
        outbox = Outbox(LIMITS, MemoryBudget(10**6), Traffic(0), spool, notice)
        served = Served(outbox, resuming=resuming)
        async with trio.open_nursery() as nursery:
            peer = await waiting(nursery, served, 0)
            pings = 0
            for step, count in steps:
                match step:
                    case "burst" | "slow":
                        burst(outbox, count, hurry=step == "burst")
                    case "take":
                        peer.take(count)
                    case "ping":
                        peer.say(Ping(b"?"))
                        pings += 1
                    case _:
                        await wait_all_tasks_blocked()
            served.frontend.dismiss(1000, "why", flush=False)
            peer.take()
            await served.over.wait()
            assert numbers(peer) + left(outbox) == list(range(1, outbox.last_seq + 1))
            assert len(peer.pongs) <= pings
            assert peer.close == (1000, "why")

    trio.run(run, clock=MockClock(autojump_threshold=0))
