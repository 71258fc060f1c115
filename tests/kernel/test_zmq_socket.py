"""A ZeroMQ socket under Trio misses no edge of its descriptor, whoever touches it and when."""

from __future__ import annotations

import random

import pytest
import trio
import zmq

from kallichore.config import Limits
from kallichore.kernel.zmq_socket import ZmqSocket

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
        self.socket = ZmqSocket(dealer, LIMITS, self.hear)

    def hear(self, batch: list[list[bytes]]) -> None:
        self.heard += [int(frames[-1]) for frames in batch]
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
                    await trio.lowlevel.checkpoint()
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
