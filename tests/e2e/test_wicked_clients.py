"""Clients that misbehave (issue 6): each harms only itself, and nothing is lost for the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from kallichore.client import ChannelClosed
from kallichore.config import Deadlines, Limits, Transport
from kallichore.models import ExecuteRequest
from tests.listening import Ear, upgraded, word, words
from tests.puppets import start_puppet
from tests.serving import open_serving

if TYPE_CHECKING:
    from tests.serving import Serving

PACE = 0.02
"""Seconds between two reads of a slow client."""


def texts(frames: list[dict[str, object]]) -> list[str]:
    return [one["content"]["text"] for one in frames if word(one) == "iopub:stream"]  # type: ignore[index]


async def test_a_client_that_never_reads_is_dropped_in_the_end_and_loses_only_itself() -> None:
    deadlines = Deadlines(ping_seconds=0.1, ping_patience_seconds=0.4, close_seconds=0.1)
    async with open_serving(deadlines=deadlines) as serving:
        client = serving.client
        await start_puppet(client)
        async with await upgraded(serving.client):
            code = "for n in range(2000): say(f'{n:0500}')"
            await client.execute_code("one", ExecuteRequest(code=code))
            with trio.fail_after(3):
                while serving.supervisor.get("one").connected:
                    await serving.supervisor.activity.next()
        async with client.open_channel("one") as channel:
            frames = await Ear(channel).execute("say('2000')")
        numbers = [int(text) for text in texts(frames)]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == 2000
        lost = 2000 - len(numbers) + 1
        assert lost * 700 < 2 * 256 * 1024  # what the operating system had taken


async def test_a_client_that_reads_a_byte_at_a_time_is_no_dead_one() -> None:
    """It answers no ping; that it takes data counts."""
    deadlines = Deadlines(ping_seconds=0.1, ping_patience_seconds=0.4)
    async with open_serving(deadlines=deadlines, limits=Limits(send_buffer_bytes=4096)) as serving:
        client = serving.client
        await start_puppet(client)
        async with await upgraded(serving.client) as stream:
            code = "for n in range(1000): say(f'{n:0500}')"
            await client.execute_code("one", ExecuteRequest(code=code))
            began = trio.current_time()
            while trio.current_time() - began < 1:
                assert await stream.receive_some(2000)
                await trio.sleep(PACE)
            assert serving.supervisor.get("one").connected


async def test_a_client_that_vanishes_mid_frame_costs_the_next_one_nothing(
    both_ways: Serving,
) -> None:
    client = both_ways.client
    await start_puppet(client)
    session = both_ways.supervisor.get("one")
    async with client.open_channel("one") as channel:
        await Ear(channel).execute("pass")
        await trio.aclose_forcefully(channel._connection._stream)
        while session.connected:
            await both_ways.supervisor.activity.next()
        with pytest.raises(ChannelClosed):
            await channel.receive()
    await client.execute_code("one", ExecuteRequest(code="say('kept')"))
    async with client.open_channel("one") as channel:
        frames = await Ear(channel).execute("say('on')")
    assert texts(frames) == ["kept", "on"]


async def test_a_client_that_stops_sending_still_gets_what_is_in_flight(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    await client.execute_code("one", ExecuteRequest(code="for n in range(500): say(str(n))"))
    async with await upgraded(serving.client) as stream:
        await stream.send_eof()
        data = b"".join([bytes(chunk) async for chunk in stream])
    assert data.count(b'"stream"') == 500
    assert b"\x88\x02\x03\xe8" in data  # a close frame of code 1000


async def test_reconnecting_all_the_time_amid_a_flood_loses_nothing(serving: Serving) -> None:
    """A resuming client leaves and comes back a hundred times, wherever it is just then."""
    client = serving.client
    await start_puppet(client)
    async with trio.open_nursery() as nursery:
        code = "for n in range(5000): say(str(n))"
        nursery.start_soon(client.execute_code, "one", ExecuteRequest(code=code))
        heard: list[dict[str, object]] = []
        seq = connections = 0
        while not heard or "4999" not in texts(heard[-1:]):
            connections += 1
            async with client.open_channel("one", after=seq) as channel:
                ear = Ear(channel)
                while len(ear.heard) < 60 and "4999" not in texts(ear.heard[-1:]):
                    await ear.next()
                heard += ear.heard
                seq = channel.seq
    assert connections > 80
    assert [frame["seq"] for frame in heard] == list(range(1, len(heard) + 1))
    assert texts(heard) == [str(number) for number in range(5000)]


async def test_a_thousand_connections_opened_and_dropped_leave_nothing() -> None:
    async with open_serving(transport=Transport.TCP) as serving:
        port = int(serving.target.base_url.rpartition(":")[2])
        await start_puppet(serving.client)

        async def knock(number: int) -> None:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            if number % 3:
                await stream.send_all(b"GET /status HTTP/1.1\r\nHos"[: number % 30])
            await trio.aclose_forcefully(stream)

        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(knock, number)
        async with serving.client.open_channel("one") as channel:
            assert texts(await Ear(channel).execute("say('on')")) == ["on"]


async def test_every_end_but_a_broken_stream_begins_with_a_close_frame(
    both_ways: Serving,
) -> None:
    client = both_ways.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.execute("pass")
        await client.kill_session("one")
        await ear.until("exited=-1")
        await client.delete_session("one")
        with pytest.raises(ChannelClosed) as caught:
            await ear.next()
    assert caught.value.close_code == 1000
    assert words(ear.heard)[-2:] == ["status=exited", "exited=-1"]
