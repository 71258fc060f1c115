"""Clients that count what they hear: numbered messages, in floods, over connections that end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio

from kallichore.client import ChannelClosed
from tests.listening import word
from tests.soak.life import Life
from tests.soak.record import CheckFailed
from tests.soak.world import pause

if TYPE_CHECKING:
    import random

    from kallichore.client import Channel
    from tests.soak.world import World

__all__ = ["count_messages"]

BURST_SECONDS = 120.0
TAKEN = 3 * 256 * 1024
"""Bytes that the operating system may have taken of a connection that breaks, and lost."""


class Counter:
    """A client of one session whose kernel numbers what it says."""

    def __init__(self, life: Life, *, resumes: bool) -> None:
        """Nothing is said yet."""
        self.life = life
        self.resumes = resumes
        self.seq = 0
        self.said = 0
        """The last number that the kernel was told to say."""
        self.heard = 0
        """The last number that came."""
        self.missing = 0

    async def burst(self, dice: random.Random) -> None:
        """Have numbers said, and hear all of them, whatever becomes of the connections."""
        count = dice.choice([1, 10, 100, 1000, 5000, 20_000])
        size = dice.choice([0, 100, 1000])
        first, self.said = self.said + 1, self.said + count
        record = self.life.record
        record.messages["sent by kernels"] += count
        code = f"for n in range({first}, {self.said + 1}): say(str(n).ljust({size}))"
        cuts = 0
        with trio.fail_after(BURST_SECONDS):
            async with trio.open_nursery() as nursery:
                done = trio.Event()

                async def execute() -> None:
                    await self.life.run(code)
                    done.set()

                nursery.start_soon(execute)
                for _ in range(dice.choice([0, 0, 1, 3, 10])):
                    cuts += await self.listen_a_while(dice)
                await done.wait()
            if cuts and not self.resumes:  # what was cut off may have been the last
                self.said += 1
                record.messages["sent by kernels"] += 1
                await self.life.run(f"say('{self.said}')")
            async with self.open() as channel:
                while self.heard < self.said:
                    await self.hear(channel)
        self.settle(cuts, max(size, 1) + 500)

    def settle(self, cuts: int, size: int) -> None:
        """Account for what is missing."""
        missing, self.missing = self.missing, 0
        kind = "lost" if self.resumes or not cuts else "in the sockets of broken connections"
        self.life.record.messages[kind] += missing
        if missing > (0 if kind == "lost" else cuts * TAKEN // size + 1):
            raise CheckFailed(f"{missing} messages lost after {cuts} broken connections")

    async def listen_a_while(self, dice: random.Random) -> int:
        """Listen, and leave in one way or another; say whether that can lose anything."""
        way = dice.choice(["in order", "abruptly", "stalled", "evicted"])
        patience, share = dice.random() * 0.3, dice.randrange(1, 400)
        self.life.record.deeds[f"connections that end {way}"] += 1
        try:
            async with self.open() as channel:
                with trio.move_on_after(patience):
                    for _ in range(share):
                        await self.hear(channel)
                if way == "stalled":
                    await pause(patience * 10)
                elif way == "evicted":
                    async with self.open() as other:
                        with trio.move_on_after(patience):
                            await self.hear(other)
                elif way == "abruptly":
                    await trio.aclose_forcefully(channel._connection._stream)
        except ChannelClosed as exc:
            raise CheckFailed(f"a channel of a well-behaved client ended: {exc}") from exc
        return 1 + (way == "evicted")

    def open(self) -> Any:
        """Connect."""
        after = self.seq if self.resumes else None
        return self.life.client.open_channel(self.life.id, after)

    async def hear(self, channel: Channel) -> None:
        """Take the next frame, and see that it is the next one."""
        frame: dict[str, Any] = json.loads(await channel.receive_text())
        if self.resumes:
            if frame.get("seq") != self.seq + 1:
                raise CheckFailed(
                    f"after frame {self.seq} came {frame.get('seq')}: {str(frame)[:200]}"
                )
            self.seq += 1
        if word(frame) == "iopub:stream":
            number = int(frame["content"]["text"])
            if number <= self.heard:
                raise CheckFailed(f"{number} was heard after {self.heard}")
            self.missing += number - self.heard - 1
            self.heard = number
            self.life.record.messages["received"] += 1


async def count_messages(world: World, actor: int, *, resumes: bool) -> None:
    """Count in one session until it is time to end."""
    life = Life(world, f"counting {actor}", world.chance("counting", actor))
    where = f"{world.stage}, counting client {actor}"
    counter = Counter(life, resumes=resumes)
    with world.record.noting(where):
        await life.create()
        await life.start()
        turn = 0
        noted: list[str] = []
        while not world.over and not noted:  # what follows a failure would only repeat it
            turn += 1
            with world.record.noting(f"{where}, burst {turn}") as noted:
                await counter.burst(world.chance("counting", actor, turn))
                world.record.deeds["bursts of numbered messages"] += 1
    with world.record.noting(f"{where}, end"):
        await life.end()
