"""Clients that take over from each other (CONTRACT 5.1): one owner at any time, nothing lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kallichore.config import Deadlines, Limits
from kallichore.conversation import Conversation
from kallichore.frontend import Closed, Text
from kallichore.outbox import MemoryBudget
from kallichore.traffic import Traffic
from tests.peers import MeteredPeer
from tests.sweeping import CancelAtStep, EachStep, sweep

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = Limits(write_bytes=150)
DEADLINES = Deadlines()
EVICTION = "Another client is connecting to this session."

PACE_SECONDS = 0.1
HALF_A_FAREWELL_SECONDS = 0.5
"""On the mock clock, as everything here."""


def nothing() -> None:
    """Nobody listens here."""


class Talk:
    """A conversation whose frames say their own number."""

    def __init__(self, directory: Path) -> None:
        self.budget = MemoryBudget(10**6)
        self.peers: list[MeteredPeer] = []
        self.conversation = Conversation(
            "one",
            "user",
            LIMITS,
            DEADLINES,
            self.budget,
            Traffic(0),
            directory / "spool",
            nothing,
            nothing,
        )

    @property
    def connected(self) -> bool:
        return self.conversation.frontend is not None

    def say(self, count: int) -> None:
        for _ in range(count):
            self.conversation.announce("workingDirChanged", str(self.conversation.outbox.last_seq))

    async def attach(self, peer: MeteredPeer, after: int | None = None) -> None:
        self.peers.append(peer)
        await self.conversation.attach(peer, after)

    async def delivered(self) -> list[int]:
        """All numbers in the order in which clients got them, the last of whom comes now."""
        last = MeteredPeer()
        async with trio.open_nursery() as tasks:
            tasks.start_soon(self.attach, last)
            await wait_all_tasks_blocked()
            last.say(Closed(1000))
        assert not self.connected
        assert self.conversation.outbox.empty
        assert self.budget.used == 0
        frames = [message for peer in self.peers for message in peer.messages]
        told = [frame["workingDirChanged"] for frame in frames if "workingDirChanged" in frame]
        return [int(number) for number in told]


@pytest.fixture
async def talk(tmp_path: Path) -> Talk:
    return Talk(tmp_path)


def evicted(peer: MeteredPeer) -> bool:
    words = [message for message in peer.messages if "clientDisconnected" in message]
    assert words in ([], [{"kind": "kernel", "clientDisconnected": EVICTION}])
    if words:
        assert peer.messages[-1] == words[0]
        assert peer.close == (1000, EVICTION)
    return bool(words)


# -- one after the other -------------------------------------------------------------------------


async def test_the_newest_client_evicts_the_one_before(
    talk: Talk, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    first, second = MeteredPeer(), MeteredPeer()
    talk.say(2)
    nursery.start_soon(talk.attach, first)
    await wait_all_tasks_blocked()
    talk.say(1)
    await wait_all_tasks_blocked()
    nursery.start_soon(talk.attach, second)
    await wait_all_tasks_blocked()
    talk.say(1)
    await wait_all_tasks_blocked()
    assert (evicted(first), evicted(second)) == (True, False)
    assert (first.aborted, second.aborted) == (True, False)
    second.say(Closed(1000))
    assert await talk.delivered() == [0, 1, 2, 3]


async def test_a_client_that_leaves_by_itself_is_told_nothing(
    talk: Talk, autojump_clock: MockClock
) -> None:
    peer = MeteredPeer()
    peer.say(Closed(1001, "bye"))
    await talk.attach(peer)
    assert (evicted(peer), peer.close) == (False, (1001, "bye"))
    assert not talk.connected


async def test_an_old_client_that_does_not_read_holds_the_new_one_up_for_a_bounded_time(
    talk: Talk, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stalled, second = MeteredPeer(room=60), MeteredPeer()
    nursery.start_soon(talk.attach, stalled)
    await wait_all_tasks_blocked()
    talk.say(10)
    await wait_all_tasks_blocked()
    nursery.start_soon(talk.attach, second)
    await wait_all_tasks_blocked()
    assert second.texts == []
    await trio.sleep(DEADLINES.close_seconds)
    await wait_all_tasks_blocked()
    assert len(second.texts) + len(stalled.texts) == 10
    second.say(Closed(1000))
    assert await talk.delivered() == list(range(10))


async def test_a_frame_that_is_half_out_is_finished_for_the_old_client_only(
    talk: Talk, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    slow, second = MeteredPeer(room=80), MeteredPeer()
    nursery.start_soon(talk.attach, slow)
    await wait_all_tasks_blocked()
    talk.say(5)
    await wait_all_tasks_blocked()
    nursery.start_soon(talk.attach, second)
    await wait_all_tasks_blocked()
    slow.take()
    await wait_all_tasks_blocked()
    assert evicted(slow)
    assert [len(slow.messages) - 1, len(second.messages)] == [2, 3]
    second.say(Closed(1000))
    assert await talk.delivered() == list(range(5))


async def test_there_is_always_somebody_connected_during_a_takeover(
    talk: Talk, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Also when the old connection breaks just then, or says goodbye itself."""
    absent: list[int] = []
    looking = EachStep(lambda: None if talk.connected else absent.append(len(talk.peers)))
    nursery.start_soon(talk.attach, MeteredPeer())
    await wait_all_tasks_blocked()
    trio.lowlevel.add_instrument(looking)
    for end in ("stays", "breaks", "breaks first", "leaves", "leaves first"):
        old = talk.peers[-1]
        if end.endswith("first"):
            nursery.start_soon(talk.attach, MeteredPeer())
            await trio.lowlevel.checkpoint()
        if end.startswith("breaks"):
            old.vanish()
        elif end.startswith("leaves"):
            old.say(Closed(1000))
        if not end.endswith("first"):
            nursery.start_soon(talk.attach, MeteredPeer())
        await wait_all_tasks_blocked()
        assert old.aborted
    trio.lowlevel.remove_instrument(looking)
    assert absent == []
    talk.peers[-1].say(Closed(1000))
    await wait_all_tasks_blocked()
    assert not talk.connected


