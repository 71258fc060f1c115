"""Bytes that no client sends: whatever comes, the next caller is served."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kallichore.config import Deadlines, Limits, Transport
from tests.web.conftest import Front, open_front
from tests.web.wire import Wire, request, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator

IMPATIENT = Deadlines(linger_seconds=0.01, http_close_seconds=0.05, head_seconds=0.05)
GOOD = [
    request("GET", "/status"),
    request("PUT", "/sessions", b"{}"),
    request("POST", "/sessions/one/execute", b'{"code": "1"}'),
    request("POST", "/sessions/one/execute", headers={"Transfer-Encoding": "chunked"})
    + b'd\r\n{"code": "1"}\r\n0\r\n\r\n',
    upgrade("/sessions/one/channels?after=3") + b"\x81\x82\x00\x00\x00\x00{}",
]
DRIP_SECONDS = 0.05
PIECES = [b"\r\n", b"\n", b"\x00", b":", b" ", b"HTTP/1.1", b"\xff", b"Content-Length: 9\r\n", b"%"]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Good requests, cut, with pieces put in where they do not belong."""
    data = b"".join(draw(st.lists(st.sampled_from(GOOD), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 20)))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)))
        data = data[:start] + piece + data[end:]
    return data


@settings(max_examples=25)
@given(st.lists(damaged(), min_size=10, max_size=10))
def test_damaged_requests_trouble_nobody_else(requests: list[bytes]) -> None:
    trio.run(_send_all_of, requests)


async def _send_all_of(requests: list[bytes]) -> None:
    async with open_front(Transport.TCP, deadlines=IMPATIENT) as front:
        with errors_logged() as errors:
            async with trio.open_nursery() as nursery:
                for data in requests:
                    nursery.start_soon(_send, front, data)
            assert (await front.ask("GET", "/status")).status == 200
        assert errors == []


@contextlib.contextmanager
def errors_logged() -> Iterator[list[str]]:
    """What is logged as an error while the block runs."""
    messages: list[str] = []

    class Memory(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(self.format(record))

    memory = Memory(logging.ERROR)
    logging.getLogger().addHandler(memory)
    try:
        yield messages
    finally:
        logging.getLogger().removeHandler(memory)


async def _send(front: Front, data: bytes) -> None:
    """Send it, and read until the server has had enough."""
    wire = await front.connect()
    with contextlib.suppress(trio.BrokenResourceError):
        await wire.send(data)
        await wire.stream.send_eof()
        await wire.to_the_end()


async def test_many_connections_that_say_nothing_trouble_nobody() -> None:
    async with open_front(Transport.SOCKET, limits=Limits(connections=20)) as front:
        for _ in range(100):
            await front.connect()
        assert (await front.ask("GET", "/status")).status == 200


@pytest.mark.parametrize("size", [1, 7])
async def test_many_slow_heads_trouble_nobody(front: Front, size: int) -> None:
    head = request("GET", "/status")[:-2] + b"X: " + b"y" * 300
    wires = [await front.connect() for _ in range(50)]
    for start in range(0, len(head), size * 20):
        for wire in wires:
            await wire.send(head[start : start + size])
    assert (await front.ask("GET", "/status")).status == 200


async def test_slow_heads_on_every_place_delay_others_for_a_bounded_time() -> None:
    """Each byte comes in time, yet no head has more than its time as a whole."""
    deadlines = Deadlines(head_seconds=0.3, linger_seconds=0.01)
    async with open_front(
        Transport.SOCKET, limits=Limits(connections=5), deadlines=deadlines
    ) as front:

        async def drip(wire: Wire) -> None:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while True:
                    await wire.send(b"x")
                    await trio.sleep(DRIP_SECONDS)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(drip, await front.connect())
            with trio.fail_after(5):
                assert (await front.ask("GET", "/status")).status == 200
            nursery.cancel_scope.cancel()
