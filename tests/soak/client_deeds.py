"""Deeds of a session's clients: the ordinary ones, and those of clients that misbehave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import trio

from kallichore.client import ChannelClosed, RequestFailed, ServerGone
from kallichore.models import RestartSession
from tests.e2e.test_bad_frames import frame
from tests.listening import Ear, upgraded, word, words
from tests.soak.record import ALLOWED, CheckFailed
from tests.soak.world import pause, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.soak.kernel_deeds import Deed
    from tests.soak.life import Life

__all__ = ["ACTIONS", "FAULTS"]

CHAOS = ("interrupt", "kill", "restart", "start", "delete", "get", "history", "connection info")


async def runs_code(life: Life) -> None:
    """Executions one after the other over the channel, each with its reply and its output."""
    async with life.ear(life.dice.choice([None, 0])) as ear:
        for number in range(life.dice.randrange(1, 20)):
            frames = await ear.execute(life.say(f"<{number}>"))
            life.record.messages["sent by kernels"] += 1
            said = [one["content"]["text"] for one in frames if word(one) == "iopub:stream"]
            if not said or said[-1] != f"<{number}>":
                raise CheckFailed(f"execution {number} showed {said}")
            life.record.messages["received"] += 1


async def queues_code(life: Life) -> None:
    """Many requests at once: they run in their order, and each is answered once."""
    count = life.dice.randrange(2, 60)
    async with life.ear() as ear:
        sent = [await ear.send(life.say(str(number))) for number in range(count)]
        life.record.messages["requests"] += count
        answered: list[str] = []
        with trio.fail_after(30):
            while len(answered) < count:
                one = await ear.next()
                if one["kind"] == "jupyter" and one["header"]["msg_type"] == "execute_reply":
                    answered.append(one["parent_header"]["msg_id"])
    life.record.messages["replies"] += len(answered)
    if answered != sent:
        raise CheckFailed(f"{count} requests were answered in another order, or not once each")


async def runs_code_without_a_channel(life: Life) -> None:
    """Several callers of ``/execute`` at once."""
    async with trio.open_nursery() as nursery:
        for _ in range(life.dice.randrange(2, 10)):
            nursery.start_soon(life.pulse)


async def runs_out_of_time(life: Life) -> None:
    """``/execute`` with a timeout, and one whose caller hangs up: both are interrupted."""
    code = "import time; time.sleep(60)"
    await life.run(code, timeout_seconds=1.5, may=["408 timeout"])
    await life.status("idle")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.run, code)
        await life.status("busy")  # a signal that overtakes the code interrupts nothing
        await pause(0.1)
        nursery.cancel_scope.cancel()
    await life.status("idle")


async def interrupts(life: Life) -> None:
    """An interrupt of code that runs, which says so."""
    async with life.ear() as ear:
        msg_id = await ear.send(f"import time; {life.say('on')}; time.sleep(60)")
        await ear.until("iopub:stream", parent=msg_id)
        await pause(0.05)
        await life.ask("interrupt")
        await ear.until("shell:execute_reply=error", parent=msg_id)


async def restarts(life: Life) -> None:
    """A restart, with a client that stays, and perhaps with something running."""
    changes = life.dice.choice([None, RestartSession(working_directory="/")])
    async with life.ear() as ear:
        if life.dice.random() < 0.5:
            await ear.send("import time; time.sleep(60)")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.ask, "restart", *([changes] if changes else []))
            heard = words(await ear.until("status=starting"), "shell")
    exits = [one for one in heard if one.startswith("exited=")]
    if len(exits) != 1:
        raise CheckFailed(f"a restart was heard as {heard}")


async def kills(life: Life) -> None:
    """A kill, heard by the client exactly once."""
    async with life.ear() as ear:
        await life.ask("kill")
        heard = words(await ear.until("exited=-1"), "shell")
    if heard[-2:] != ["status=exited", "exited=-1"]:
        raise CheckFailed(f"a kill was heard as {heard}")
    life.alive = False


async def asks_things(life: Life) -> None:
    """Everything that may be read of a session."""
    for operation in ("get", "history", "connection info"):
        await life.ask(operation)
    with trio.fail_after(10):
        await life.record.ask("list", life.client.list_sessions)
        await life.record.ask("metrics", life.client.get_metrics)
        await life.record.ask("configuration", life.client.get_server_configuration)


async def answers_a_question(life: Life) -> None:
    """``input()``."""
    async with life.ear() as ear:
        msg_id = await ear.send("say(question('?'))", allow_stdin=True)
        asked = (await ear.until("stdin:input_request"))[-1]
        await ear.channel.request("input_reply", {"value": "42"}, channel="stdin", parent=None)
        heard = (await ear.until("iopub:stream", parent=msg_id))[-1]
        await ear.until("iopub:status=idle", parent=msg_id)
    if heard["content"]["text"] != "42" or not asked:
        raise CheckFailed(f"the answer 42 came back as {heard['content']}")


async def sends_bad_frames(life: Life) -> None:
    """Text frames that cannot be used; the connection and the kernel go on."""
    bad: list[Any] = [
        "{",
        "[]",
        "null",
        "{}",
        '{"header": 5}',
        "\u0000",
        "x" * 100_000,
        json.dumps(
            {
                "header": {"msg_id": "a", "msg_type": "execute_request"},
                "channel": "iopub",
                "content": {},
                "metadata": {},
                "buffers": [],
            }
        ),
    ]
    async with life.ear() as ear:
        for text in life.dice.choices(bad, k=20):
            await ear.channel._connection.send_message(text)
        await ear.channel._connection.send_message(b"binary")
        await ear.execute(life.say("on"))


async def breaks_the_protocol(life: Life) -> None:
    """WebSocket frames that are none: a close frame, and nobody else suffers."""
    bad = [
        frame(b"{}", masked=False),
        frame(b"{}", opcode=3),
        frame(b"{}", opcode=0),
        frame(b"x" * 126, opcode=9),
        frame(b'{"a":"\xff"}'),
        life.dice.randbytes(300),
    ]
    stream = await upgraded(life.client, life.id)
    async with stream:
        await stream.send_all(life.dice.choice(bad))
        with trio.move_on_after(0.5):  # some of the random bytes are half a frame
            async for _ in stream:
                pass


async def leaves_abruptly(life: Life) -> None:
    """Connections that break in the middle of a flood."""
    for _ in range(life.dice.randrange(1, 5)):
        async with life.abrupt() as channel:
            await Ear(channel).send(life.say("flood " * 200))
            with trio.move_on_after(life.dice.random() * 0.05):
                while True:
                    await channel.receive()
    await life.status("idle", "ready")


async def never_reads(life: Life) -> None:
    """A client that stalls amid a flood, while the kernel is asked for more."""
    stream = await upgraded(life.client, life.id)
    async with stream:
        await life.run("for n in range(3000): say(f'{n:0500}')")
        await pause(life.dice.random() * 2)
        await life.pulse()


async def is_evicted(life: Life) -> None:
    """Clients that take the channel from each other; the last one has it and hears all."""
    count = life.dice.randrange(2, 8)
    crowd = Crowd()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(crowd.come, life)
            if life.dice.random() < 0.5:
                await pause(0.02)
        # One who comes late would evict the last one.
        await until("everybody has come", crowd.has(count, "come"), 10)
        async with life.ear() as ear:
            await ear.execute(life.say("mine"))
            await until("everybody was sent away", crowd.has(count, "gone"), 10)
    if set(crowd.ends) - {"TakenOver", "ServerGone"}:
        raise CheckFailed(f"clients that were evicted heard {crowd.ends}")


class Crowd:
    """Clients of one session that stay until they are sent away."""

    def __init__(self) -> None:
        self.here = 0
        self.ends: list[str] = []

    def has(self, count: int, what: Literal["come", "gone"]) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            await trio.lowlevel.checkpoint()
            gone = len(self.ends)
            return (gone if what == "gone" else max(gone, self.here)) >= count

        return look

    async def come(self, life: Life) -> None:
        try:
            async with life.client.open_channel(life.id) as channel:
                self.here += 1
                while True:
                    await channel.receive()
        except (ChannelClosed, ServerGone) as exc:
            self.ends.append(type(exc).__name__)


async def all_at_once(life: Life) -> None:
    """Operations at the same moment, from callers some of whom hang up: one outcome."""

    async def one(operation: str, patience: float) -> None:
        with trio.move_on_after(patience):
            await life.ask(operation, may=ALLOWED[operation])

    async with trio.open_nursery() as nursery:
        for _ in range(life.dice.randrange(2, 8)):
            patience = life.dice.choice([0.01, 0.1, 30])
            nursery.start_soon(one, life.dice.choice(CHAOS), patience)
    await pause(0.3)  # for the requests of those who hung up

    async def settled() -> bool:
        answer = await life.ask("restart", may=ALLOWED["restart"])
        if isinstance(answer, RequestFailed) and answer.status == 404:
            await life.create(may=["400 KS-0"])
        return not isinstance(answer, RequestFailed)

    await until("the session runs again", settled, 60)


ACTIONS: dict[str, tuple[Deed, int, bool]] = {
    "executions over the channel": (runs_code, 6, True),
    "many executions at once": (queues_code, 6, True),
    "/execute, several at once": (runs_code_without_a_channel, 5, True),
    "interrupt": (interrupts, 4, True),
    "restart": (restarts, 4, True),
    "kill": (kills, 3, True),
    "reading": (asks_things, 3, True),
    "input()": (answers_a_question, 2, False),
}
FAULTS: dict[str, tuple[Deed, int, bool]] = {
    "/execute: timeout, caller gone": (runs_out_of_time, 3, True),
    "frames that cannot be used": (sends_bad_frames, 4, True),
    "frames that break WebSocket": (breaks_the_protocol, 4, True),
    "abrupt disconnects": (leaves_abruptly, 4, True),
    "a client that never reads": (never_reads, 3, False),
    "evictions": (is_evicted, 3, True),
    "operations at one moment": (all_at_once, 3, False),
}
