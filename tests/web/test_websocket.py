"""A WebSocket after its handshake: what one read may bring, and how much of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, TextMessage
from wsproto.events import Pong as PongEvent

from kallichore.config import Limits
from kallichore.frontend import Closed, PeerGone, Text
from kallichore.web.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kallichore.frontend import HalfClosed, Ping, Pong

    Arrived = list[Text | Ping | Pong | Closed | HalfClosed]


def texts(*messages: str) -> bytes:
    """What a client sends."""
    client = Connection(ConnectionType.CLIENT)
    return b"".join(client.send(TextMessage(message)) for message in messages)


@asynccontextmanager
async def open_pair(
    limits: Limits, trailing: bytes = b""
) -> AsyncIterator[tuple[WebSocket, trio.SocketStream]]:
    ours, theirs = trio.socket.socketpair()
    websocket = WebSocket(trio.SocketStream(ours), trailing, limits)
    async with trio.SocketStream(theirs) as client:
        try:
            yield websocket, client
        finally:
            websocket.abort()


async def test_many_frames_that_come_at_once_come_in_portions() -> None:
    """Others have their turn in between, and the next read waits for the last portion."""
    wanted = [str(number) for number in range(10)]
    async with open_pair(Limits(frames_at_once=4)) as (websocket, client):
        await client.send_all(texts(*wanted))
        portions: list[Arrived] = []
        for _ in range(3):
            with trio.testing.assert_checkpoints():
                portions.append(await websocket.receive())
        assert [len(portion) for portion in portions] == [4, 4, 2]
        assert [event for portion in portions for event in portion] == [Text(w) for w in wanted]
        await client.send_all(texts("more"))
        assert await websocket.receive() == [Text("more")]


async def test_frames_that_came_with_the_upgrade_come_in_portions_too() -> None:
    async with open_pair(Limits(frames_at_once=2), texts("1", "2", "3")) as (websocket, _):
        assert await websocket.receive() == [Text("1"), Text("2")]
        assert await websocket.receive() == [Text("3")]


async def test_the_limit_of_a_message_counts_bytes() -> None:
    async with open_pair(Limits(client_message_bytes=8)) as (websocket, client):
        await client.send_all(texts("éééé", "ééééé"))
        assert await websocket.receive() == [
            Text("éééé"),
            Closed(1009, "a message may have at most 8 bytes"),
        ]


async def test_of_a_write_that_fails_nothing_counts_as_sent() -> None:
    async with open_pair(Limits()) as (websocket, client):
        await websocket.send(b"12345")
        assert websocket.sent == 5
        await client.aclose()
        with pytest.raises(PeerGone):
            await websocket.send(b"123")
        assert websocket.sent == 0


async def test_a_write_goes_on_when_there_is_room_again() -> None:
    data = bytes(4 * 2**20)
    got = 0
    async with open_pair(Limits()) as (websocket, client), trio.open_nursery() as nursery:
        nursery.start_soon(websocket.send, data)
        await trio.testing.wait_all_tasks_blocked()
        assert 0 < websocket.sent < len(data)
        while got < len(data):
            got += len(await client.receive_some(65536))
    assert websocket.sent == len(data)


async def test_a_close_frame_that_has_come_already_is_not_waited_for() -> None:
    """It may be behind more frames than are taken at once."""
    peer = Connection(ConnectionType.CLIENT)
    frames = [peer.send(TextMessage(str(number))) for number in range(5)]
    async with open_pair(Limits(frames_at_once=2)) as (websocket, client):
        await client.send_all(b"".join(frames) + peer.send(CloseConnection(1000)))
        await websocket.receive()
        await websocket.send(websocket.close_frame(1000, "enough"))
        with trio.fail_after(5):
            await websocket.linger()


async def test_a_close_frame_behind_a_long_text_that_is_half_here_is_found() -> None:
    peer = Connection(ConnectionType.CLIENT)
    frame = peer.send(TextMessage("x" * 300_000))
    async with open_pair(Limits()) as (websocket, client), trio.open_nursery() as nursery:
        await client.send_all(frame[:70_000])
        assert await websocket.receive() == []
        nursery.start_soon(client.send_all, frame[70_000:] + peer.send(CloseConnection(1000)))
        await websocket.send(websocket.close_frame(1000, "enough"))
        with trio.fail_after(5):
            await websocket.linger()


@pytest.mark.parametrize("text", ["x" * 10**6, "é" * 10**6])
async def test_a_long_text_comes_whole_and_what_follows_too(text: str) -> None:
    async with open_pair(Limits()) as (websocket, client), trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, texts("before", text, "after"))
        heard: list[str] = []
        with trio.fail_after(5):
            while len(heard) < 3:
                for event in await websocket.receive():
                    assert isinstance(event, Text)
                    heard.append(event.text if isinstance(event.text, str) else event.text.decode())
        assert heard == ["before", text, "after"]


async def test_a_long_text_that_is_no_utf8_is_refused_as_a_short_one_is() -> None:
    """At once, and whatever was said before."""
    peer = Connection(ConnectionType.CLIENT)
    frame = bytearray(peer.send(PongEvent(b"")) + peer.send(TextMessage("x" * 10**6)))
    frame[-1] ^= 0x80
    async with open_pair(Limits()) as (websocket, client), trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(frame))
        with trio.fail_after(5):
            while True:
                events = await websocket.receive()
                if events and isinstance(events[-1], Closed):
                    break
        assert events[-1].code == 1007
