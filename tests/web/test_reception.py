"""The accept loop: its bounds, its end, and what it survives."""

from __future__ import annotations

import errno
import gc
import socket
from contextlib import ExitStack

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kallichore.config import Limits, Transport
from tests.web.conftest import Front, open_front
from tests.web.wire import request, upgrade

STATUS = request("GET", "/status")
EXECUTE = request("POST", "/sessions/one/execute", b'{"code": "1"}')
LARGE = 16 * 1024 * 1024
BOTH = pytest.mark.parametrize("transport", [Transport.TCP, Transport.SOCKET])


async def closes_within(front: Front, seconds: float) -> None:
    """The door closes, and no sooner than it has to nor later than it may."""
    front.door.close()
    with trio.fail_after(seconds):
        await front.closed.wait()


async def test_an_idle_connection_does_not_delay_the_end(front: Front) -> None:
    wires = [await front.connect() for _ in range(3)]
    for wire in wires[:2]:
        assert (await wire.ask(STATUS)).status == 200
    await closes_within(front, 0.15)
    assert await wires[0].to_the_end() == b""


async def test_a_peer_that_stopped_reading_does_not_block_the_end(front: Front) -> None:
    """Hypercorn shields its writes without limit: only closing the socket ends them."""
    front.session.display_name = "x" * LARGE
    wire = await front.connect()
    await wire.send(request("GET", "/sessions/one"))
    await wire.once()
    await wait_all_tasks_blocked()
    await closes_within(front, 1)


async def test_a_peer_that_stopped_reading_does_not_block_a_cancellation() -> None:
    async with open_front(Transport.SOCKET) as front:
        front.session.display_name = "x" * LARGE
        wire = await front.connect()
        await wire.send(request("GET", "/sessions/one"))
        await wire.once()
        await wait_all_tasks_blocked()
        with trio.fail_after(1):
            front.scope.cancel()
            await front.closed.wait()


async def test_a_running_exchange_gets_its_moment(front: Front) -> None:
    front.session.gate = trio.Event()
    wire = await front.connect()
    await wire.send(EXECUTE)
    await front.session.arrived.wait()
    front.door.close()
    await wait_all_tasks_blocked()
    front.session.gate.set()
    assert (await wire.answer()).status == 200
    assert await wire.to_the_end() == b""


async def test_an_exchange_without_end_is_cut_off(front: Front) -> None:
    front.session.gate = trio.Event()
    wire = await front.connect()
    await wire.send(EXECUTE)
    await front.session.arrived.wait()
    await closes_within(front, 1)
    assert front.session.cancelled.is_set()


async def test_half_a_head_and_half_a_body_do_not_block_the_end(front: Front) -> None:
    for data in (b"GET /sta", EXECUTE[:-1], request("GET", "/x", headers={"Expect": "x"})[:-1]):
        wire = await front.connect()
        await wire.send(data)
    await wait_all_tasks_blocked()
    await closes_within(front, 1)


async def test_nobody_else_comes_in_at_the_end(front: Front) -> None:
    front.session.gate = trio.Event()
    wire = await front.connect()
    await wire.send(EXECUTE)
    await front.session.arrived.wait()
    front.door.close()
    await wait_all_tasks_blocked()
    with pytest.raises(OSError, match=r"refused|attempts to connect"):
        await front.connect()


