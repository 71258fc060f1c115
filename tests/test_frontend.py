"""A client on a session's channel: reading, writing, pings, and every way in which it may end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kallichore.frontend import Closed, HalfClosed, Ping, Pong, Text
from kallichore.protocol.envelope import kernel_event, with_seq
from tests.peers import MeteredPeer
from tests.serving_peers import DEADLINES, LIMITS, Served, fill, numbers, outbox, serve, served

if TYPE_CHECKING:
    from collections.abc import Callable

    from kallichore.outbox import Outbox

__all__ = ["outbox", "serve", "served"]

DONE = Closed(1000)

# -- in and out ----------------------------------------------------------------------------------


async def test_what_waits_and_what_comes_goes_out_in_order(
    outbox: Outbox, serve: Callable[[MeteredPeer], None], autojump_clock: MockClock
) -> None:
    peer = MeteredPeer()
    fill(outbox, 30)
    serve(peer)
    await wait_all_tasks_blocked()
    fill(outbox, 1)
    await wait_all_tasks_blocked()
    assert numbers(peer) == list(range(1, 32))
    assert outbox.empty


async def test_many_frames_share_a_write(
    outbox: Outbox, serve: Callable[[MeteredPeer], None], autojump_clock: MockClock
) -> None:
    peer = MeteredPeer()
    fill(outbox, 40)
    size = len(outbox._queue[0].frame)
    serve(peer)
    await wait_all_tasks_blocked()
    assert peer.writes <= 40 * size / LIMITS.write_bytes + 3


async def test_what_a_client_says_is_heard_in_order(
    served: Served, serve: Callable[[MeteredPeer], None], autojump_clock: MockClock
) -> None:
    peer = MeteredPeer()
    serve(peer)
    peer.say(Text("one"), Pong(), Text("two"))
    await wait_all_tasks_blocked()
    peer.say(Text("three"))
    await wait_all_tasks_blocked()
    assert served.said == ["one", "two", "three"]


async def test_a_client_that_resumes_gets_numbers(
    outbox: Outbox, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    fill(outbox, 3)
    peer, resuming = MeteredPeer(), Served(outbox, resuming=True)
    first = with_seq(kernel_event("resumed", {"after": 0, "oldest": 1}), 0)
    nursery.start_soon(resuming.run, peer, first)
    await wait_all_tasks_blocked()
    assert resuming.frontend.resuming
    assert list(peer.messages[0]) == ["seq", "kind", "resumed"]
    assert [message["seq"] for message in peer.messages] == [0, 1, 2, 3]


async def test_the_first_frame_comes_first_whatever_the_client_asks_for(
    outbox: Outbox, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    peer = MeteredPeer()
    peer.say(*(Ping(b"%d" % number) for number in range(50)))
    nursery.start_soon(Served(outbox).run, peer, kernel_event("exited", 0))
    await wait_all_tasks_blocked()
    assert peer.messages == [{"kind": "kernel", "exited": 0}]
    assert bytes(peer.taken).startswith(b"\x81")


async def test_a_ping_is_answered_between_two_writes(
    outbox: Outbox, serve: Callable[[MeteredPeer], None], autojump_clock: MockClock
) -> None:
    peer = MeteredPeer(room=300)
    fill(outbox, 20)
    serve(peer)
    await wait_all_tasks_blocked()
    peer.say(Ping(b"here?"))
    await wait_all_tasks_blocked()
    peer.take()
    await wait_all_tasks_blocked()
    assert peer.pongs == [b"here?"]
    assert numbers(peer) == list(range(1, 21))
    kinds = [type(event).__name__ for event in peer.events]
    assert kinds.index("Pong") < len(kinds) - 10


async def test_a_ping_that_comes_during_the_last_write_is_answered_at_once(
    serve: Callable[[MeteredPeer], None], autojump_clock: MockClock
) -> None:
    peer = MeteredPeer(room=0)
    serve(peer)
    await wait_all_tasks_blocked()
    peer.say(Ping(b"here?"))
    await wait_all_tasks_blocked()
    peer.take()
    await wait_all_tasks_blocked()
    assert peer.pongs == [b"here?"]
    assert trio.current_time() == 0


async def test_of_many_pings_the_last_few_are_answered(
    serve: Callable[[MeteredPeer], None], autojump_clock: MockClock
) -> None:
    peer = MeteredPeer(room=0)
    serve(peer)
    await wait_all_tasks_blocked()
    for start in range(0, 1000, 10):
        peer.say(*(Ping(b"%d" % number) for number in range(start, start + 10)))
        await wait_all_tasks_blocked()
    peer.take()
    await wait_all_tasks_blocked()
    assert peer.pongs == [b"996", b"997", b"998", b"999"]


# -- signs of life -------------------------------------------------------------------------------


async def test_pings_go_out_every_ten_seconds_with_a_counter(
    serve: Callable[[MeteredPeer], None], autojump_clock: MockClock
) -> None:
    peer = MeteredPeer()
    serve(peer)
    await trio.sleep(65)
    assert peer.pings == [number.to_bytes(8, "big") for number in range(1, 8)]
    assert not peer.aborted


async def test_a_client_that_shows_no_sign_of_life_is_dropped_after_forty_seconds(
    served: Served, serve: Callable[[MeteredPeer], None], autojump_clock: MockClock
) -> None:
    peer = MeteredPeer(answers=False)
    serve(peer)
    await served.over.wait()
    assert trio.current_time() == 40
    assert peer.close is None
    assert len(peer.pings) in {4, 5}


@pytest.mark.parametrize("event", [Pong(), Text("x"), Ping(b"")])
async def test_whatever_a_client_says_is_a_sign_of_life(
    served: Served,
    serve: Callable[[MeteredPeer], None],
    autojump_clock: MockClock,
    event: Pong | Text | Ping,
) -> None:
    peer = MeteredPeer(answers=False)
    serve(peer)
    await trio.sleep(35)
    peer.say(event)
    await served.over.wait()
    assert trio.current_time() == 75


async def test_part_of_a_long_message_is_a_sign_of_life(
    served: Served, serve: Callable[[MeteredPeer], None], autojump_clock: MockClock
) -> None:
    class Uploading(MeteredPeer):
        async def receive(self) -> list[Text | Ping | Pong | Closed | HalfClosed]:
            if trio.current_time() < 100:
                await trio.sleep(20)
                return []
            return await super().receive()

    serve(Uploading(answers=False))
    await served.over.wait()
    assert trio.current_time() == 140


async def test_a_client_that_takes_output_is_kept(
    outbox: Outbox,
    served: Served,
    serve: Callable[[MeteredPeer], None],
    autojump_clock: MockClock,
) -> None:
    serve(MeteredPeer(answers=False))
    for _ in range(10):
        await trio.sleep(30)
        fill(outbox, 1)
    await served.over.wait()
    assert trio.current_time() == 340


async def test_a_client_that_takes_a_long_frame_slowly_is_kept(
    outbox: Outbox,
    served: Served,
    serve: Callable[[MeteredPeer], None],
    autojump_clock: MockClock,
) -> None:
    peer = MeteredPeer(room=0, answers=False)
    fill(outbox, 1, size=100_000)
    fill(outbox, 1)
    serve(peer)
    for _ in range(20):
        await trio.sleep(30)
        peer.take(10)
    assert not peer.aborted
    peer.take()
    await trio.sleep(1)
    assert numbers(peer) == [1, 2]
    await served.over.wait()
    assert 640 <= trio.current_time() <= 643


async def test_a_client_that_stops_in_the_middle_of_a_frame_is_dropped(
    outbox: Outbox,
    served: Served,
    serve: Callable[[MeteredPeer], None],
    autojump_clock: MockClock,
) -> None:
    peer = MeteredPeer(room=100, answers=False)
    fill(outbox, 1, size=1000)
    serve(peer)
    await served.over.wait()
    assert trio.current_time() == 40
    assert not outbox.empty
    assert outbox.begin(None) is None
    assert [numbered.seq for numbered in outbox.take(1)] == [1]


# -- goodbye by the client -----------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "leaving"), (1002, "bad")])
async def test_a_close_frame_is_echoed(
    served: Served,
    serve: Callable[[MeteredPeer], None],
    autojump_clock: MockClock,
    code: int,
    reason: str,
) -> None:
    peer = MeteredPeer()
    serve(peer)
    peer.say(Text("last"), Closed(code, reason))
    await served.over.wait()
    assert served.said == ["last"]
    assert peer.close == (code, reason)
    assert peer.lingered


async def test_what_waits_when_a_client_says_goodbye_is_for_the_next_one(
    outbox: Outbox,
    served: Served,
    serve: Callable[[MeteredPeer], None],
    autojump_clock: MockClock,
) -> None:
    peer = MeteredPeer(room=0)
    serve(peer)
    fill(outbox, 5)
    await wait_all_tasks_blocked()
    peer.say(DONE)
    await wait_all_tasks_blocked()
    peer.take()
    await served.over.wait()
    assert (peer.texts, peer.close) == ([], (1000, ""))
    outbox.begin(None)
    assert [numbered.seq for numbered in outbox.take(10_000)] == [1, 2, 3, 4, 5]


async def test_a_client_that_closes_its_sending_side_gets_what_is_in_flight(
    outbox: Outbox,
    served: Served,
    serve: Callable[[MeteredPeer], None],
    autojump_clock: MockClock,
) -> None:
    peer = MeteredPeer(room=0)
    fill(outbox, 20)
    serve(peer)
    await wait_all_tasks_blocked()
    peer.say(HalfClosed())
    await wait_all_tasks_blocked()
    peer.take()
    await served.over.wait()
    assert numbers(peer) == list(range(1, 21))
    assert peer.close == (1000, "")
    assert outbox.empty


async def test_a_half_closed_client_that_does_not_read_is_not_waited_for_long(
    outbox: Outbox,
    served: Served,
    serve: Callable[[MeteredPeer], None],
    autojump_clock: MockClock,
) -> None:
    peer = MeteredPeer(room=0)
    fill(outbox, 20)
    serve(peer)
    peer.say(HalfClosed())
    await served.over.wait()
    assert trio.current_time() == 2 * DEADLINES.close_seconds
    outbox.begin(None)
    assert outbox.take(1)[0].seq == 1


@pytest.mark.parametrize("room", [None, 0, 50, 100])
async def test_a_connection_that_breaks_leaves_what_it_did_not_take(
    outbox: Outbox,
    served: Served,
    serve: Callable[[MeteredPeer], None],
    autojump_clock: MockClock,
    room: int | None,
) -> None:
    peer = MeteredPeer(room=room)
    fill(outbox, 10)
    serve(peer)
    await wait_all_tasks_blocked()
    peer.vanish()
    await served.over.wait()
    assert peer.close is None
    outbox.begin(None)
    left = [numbered.seq for numbered in outbox.take(10_000)]
    assert numbers(peer) + left == list(range(1, 11))
    assert trio.current_time() == 0
