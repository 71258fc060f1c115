"""Clients that misbehave (issue 6): each harms only itself, and nothing is lost for the next."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from kallichore.client import ChannelClosed
from kallichore.config import Deadlines, Limits, Transport
from kallichore.models import ExecuteRequest
from tests.listening import UPGRADE, Ear, upgraded, word, words
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
    deadlines = Deadlines(ping_seconds=0.1, ping_patience_seconds=1)
    async with open_serving(deadlines=deadlines, limits=Limits(send_buffer_bytes=4096)) as serving:
        client = serving.client
        await start_puppet(client)
        async with await upgraded(serving.client) as stream:
            code = "for n in range(1000): say(f'{n:0500}')"
            await client.execute_code("one", ExecuteRequest(code=code))
            began = trio.current_time()
            while trio.current_time() - began < 1.5:
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


async def glimpse(path: str, after: int, count: int) -> list[dict[str, object]]:
    """Resume, take some frames, and vanish wherever the stream is just then."""
    parser = Connection(ConnectionType.CLIENT)
    frames: list[dict[str, object]] = []
    text, data = "", b""
    stream = await trio.open_unix_socket(path)
    try:
        await stream.send_all(UPGRADE.replace(b"/any", b"/any?after=%d" % after))
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some(4096)
        parser.receive_data(data.partition(b"\r\n\r\n")[2])
        while True:
            for event in parser.events():
                if isinstance(event, TextMessage):
                    text += event.data
                    if event.message_finished:
                        frames.append(json.loads(text))
                        text = ""
            if len(frames) >= count or "4999" in texts(frames):
                return frames
            parser.receive_data(await stream.receive_some(4096))
    finally:
        await trio.aclose_forcefully(stream)


async def test_reconnecting_all_the_time_amid_a_flood_loses_nothing() -> None:
    """A resuming client vanishes and comes back 500 times, amid frames."""
    async with open_serving(limits=Limits(write_bytes=4096)) as serving:
        client = serving.client
        await start_puppet(client)
        path = await client.channels_upgrade("one")
        async with trio.open_nursery() as nursery:
            code = "for n in range(5000): say(str(n))"
            nursery.start_soon(client.execute_code, "one", ExecuteRequest(code=code))
            heard: list[dict[str, object]] = []
            connections = 0
            while "4999" not in texts(heard[-50:]):
                connections += 1
                heard += await glimpse(path, len(heard), 3)
    assert connections > 500
    assert [frame["seq"] for frame in heard] == list(range(1, len(heard) + 1))
    assert texts(heard) == [str(number) for number in range(5000)]
    assert words(heard).count("resumed") == 0


async def test_fifty_clients_that_fight_for_a_session_share_what_it_says(
    both_ways: Serving,
) -> None:
    """Each evicts the one before, all at once; the last one has the session, and it works."""
    client = both_ways.client
    await start_puppet(client)
    heard: list[list[dict[str, object]]] = []
    left: list[tuple[int, str]] = []
    all_came = trio.Event()

    async def fight() -> None:
        async with client.open_channel("one") as channel:
            ear = Ear(channel)
            heard.append(ear.heard)
            if len(heard) == 50:
                all_came.set()
            try:
                await ear.until("an end that never comes")
            except ChannelClosed as end:
                left.append((end.close_code or 0, words(ear.heard[-1:])[0]))

    async with trio.open_nursery() as nursery:
        code = "for n in range(2000): say(str(n))"
        nursery.start_soon(client.execute_code, "one", ExecuteRequest(code=code))
        for _ in range(50):
            nursery.start_soon(fight)
        await all_came.wait()
        async with client.open_channel("one") as channel:
            last = Ear(channel)
            heard.append(last.heard)
            await last.execute("say('2000')")
    assert left == [(1000, "clientDisconnected")] * 50
    told = [int(text) for frames in heard for text in texts(frames)]
    assert sorted(told) == list(range(2001))
    for frames in heard:
        assert [int(text) for text in texts(frames)] == sorted(int(text) for text in texts(frames))


async def test_ten_thousand_connections_opened_and_dropped_leave_nothing() -> None:
    async with open_serving(transport=Transport.TCP) as serving:
        port = int(serving.target.base_url.rpartition(":")[2])
        await start_puppet(serving.client)
        for number in range(10_000):
            with socket.create_connection(("127.0.0.1", port)) as knock:
                if number % 3:
                    knock.send(b"GET /status HTTP/1.1\r\nHos"[: number % 30])
                if number % 2:  # a reset instead of an orderly end
                    knock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1] + [0] * 7))
            if number % 100 == 99:
                await trio.testing.wait_all_tasks_blocked()
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
