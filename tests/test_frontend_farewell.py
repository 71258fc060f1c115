"""Dismissing a client: the frame that is half out, what waits, the last words, the close frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kallichore.frontend import Closed, Frontend, HalfClosed, PeerGone, Ping, Text
from kallichore.protocol.envelope import kernel_event
from tests.peers import MeteredPeer
from tests.serving_peers import (
    DEADLINES,
    LIMITS,
    Served,
    fill,
    left,
    numbers,
    outbox,
    serve,
    served,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kallichore.outbox import Outbox

    Serve = Callable[[MeteredPeer], None]

__all__ = ["outbox", "serve", "served"]

GOODBYE = kernel_event("clientDisconnected", "why")
FRAME = len(kernel_event("workingDirChanged", "1"))


def evict(served: Served) -> None:
    served.frontend.dismiss(1000, "why", GOODBYE, flush=False)


async def test_a_client_hears_last_words_and_a_close_frame(
    served: Served, serve: Serve, autojump_clock: MockClock
) -> None:
    peer = MeteredPeer()
    serve(peer)
    await wait_all_tasks_blocked()
    evict(served)
    await served.over.wait()
    assert peer.messages == [{"kind": "kernel", "clientDisconnected": "why"}]
    assert peer.close == (1000, "why")
    assert peer.lingered
    assert trio.current_time() == 0


async def test_a_client_that_resumes_hears_last_words_with_the_number_it_has(
    outbox: Outbox, serve: Serve, served: Served, autojump_clock: MockClock
) -> None:
    """Whoever resumes after that number misses nothing."""
    served.resuming = True
    peer = MeteredPeer(room=10 + 2 * (FRAME + len('"seq":1,')) + 1)
    serve(peer)
    await wait_all_tasks_blocked()
    fill(outbox, 5)
    await wait_all_tasks_blocked()
    evict(served)
    peer.take()
    await served.over.wait()
    *told, last = peer.messages
    assert last == {"seq": 3, "kind": "kernel", "clientDisconnected": "why"}
    assert [message["seq"] for message in told] == [1, 2, 3]
    assert left(outbox) == [4, 5]


@pytest.mark.parametrize("room", range(0, 3 * FRAME + 1, 7))
async def test_a_frame_that_is_half_out_is_finished_and_not_sent_again(
    outbox: Outbox, served: Served, serve: Serve, autojump_clock: MockClock, room: int
) -> None:
    """Wherever the write stood still, the next client begins where this one ended."""
    peer = MeteredPeer(room=10 + room)
    serve(peer)
    await wait_all_tasks_blocked()
    fill(outbox, 3)
    await wait_all_tasks_blocked()
    evict(served)
    peer.take()
    await served.over.wait()
    *told, last = peer.messages
    assert last == {"kind": "kernel", "clientDisconnected": "why"}
    read = [int(message["workingDirChanged"]) for message in told]
    assert read + left(outbox) == [1, 2, 3]
    assert len(read) == -(-room // FRAME)
    assert peer.close == (1000, "why")


@pytest.mark.parametrize("room", [0, 5, 15])
async def test_a_frame_that_cannot_be_finished_is_sent_again(
    outbox: Outbox, served: Served, serve: Serve, autojump_clock: MockClock, room: int
) -> None:
    peer = MeteredPeer(room=10 + FRAME + room)
    serve(peer)
    await wait_all_tasks_blocked()
    fill(outbox, 3)
    await wait_all_tasks_blocked()
    evict(served)
    await served.over.wait()
    assert trio.current_time() == DEADLINES.close_seconds
    assert numbers(peer) + left(outbox) == [1, 2, 3]
    assert peer.close is None


async def test_a_control_frame_that_is_half_out_is_finished_too(
    outbox: Outbox, served: Served, serve: Serve, autojump_clock: MockClock
) -> None:
    peer = MeteredPeer(room=3)
    serve(peer)
    peer.say(Ping(b"x" * 20))
    await wait_all_tasks_blocked()
    fill(outbox, 2)
    evict(served)
    peer.take()
    await served.over.wait()
    assert peer.messages == [{"kind": "kernel", "clientDisconnected": "why"}]
    assert peer.close == (1000, "why")
    assert left(outbox) == [1, 2]


async def test_a_connection_that_breaks_during_the_farewell_ends_it(
    outbox: Outbox, served: Served, serve: Serve, autojump_clock: MockClock
) -> None:
    for room in (10, 10 + FRAME // 2, 10 + FRAME):
        peer = MeteredPeer(room=room)
        serve(peer)
        await wait_all_tasks_blocked()
        fill(outbox, 1)
        await wait_all_tasks_blocked()
        evict(served)
        await wait_all_tasks_blocked()
        peer.vanish()
        await served.over.wait()
        assert peer.close is None
        assert numbers(peer) + left(outbox) == [outbox.last_seq]
        outbox.release(1)
        served.over = trio.Event()
    assert trio.current_time() == 0


async def test_a_client_that_nobody_follows_gets_all_that_waits(
    outbox: Outbox, served: Served, serve: Serve, autojump_clock: MockClock
) -> None:
    peer = MeteredPeer(room=10 + FRAME + 10)
    serve(peer)
    await wait_all_tasks_blocked()
    fill(outbox, 30)
    await wait_all_tasks_blocked()
    served.frontend.dismiss(1000, "the session was deleted")
    peer.take()
    await served.over.wait()
    assert numbers(peer) == list(range(1, 31))
    assert peer.close == (1000, "the session was deleted")
    assert outbox.empty


async def test_giving_all_that_waits_is_bounded_too(
    outbox: Outbox, served: Served, serve: Serve, autojump_clock: MockClock
) -> None:
    peer = MeteredPeer()
    serve(peer)
    await wait_all_tasks_blocked()
    peer.room = 10 * FRAME + 5
    fill(outbox, 30)
    served.frontend.dismiss(1001, "the server is shutting down")
    await served.over.wait()
    assert trio.current_time() == DEADLINES.close_seconds
    assert numbers(peer) + left(outbox) == list(range(1, 31))
    assert len(numbers(peer)) == 10
    assert peer.close is None


async def test_a_client_whose_task_is_cancelled_is_told_that_the_server_ends(
    outbox: Outbox, served: Served, autojump_clock: MockClock
) -> None:
    peer = MeteredPeer()
    async with trio.open_nursery() as tasks:
        tasks.start_soon(served.run, peer)
        await wait_all_tasks_blocked()
        fill(outbox, 3)
        tasks.cancel_scope.cancel(reason="the session ends")
    assert numbers(peer) == [1, 2, 3]
    assert peer.close == (1001, "the server is shutting down")


async def test_a_client_is_dismissed_once(
    served: Served, serve: Serve, autojump_clock: MockClock
) -> None:
    peer = MeteredPeer()
    serve(peer)
    await wait_all_tasks_blocked()
    evict(served)
    served.frontend.dismiss(1001, "again", GOODBYE)
    await served.over.wait()
    assert peer.close == (1000, "why")
    assert len(peer.messages) == 1


async def test_a_client_that_says_goodbye_first_is_not_dismissed(
    served: Served, serve: Serve, autojump_clock: MockClock
) -> None:
    peer = MeteredPeer(room=10)
    serve(peer)
    await wait_all_tasks_blocked()
    peer.say(Closed(1001, "mine"))
    await wait_all_tasks_blocked()
    evict(served)
    peer.take()
    await served.over.wait()
    assert (peer.texts, peer.close) == ([], (1001, "mine"))


async def test_a_client_may_be_dismissed_before_it_is_served(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    peer = MeteredPeer()
    fill(outbox, 2)
    frontend = Frontend(peer, outbox, print, LIMITS, DEADLINES, None)
    frontend.dismiss(1000, "why", GOODBYE, flush=False)
    await frontend.run()
    assert peer.messages == [{"kind": "kernel", "clientDisconnected": "why"}]
    assert left(outbox) == [1, 2]


async def test_the_outbox_is_free_while_the_peer_takes_its_time_to_hang_up(
    served: Served, serve: Serve, autojump_clock: MockClock
) -> None:
    class Lingering(MeteredPeer):
        async def linger(self) -> None:
            await trio.sleep_forever()

    serve(Lingering())
    await wait_all_tasks_blocked()
    evict(served)
    await served.frontend.released.wait()
    assert trio.current_time() == 0
    await served.over.wait()
    assert trio.current_time() == DEADLINES.close_seconds


async def test_a_message_that_cannot_be_handled_ends_the_client_with_a_close_frame(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    def hear(text: str | bytearray) -> None:
        raise ValueError(text)

    peer = MeteredPeer()
    peer.say(Text("boom"))
    frontend = Frontend(peer, outbox, hear, LIMITS, DEADLINES, None)
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="boom")):
        await frontend.run()
    assert peer.close == (1001, "the server is shutting down")


class HungUp(MeteredPeer):
    """It has written something, and takes nothing any more."""

    async def send(self, data: bytes) -> None:  # noqa: ARG002 (as the others)
        self.sent = 0
        raise PeerGone


async def test_what_a_peer_wrote_before_it_hung_up_is_heard(
    served: Served, serve: Serve, autojump_clock: MockClock
) -> None:
    peer = HungUp()
    peer.say(Text("last words"))
    peer.say(HalfClosed())
    serve(peer)
    await served.over.wait()
    assert served.said == ["last words"]
    assert trio.current_time() == 0


async def test_a_peer_that_takes_nothing_and_says_nothing_is_soon_dropped(
    served: Served, serve: Serve, autojump_clock: MockClock
) -> None:
    serve(HungUp())
    await served.over.wait()
    assert trio.current_time() == DEADLINES.close_seconds


async def test_a_slow_reader_gets_a_part_of_what_waits_and_a_close_frame(
    outbox: Outbox, served: Served, serve: Serve, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What it gets are whole frames; more would end in the middle of one, and without a word."""
    peer = MeteredPeer(room=0)

    async def read_slowly() -> None:
        while not served.over.is_set():
            peer.take(10 * FRAME + 7)
            await trio.sleep(DEADLINES.close_seconds / 10)

    serve(peer)
    await wait_all_tasks_blocked()
    fill(outbox, 1000, 20)
    served.frontend.dismiss(1000, "the session was deleted")
    nursery.start_soon(read_slowly)
    await served.over.wait()
    assert peer.close == (1000, "the session was deleted")
    given = numbers(peer)
    assert given == list(range(1, len(given) + 1))
    assert 20 < len(given) < 100
    assert left(outbox)[0] == len(given) + 1
    assert trio.current_time() < DEADLINES.close_seconds