async def test_a_failure_ends_its_own_connection_only(
    tcp: Front, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one with nothing of ours around it, as a channel has."""
    tcp.session.error = RuntimeError("a fault of ours")
    wire = await tcp.connect()
    assert (await wire.ask(upgrade("/sessions/one/channels"))).status == 101
    assert await wire.to_the_end() == b""
    assert "a fault of ours" in caplog.text
    assert (await tcp.ask("GET", "/status")).status == 200


@BOTH
async def test_beyond_the_limit_the_oldest_idle_connection_makes_way(transport: Transport) -> None:
    async with open_front(transport, limits=Limits(connections=3)) as front:
        wires = [await front.connect() for _ in range(3)]
        for wire in wires:
            await wire.ask(STATUS)
        assert (await front.ask("GET", "/status")).status == 200
        assert await wires[0].to_the_end() == b""
        assert (await wires[1].ask(STATUS)).status == 200


async def test_beyond_the_limit_of_busy_connections_the_next_waits() -> None:
    async with open_front(Transport.SOCKET, limits=Limits(connections=2)) as front:
        front.session.gate = trio.Event()
        busy = [await front.connect() for _ in range(2)]
        for wire in busy:
            await wire.send(EXECUTE)
        await front.session.arrived.wait()
        late = await front.connect()
        await late.send(STATUS)
        await wait_all_tasks_blocked()
        front.session.gate.set()
        await busy[0].answer()
        assert (await late.answer()).status == 200


async def test_channels_take_no_places() -> None:
    async with open_front(Transport.TCP, limits=Limits(connections=1)) as front:
        for _ in range(3):
            wire = await front.connect()
            assert (await wire.ask(upgrade("/sessions/one/channels"))).status == 101
        assert (await front.ask("GET", "/status")).status == 200


class Turns(trio.abc.Instrument):
    """Counts the turns of the loop, each of which is long when kernels flood."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 (Trio's interface)
        self.count += 1


@BOTH
async def test_a_crowd_that_waits_costs_the_next_one_few_turns(transport: Transport) -> None:
    turns = Turns()
    async with open_front(transport) as front:
        late = await front.connect()
        await late.ask(STATUS)
        family = socket.AF_UNIX if isinstance(front.address, str) else socket.AF_INET
        crowd = [socket.socket(family) for _ in range(120)]
        with ExitStack() as stack:
            for one in crowd:
                stack.enter_context(one)
                one.connect(front.address)  # nobody accepts it yet: this blocks the loop
            late = await front.connect()
            trio.lowlevel.add_instrument(turns)
            assert (await late.ask(STATUS)).status == 200
            trio.lowlevel.remove_instrument(turns)
    assert turns.count < 20


async def test_running_out_of_descriptors_is_survived(
    unix: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept, failures = trio.SocketListener.accept, [errno.EMFILE, errno.ENFILE]

    async def failing(self: trio.SocketListener) -> trio.SocketStream:
        await trio.lowlevel.wait_readable(self.socket)
        if failures:
            raise OSError(failures.pop(), "no room")
        return await accept(self)

    monkeypatch.setattr(trio.SocketListener, "accept", failing)
    for _ in range(2):  # the first meets an `accept` from before
        assert (await unix.ask("GET", "/status")).status == 200
    assert failures == []
    assert "no room" in caplog.text


async def test_connections_that_come_and_go_leave_nothing(front: Front) -> None:
    before = len(open_sockets())
    for _ in range(200):
        wire = await front.connect()
        await wire.stream.aclose()
    front.wires.clear()
    assert (await front.ask("GET", "/status")).status == 200
    front.wires.clear()
    gc.collect()
    await wait_all_tasks_blocked()
    assert len(open_sockets()) == before


def open_sockets() -> list[socket.socket]:
    gc.unfreeze()  # the server has frozen what there was when it had loaded everything
    return [s for s in gc.get_objects() if isinstance(s, socket.socket) and s.fileno() >= 0]


async def test_no_delay_is_set_on_tcp(tcp: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[trio.SocketStream] = []
    send_all = trio.SocketStream.send_all

    async def remember(self: trio.SocketStream, data: bytes) -> None:
        streams.append(self)
        await send_all(self, data)

    monkeypatch.setattr(trio.SocketStream, "send_all", remember)
    wire = await tcp.connect()
    await wire.ask(STATUS)
    ours = next(stream for stream in streams if stream is not wire.stream)
    assert ours.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
