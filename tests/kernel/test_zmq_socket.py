"""A ZeroMQ socket under Trio misses no edge of its descriptor, whoever touches it and when."""

from __future__ import annotations

import random

import pytest
import trio
import zmq

from kallichore.config import Limits
from kallichore.kernel.zmq_socket import ZmqSocket
from kallichore.traffic import Traffic

MESSAGES = 600
LIMITS = Limits(batch_messages=5)
Socket = zmq.Socket[bytes]


def parrot(router: Socket, chance: random.Random) -> None:
    """Answer everything, in bunches, until told to stop."""
    kept: list[list[bytes]] = []
    while True:
        if router.poll(2 if kept else None):
            kept.append(router.recv_multipart())
            if kept[-1][-1] == b"stop":
                return
        if chance.random() < 0.5 or not router.poll(0):
            for frames in kept:
                router.send_multipart(frames)
            kept.clear()


class Talker:
    """Sends, drains and listens whenever chance will have it; the parrot is its kernel."""

    def __init__(self, dealer: Socket, chance: random.Random) -> None:
        self.chance = chance
        self.sent = 0
        self.heard: list[int] = []
        self.more = trio.Event()
        self.socket = ZmqSocket(dealer, LIMITS, self.hear)

    def hear(self, batch: list[list[bytes]]) -> None:
        self.heard += [int(frames[-1]) for frames in batch]
        self.more.set()
        self.more = trio.Event()
        if self.chance.random() < 0.2:
            self.send()  # as a reply lets the next request go

    def send(self) -> None:
        if self.sent < MESSAGES:
            assert self.socket.send([b"frame", b"%d" % self.sent])
            self.sent += 1

    async def talk(self) -> None:
        while len(self.heard) < MESSAGES:
            for _ in range(self.chance.choice([0, 1, 1, 2, 9])):
                self.send()
            if self.chance.random() < 0.3:
                self.socket.drain()
            if self.chance.random() < 0.1 or self.sent == MESSAGES:
                # Until everything is back nobody touches the socket: an edge missed is a deadline.
                while len(self.heard) < self.sent:
                    await self.more.wait()
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("seed", range(6))
async def test_everything_is_received_whoever_sends_and_drains(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (it is to be the same each time)
    with zmq.Context() as context, trio.fail_after(20):
        router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        dealer.connect(f"tcp://127.0.0.1:{port}")
        talker = Talker(dealer, chance)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, parrot, router, chance)
            async with trio.open_nursery() as pump:
                pump.start_soon(talker.socket.run)
                try:
                    await talker.talk()
                finally:
                    dealer.send_multipart([b"frame", b"stop"])
                    pump.cancel_scope.cancel(reason="everything is heard")
        talker.socket.close()
        router.close(0)
    assert talker.heard == list(range(MESSAGES))


class Listener:
    """Subscribed to a kernel that talks as fast as it can."""

    def __init__(self, context: zmq.Context[Socket], limits: Limits) -> None:
        self.kernel, subscriber = context.socket(zmq.XPUB), context.socket(zmq.SUB)
        self.kernel.set(zmq.SNDHWM, 0)
        self.kernel.set(zmq.LINGER, 0)
        port = self.kernel.bind_to_random_port("tcp://127.0.0.1")
        subscriber.set(zmq.RCVHWM, limits.iopub_messages)
        subscriber.set(zmq.SUBSCRIBE, b"")
        subscriber.connect(f"tcp://127.0.0.1:{port}")
        self.kernel.recv()
        self.subscriber = subscriber
        self.heard: list[int] = []
        self.more = trio.Event()
        self.batches: list[int] = []
        self.traffic = Traffic(3600)
        self.socket = ZmqSocket(subscriber, limits, self.hear, self.traffic, limits.iopub_messages)

    def hear(self, batch: list[list[bytes]]) -> None:
        self.heard += [int(frames[-1][:6]) for frames in batch]
        self.batches.append(len(batch))
        self.more.set()
        self.more = trio.Event()

    async def flood(self, count: int, size: int) -> int:
        """Have it all said, and hear it; what libzmq then keeps at most."""
        begin = len(self.heard)
        for number in range(begin, begin + count):
            self.kernel.send((b"%06d" % number).ljust(size, b"."))
        while len(self.heard) < begin + count:
            await self.more.wait()
        return int(self.subscriber.get(zmq.RCVHWM))


FLOODED = Limits(iopub_bytes=3_000_000, iopub_messages_least=200)


async def test_libzmq_keeps_fewer_messages_of_a_flood_that_are_big() -> None:
    """Small ones, or a few big ones, change nothing; what is low stays low; nothing is lost."""
    with zmq.Context() as context, trio.fail_after(20):
        listener = Listener(context, FLOODED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.socket.run)
            assert await listener.flood(5000, 100) == LIMITS.iopub_messages
            assert await listener.flood(20, 10_000) == LIMITS.iopub_messages
            kept = await listener.flood(3000, 10_000)
            assert 290 <= kept < 310
            assert await listener.flood(5000, 100) == kept
            assert await listener.flood(500, 100_000) == FLOODED.iopub_messages_least
            nursery.cancel_scope.cancel(reason="everything is heard")
        listener.socket.close()
        listener.kernel.close()
    assert listener.heard == list(range(len(listener.heard)))


async def test_batches_are_small_in_company_and_else_long() -> None:
    with zmq.Context() as context, trio.fail_after(20):
        listener = Listener(context, FLOODED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.socket.run)
            await listener.flood(3000, 10)
            assert max(listener.batches) == FLOODED.batch_messages
            listener.batches.clear()
            listener.traffic.note("somebody else")
            await listener.flood(300, 10)
            # What is decided after a full batch goes for the next one.
            full = [*listener.batches, FLOODED.batch_messages].index(FLOODED.batch_messages)
            assert max(listener.batches[full + 1 :], default=0) <= FLOODED.batch_messages_shared
            nursery.cancel_scope.cancel(reason="everything is heard")
        listener.socket.close()
        listener.kernel.close()


async def test_a_socket_without_such_a_mark_keeps_its_own() -> None:
    with zmq.Context() as context, trio.fail_after(20):
        listener = Listener(context, FLOODED)
        listener.socket = ZmqSocket(listener.subscriber, FLOODED, listener.hear)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.socket.run)
            assert await listener.flood(500, 10_000) == LIMITS.iopub_messages
            nursery.cancel_scope.cancel(reason="everything is heard")
        listener.socket.close()
        listener.kernel.close()


@pytest.mark.parametrize("seed", range(20))
async def test_a_mark_that_sinks_never_stops_the_kernel(seed: int) -> None:
    """Now at full speed, now one by one, when libzmq may have no room for even one more."""
    chance = random.Random(seed)  # noqa: S311 (it is to be the same each time)
    limits = Limits(
        iopub_messages=chance.choice([100, 1000, 10_000]),
        iopub_bytes=400_000,
        iopub_messages_least=chance.choice([5, 50, 200]),
        batch_bytes=10_000,
    )
    with zmq.Context() as context, trio.fail_after(20):
        listener = Listener(context, limits)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.socket.run)
            for _ in range(5):
                size = chance.choice([100, 4000, 20_000])  # the last is a batch by itself
                await listener.flood(chance.choice([10, 200, 300, 2000]), size)
                for _ in range(chance.choice([0, 300])):
                    await listener.flood(1, size)
            nursery.cancel_scope.cancel(reason="everything is heard")
        listener.socket.close()
        listener.kernel.close()
    assert listener.heard == list(range(len(listener.heard)))
