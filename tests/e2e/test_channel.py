"""The channel as a session's client has it: takeover, backlog, resuming, buffers (CONTRACT 5)."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from kallichore.client import ChannelClosed, TakenOver
from kallichore.config import Limits
from kallichore.models import ExecuteRequest
from tests.listening import Ear, word, words
from tests.puppets import open_meeting, puppet, start_puppet
from tests.serving import open_serving

if TYPE_CHECKING:
    from kallichore.client import Channel
    from tests.serving import Serving


def texts(frames: list[dict[str, object]]) -> list[str]:
    return [one["content"]["text"] for one in frames if word(one) == "iopub:stream"]  # type: ignore[index]


async def closed_with(channel: Channel) -> ChannelClosed:
    """Read a channel to its end."""
    while True:
        try:
            await channel.receive()
        except ChannelClosed as closed:
            return closed


async def test_the_newest_client_evicts_the_one_before(both_ways: Serving) -> None:
    client = both_ways.client
    await start_puppet(client)
    async with client.open_channel("one") as old:
        ear = Ear(old)
        await ear.execute("say('1')")
        async with client.open_channel("one") as new:
            (*_, last) = await ear.until("clientDisconnected")
            assert last["clientDisconnected"] == "Another client is connecting to this session."
            closed = await closed_with(old)
            assert isinstance(closed, TakenOver)
            assert (await client.get_session("one")).connected
            frames = await Ear(new).execute("say('2')")
    assert texts(frames) == ["2"]


async def test_connected_stays_true_when_the_old_connection_ends_later(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as old, client.open_channel("one"):
        assert (await client.get_session("one")).connected
        await closed_with(old)
        assert (await client.get_session("one")).connected
    assert not (await client.get_session("one")).connected


async def test_fifty_clients_in_a_fight_leave_one_owner(serving: Serving) -> None:
    """All connect at once; each but the last is told that it has lost, and the last one works."""
    client = serving.client
    await start_puppet(client)
    lost: list[ChannelClosed] = []
    heard: list[list[str]] = []
    over = trio.Event()

    async def fight() -> None:
        async with client.open_channel("one") as channel:
            told = False
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when, over, nursery.cancel_scope)
                lost.append(await closed_with(channel))
                told = True
                if len(lost) == 49:
                    over.set()
                nursery.cancel_scope.cancel()
            if not told:
                heard.append(texts(await Ear(channel).execute("say('mine')")))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(fight)
    assert {type(closed) for closed in lost} == {TakenOver}
    assert heard == [["mine"]]


async def cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def test_what_a_client_misses_is_given_to_the_next_one_in_order(both_ways: Serving) -> None:
    client = both_ways.client
    await start_puppet(client)
    await client.execute_code("one", ExecuteRequest(code="for n in range(500): say(str(n))"))
    async with client.open_channel("one") as channel:
        frames = await Ear(channel).execute("say('500')")
    assert texts(frames) == [str(number) for number in range(501)]
    said = words(frames, "iopub")
    assert said[:2] == ["status=starting", "status=idle"]
    assert said[-1] == "iopub:status=idle"


async def test_a_backlog_on_disk_is_given_in_order_too() -> None:
    async with open_serving(limits=Limits(outbox_memory_bytes=50_000)) as serving:
        client = serving.client
        await start_puppet(client)
        code = "for n in range(2000): say(f'{n:0200}')"
        await client.execute_code("one", ExecuteRequest(code=code))
        assert serving.supervisor.get("one").talk.outbox.spooled_bytes > 500_000
        async with client.open_channel("one") as channel:
            frames = await Ear(channel).execute("say('2000')")
    assert [int(text) for text in texts(frames)] == list(range(2001))


async def test_beyond_the_disk_bound_the_oldest_output_makes_way_visibly() -> None:
    limits = Limits(
        outbox_memory_bytes=50_000, outbox_disk_bytes=200_000, outbox_segment_bytes=20_000
    )
    async with open_serving(limits=limits) as serving:
        client = serving.client
        await start_puppet(client)
        for number in range(4):
            code = f"for n in range(400): say(f'{{n:0200}}')\nshow({{'text/plain': '{number}'}})"
            await client.execute_code("one", ExecuteRequest(code=code))
        async with client.open_channel("one") as channel:
            frames = await Ear(channel).execute("say('end')")
    said = words(frames)
    assert said.count("iopub:execute_result") == 4
    assert said.count("shell:execute_reply=ok") == 5
    assert said.count("status=idle") == 6
    notices = [text for text in texts(frames) if "dropped" in text]
    assert notices
    assert len(texts(frames)) < 1600
    assert texts(frames)[-1] == "end"


@pytest.mark.parametrize("after", [0, None])
async def test_a_client_that_resumes_gets_numbers_and_others_do_not(
    both_ways: Serving, after: int | None
) -> None:
    client = both_ways.client
    await start_puppet(client)
    async with client.open_channel("one", after=after) as channel:
        frames = await Ear(channel).execute("say('1')")
    numbers = [frame.get("seq") for frame in frames]
    assert numbers == ([None] * len(frames) if after is None else list(range(1, len(frames) + 1)))


async def test_a_resuming_client_loses_nothing_and_gets_nothing_twice(both_ways: Serving) -> None:
    """It vanishes in the middle of a flood, again and again."""
    client = both_ways.client
    await start_puppet(client)
    async with open_meeting(both_ways.directory) as meeting, trio.open_nursery() as nursery:
        code = f"for n in range(3000): say(str(n))\nmeet({meeting.path!r})"
        nursery.start_soon(client.execute_code, "one", ExecuteRequest(code=code))
        heard: list[dict[str, object]] = []
        seq = 0
        while "2999" not in texts(heard):
            async with client.open_channel("one", after=seq) as channel:
                ear = Ear(channel)
                for _ in range(300):
                    heard.append(await ear.next())
                    if "2999" in texts(heard[-1:]):
                        break
                seq = channel.seq
        await meeting.pass_through()
    assert [int(text) for text in texts(heard)] == list(range(3000))
    assert [frame["seq"] for frame in heard] == list(range(1, len(heard) + 1))


async def test_a_client_that_resumes_too_late_is_told_what_is_gone() -> None:
    async with open_serving(limits=Limits(resume_tail_bytes=2000)) as serving:
        client = serving.client
        await start_puppet(client)
        async with client.open_channel("one", after=0) as channel:
            await Ear(channel).execute("for n in range(100): say(str(n))")
            last = channel.seq
        async with client.open_channel("one", after=3) as channel:
            ear = Ear(channel)
            gap = await ear.next()
            following = await ear.next()
    assert gap["resumed"]["after"] == 3
    assert 3 < gap["resumed"]["oldest"] <= last
    assert following["seq"] == gap["resumed"]["oldest"]


async def test_buffers_go_both_ways_untouched(both_ways: Serving) -> None:
    client = both_ways.client
    await start_puppet(client)
    sent = [bytes(range(256)), b"", b"\xff" * 1000]
    async with client.open_channel("one") as channel:
        await channel.request("comm_msg", {"comm_id": "c", "data": {"a": 1}}, buffers=sent)
        while True:
            message = await channel.receive()
            if getattr(message, "type", "") == "comm_msg":
                break
    assert message.buffers == [part[::-1] for part in sent]  # type: ignore[union-attr]
    assert message.content == {"comm_id": "c", "data": {"a": 1}}  # type: ignore[union-attr]


async def test_fifty_megabytes_go_both_ways(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    sent = bytes(50 * 1024 * 1024)
    async with client.open_channel("one") as channel:
        await channel.request("comm_msg", {"comm_id": "c", "data": {}}, buffers=[sent])
        while True:
            message = await channel.receive()
            if getattr(message, "type", "") == "comm_msg":
                break
    assert message.buffers == [sent]  # type: ignore[union-attr]


async def test_deleting_a_session_closes_its_channel_in_order(both_ways: Serving) -> None:
    client = both_ways.client
    await client.new_session(puppet())
    async with client.open_channel("one") as channel:
        await client.delete_session("one")
        assert (await closed_with(channel)).close_code == 1000


async def test_a_stop_of_the_server_closes_the_channel_as_going_away(both_ways: Serving) -> None:
    client = both_ways.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        await client.shutdown_server()
        ear = Ear(channel)
        await ear.until("exited=0")
        assert (await closed_with(channel)).close_code == 1001


async def test_a_slow_client_slows_neither_its_kernel_nor_others(serving: Serving) -> None:
    client = serving.client
    for name in ("one", "two"):
        await start_puppet(client, name)
    async with client.open_channel("one"), client.open_channel("two") as other:
        code = "for n in range(20000): say('x' * 1000)"
        await client.execute_code("one", ExecuteRequest(code=code))
        assert texts(await Ear(other).execute("say('quick')")) == ["quick"]
        outbox = serving.supervisor.get("one").talk.outbox
        assert outbox.spooled_bytes > 10_000_000


async def test_each_session_has_its_own_socket_and_keeps_it(serving: Serving) -> None:
    client = serving.client
    for name in ("one", "two"):
        await client.new_session(puppet(name))
    paths = [await client.channels_upgrade(name) for name in ("one", "two", "one")]
    assert paths[0] == paths[2] != paths[1]
    await client.delete_session("one")
    entries = {path.name for path in serving.directory.iterdir()}
    assert paths[0].rpartition("/")[2] not in entries
    assert paths[1].rpartition("/")[2] in entries


async def test_the_system_takes_little_of_what_a_client_has_not_read(both_ways: Serving) -> None:
    """At most 256 kB: that much is lost when a client vanishes (CONTRACT 5.4)."""
    client = both_ways.client
    await start_puppet(client)
    async with client.open_channel("one"):
        assert (await client.get_session("one")).connected
        frontend = both_ways.supervisor.get("one").talk.frontend
        assert frontend is not None
        taken = cast("Any", frontend)._peer._socket
        size = taken.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert 0 < size <= 256 * 1024
