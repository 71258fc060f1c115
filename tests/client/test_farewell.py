"""How a channel's block ends: errors, cancellation, and the close handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from wsproto.events import CloseConnection

from kallichore.client import (
    Client,
    Target,
)
from kallichore.config import ClientBounds

if TYPE_CHECKING:
    from tests.client.fake_server import FakeChannel, FakeServer


async def idle_until_closed(channel: FakeChannel) -> None:
    await channel.wait_closed()


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt(), SystemExit(3)])
async def test_an_error_in_the_block_comes_out_bare_and_with_its_own_cause(
    server: FakeServer, client: Client, error: BaseException
) -> None:
    server.script = idle_until_closed
    cause = ValueError()

    async def fail() -> None:
        async with client.open_channel("one"):
            raise error from cause

    with pytest.raises(type(error)) as caught:
        await fail()
    assert caught.value is error
    assert error.__cause__ is cause


async def test_cancelling_the_block_says_farewell(server: FakeServer, client: Client) -> None:
    heard = trio.Event()

    async def script(channel: FakeChannel) -> None:
        await channel.wait_closed()
        heard.set()

    server.script = script
    with trio.CancelScope() as scope:
        async with client.open_channel("one"):
            scope.cancel(reason="the test wants it")
            await trio.sleep_forever()
    assert scope.cancelled_caught
    await heard.wait()


async def test_a_ping_that_crosses_our_close_frame_does_no_harm(server: FakeServer) -> None:
    async def script(channel: FakeChannel) -> None:
        event = await channel.receive()
        assert isinstance(event, CloseConnection)
        # The frame by hand: wsproto would not ping after a close frame either.
        await channel.stream.send_all(b"\x89\x00")
        await channel.stream.send_all(channel.connection.send(event.response()))
        await server.gone.wait()

    server.script = script
    with trio.fail_after(5):
        async with (
            Client(Target.parse(server.address), ClientBounds(close_seconds=60)) as client,
            client.open_channel("one"),
        ):
            pass
    server.gone.set()


async def test_a_farewell_nobody_answers_is_bounded(server: FakeServer) -> None:
    async def script(channel: FakeChannel) -> None:
        with trio.CancelScope(shield=True):
            await server.gone.wait()

    server.script = script
    bounds = ClientBounds(close_seconds=0.05)
    async with Client(Target.parse(server.address), bounds) as client:
        async with client.open_channel("one"):
            pass
        server.gone.set()