@pytest.mark.parametrize("room", [None, 100])
async def test_however_many_come_at_once_there_is_one_owner(
    talk: Talk, nursery: trio.Nursery, autojump_clock: MockClock, room: int | None
) -> None:
    async def talk_on() -> None:
        for _ in range(200):
            talk.say(1)
            await trio.sleep(PACE_SECONDS)

    nursery.start_soon(talk_on)
    for _ in range(50):
        nursery.start_soon(talk.attach, MeteredPeer(room=room))
    await trio.sleep(100)
    here = [peer for peer in talk.peers if not peer.aborted]
    assert len(here) <= 1
    for peer in here:
        peer.say(Closed(1000))
        peer.take()
    await wait_all_tasks_blocked()
    talk.peers.sort(key=talk_order)
    assert sorted(await talk.delivered()) == list(range(200))


def talk_order(peer: MeteredPeer) -> int:
    """Where a client came in, told by what it got; those that got nothing do not matter."""
    told = (message.get("workingDirChanged") for message in peer.messages)
    return int(next((number for number in told if number is not None), -1))


async def test_what_an_evicted_client_says_no_longer_counts(
    talk: Talk, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    first, second = MeteredPeer(), MeteredPeer()
    nursery.start_soon(talk.attach, first)
    await wait_all_tasks_blocked()
    nursery.start_soon(talk.attach, second)
    await wait_all_tasks_blocked()
    first.say(Text("nonsense"))
    second.say(Text("nonsense"))
    await wait_all_tasks_blocked()
    assert talk.conversation.counters.unusable_frames == 1
    second.say(Closed(1000))


# -- resuming ------------------------------------------------------------------------------------


async def test_a_client_resumes_where_it_was(
    talk: Talk, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    first, second = MeteredPeer(), MeteredPeer()
    nursery.start_soon(talk.attach, first, 0)
    talk.say(5)
    await wait_all_tasks_blocked()
    nursery.start_soon(talk.attach, second, 3)
    await wait_all_tasks_blocked()
    assert [message["seq"] for message in first.messages[:-1]] == [1, 2, 3, 4, 5]
    assert [message["seq"] for message in second.messages] == [4, 5]
    second.say(Closed(1000))


async def test_a_client_that_comes_too_late_is_told_so_first(
    talk: Talk, autojump_clock: MockClock
) -> None:
    peer = MeteredPeer()
    talk.say(3)
    await talk.delivered()
    talk.say(1)
    async with trio.open_nursery() as tasks:
        tasks.start_soon(talk.attach, peer, 1)
        await wait_all_tasks_blocked()
        peer.say(Closed(1000))
    assert peer.messages == [
        {"seq": 1, "kind": "kernel", "resumed": {"after": 1, "oldest": 4}},
        {"seq": 4, "kind": "kernel", "workingDirChanged": "3"},
    ]


# -- cancelled at every step ---------------------------------------------------------------------


@pytest.mark.parametrize("room", [None, 80])
@pytest.mark.parametrize("whose", ["new", "old"])
async def test_an_attach_may_be_cancelled_at_any_step(
    tmp_path: Path, autojump_clock: MockClock, room: int | None, whose: str
) -> None:
    """Whichever side of a takeover is cancelled, and whenever: one owner, nothing lost or twice."""
    runs = 0

    async def scenario(cancel: CancelAtStep, scope: trio.CancelScope) -> None:
        nonlocal runs
        runs += 1
        talk = Talk(tmp_path / str(runs))
        old, new = MeteredPeer(room=room), MeteredPeer(room=room)

        async def attach(peer: MeteredPeer, name: str) -> None:
            with scope if name == whose else trio.CancelScope():
                await talk.attach(peer)

        async with trio.open_nursery() as tasks:
            if whose == "old":
                trio.lowlevel.add_instrument(cancel)
            tasks.start_soon(attach, old, "old")
            talk.say(3)
            await wait_all_tasks_blocked()
            talk.say(3)
            if whose == "new":
                trio.lowlevel.add_instrument(cancel)
            tasks.start_soon(attach, new, "new")
            talk.say(3)
            await trio.lowlevel.checkpoint()
            talk.say(3)
            await trio.sleep(HALF_A_FAREWELL_SECONDS)
            assert not (old.aborted and new.aborted) or scope.cancel_called
            for peer in (old, new):
                peer.take(40)
            await trio.sleep(5)
            for peer in (new, old):
                peer.say(Closed(1000))
                peer.take()
        assert old.aborted
        assert new.aborted
        assert not talk.connected
        assert not talk.conversation._takeover.locked()
        evicted(old)
        assert not evicted(new)
        assert await talk.delivered() == list(range(12))

    assert await sweep(scenario) > 10
