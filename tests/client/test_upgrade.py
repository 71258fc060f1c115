"""Channels that do not begin: refusals, hang-ups, silence and cancellation."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from kallichore.client import (
    Client,
    RequestFailed,
    ServerGone,
    SessionUnknown,
    Target,
    TokenRefused,
    UnexpectedAnswer,
)
from kallichore.client.upgrade import open_websocket
from kallichore.config import ClientBounds
from tests.client.fake_server import HANG_UP, FakeServer

CHANNELS = "/sessions/one/channels"


@pytest.mark.parametrize(
    ("refusal", "error"),
    [((401, b""), TokenRefused), ((404, b""), SessionUnknown), ((503, b"busy"), RequestFailed)],
)
async def test_a_refused_upgrade_is_a_refused_request(
    server: FakeServer, client: Client, refusal: tuple[int, bytes], error: type[Exception]
) -> None:
    server.refuse_upgrade = refusal
    with pytest.raises(error):
        async with client.open_channel("one"):
            pytest.fail("there is no channel")


async def test_a_refusal_tells_what_the_error_object_says(
    server: FakeServer, client: Client
) -> None:
    error = {"code": "server_stopping", "message": "The server is stopping"}
    server.refuse_upgrade = 503, json.dumps(error).encode()
    with pytest.raises(RequestFailed, match="The server is stopping") as caught:
        async with client.open_channel("one"):
            pytest.fail("there is no channel")
    assert caught.value.code == "server_stopping"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (HANG_UP, ServerGone),
        (b"SSH-2.0-OpenSSH\r\n\r\n", UnexpectedAnswer),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n", UnexpectedAnswer),
    ],
)
async def test_a_server_that_does_not_upgrade_is_not_waited_for(
    server: FakeServer, answer: bytes, error: type[Exception]
) -> None:
    server.raw[CHANNELS] = answer
    with trio.fail_after(5), pytest.raises(error):
        async with open_websocket(Target.parse(server.address), CHANNELS, ClientBounds()):
            pytest.fail("there is no channel")


async def test_a_server_that_never_answers_the_upgrade_is_given_up(server: FakeServer) -> None:
    server.silent.add(CHANNELS)
    with pytest.raises(ServerGone, match="did not open the channel"):
        async with open_websocket(
            Target.parse(server.address), CHANNELS, ClientBounds(upgrade_seconds=0.05)
        ):
            pytest.fail("there is no channel")
    await server.gone.wait()


async def test_cancelling_the_upgrade_closes_the_connection(
    server: FakeServer, nursery: trio.Nursery
) -> None:
    server.silent.add(CHANNELS)
    with trio.CancelScope() as scope:

        async def cancel() -> None:
            await server.asked.wait()
            scope.cancel(reason="the test wants it")

        nursery.start_soon(cancel)
        async with open_websocket(Target.parse(server.address), CHANNELS, ClientBounds()):
            pytest.fail("there is no channel")
    assert scope.cancelled_caught
    await server.gone.wait()
