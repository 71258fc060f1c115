"""Deeds of kernels, good and wicked, and of those who kill or freeze them.

Each begins with a session that is well, and ends with one that is well or whose kernel is gone.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from kallichore.client.errors import RequestFailed
from tests.listening import Ear, word
from tests.soak.record import CheckFailed
from tests.soak.world import pause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.soak.life import Life

    Deed = Callable[[Life], Awaitable[None]]

__all__ = ["FAULTS"]

LONG = "time.sleep(60)"


async def killed_by_somebody(life: Life) -> None:
    """``kill -9`` of the kernel."""
    os.kill(await life.pid(), signal.SIGKILL)
    found = await life.status("exited")
    if found.last_exit is None or found.last_exit.signal != "SIGKILL":
        raise CheckFailed(f"killed, but the last exit is {found.last_exit}")


async def killed_while_it_floods(life: Life) -> None:
    """``kill -9`` in the middle of a flood; then ``exited`` is heard once, after the output."""
    async with life.ear(0) as ear:
        code = "for n in range(10**6): say(str(n))" if not life.real else "while 1: print('x' * 99)"
        await ear.send(code)
        await ear.until("iopub:stream")
        os.kill(await life.pid(), signal.SIGKILL)
        frames = await ear.until("exited=-1")
    numbers = (
        [int(one["content"]["text"]) for one in frames if word(one) == "iopub:stream"]
        if not life.real
        else []
    )
    if numbers != sorted(set(numbers)):
        raise CheckFailed("a flood out of order")
    life.alive = False


async def exits(life: Life) -> None:
    """``os._exit`` in the middle of an execution that somebody waits for."""
    code = life.dice.randrange(1, 100)
    reply = await life.run(f"import os; os._exit({code})", may=["400 session_not_ready"])
    if not isinstance(reply, RequestFailed):
        raise CheckFailed(f"the kernel exited and its execution ended {reply.status}")
    found = await life.status("exited")
    if found.last_exit is None or found.last_exit.exit_code != code:
        raise CheckFailed(f"exited with {code}, but the last exit is {found.last_exit}")


async def crashes(life: Life) -> None:
    """A segmentation fault."""
    code = "import os; os.kill(os.getpid(), 11)"
    await life.run(code, may=["400 session_not_ready"])
    await life.status("exited")


async def is_frozen(life: Life) -> None:
    """SIGSTOP, a while, SIGCONT: well again."""
    pid = await life.pid()
    seconds = life.dice.choice([0.1, 0.5, 1.0, 2.0, 9.0])
    os.kill(pid, signal.SIGSTOP)
    try:
        await pause(seconds)
        if seconds > 8:
            await life.status("offline")
    finally:
        os.kill(pid, signal.SIGCONT)
    await life.status("idle", "busy", "ready", seconds=4)


async def is_frozen_and_killed(life: Life) -> None:
    """A frozen kernel can be killed, and one that is stopped cannot hold a restart up."""
    os.kill(await life.pid(), signal.SIGSTOP)
    if life.dice.random() < 0.5:
        await life.ask("kill")
        await life.status("exited")
    else:
        await life.ask("restart")


async def reads_nothing_for_a_while(life: Life) -> None:
    """Messages to a frozen kernel wait for it, and hold nothing else up; then all are answered."""
    count, size = life.dice.choice([10, 100, 500]), life.dice.choice([10, 20_000])
    pid = await life.pid()
    async with life.ear() as ear:
        os.kill(pid, signal.SIGSTOP)
        try:
            for number in range(count):
                content = {"comm_id": "c", "data": {"number": number, "pad": "x" * size}}
                await ear.channel.request("comm_msg", content)
            life.record.messages["requests"] += count
            await life.ask("get")
        finally:
            os.kill(pid, signal.SIGCONT)
        numbers: list[int] = []
        while len(numbers) < count:
            frame = (await ear.until("iopub:comm_msg"))[-1]
            numbers.append(frame["content"]["data"]["number"])
    life.record.messages["replies"] += count
    if numbers != list(range(count)):
        raise CheckFailed(f"{count} messages to a frozen kernel came back as {numbers}")


async def has_children(life: Life) -> None:
    """Processes that have to go with their kernel, however they have hidden."""
    code = "import json; say(json.dumps([spawn(kind) for kind in ('plain', 'setsid', 'double')]))"
    reply = await life.run(code)
    life.pids += [int(pid) for pid in reply.output[0].text.strip("[]").split(",")]
    if life.dice.random() < 0.5:
        await killed_by_somebody(life)


async def floods_its_output(life: Life) -> None:
    """Megabytes on its stdout, without a newline."""
    size = life.dice.choice([10, 1000, 10**5, 5 * 10**6])
    await life.run(f"sys.stdout.write('x' * {size}); sys.stdout.flush()")


async def floods_with_nobody_there(life: Life) -> None:
    """A backlog, which the next client gets in order."""
    count = life.dice.choice([100, 5000, 20_000, 60_000])
    await life.run(f"for n in range({count}): say(f'{{n:0400}}')")
    life.record.messages["sent by kernels"] += count
    async with life.client.open_channel(life.id) as channel:
        frames = await Ear(channel).execute("say('0')")
    texts = [one["content"]["text"] for one in frames if word(one) == "iopub:stream"]
    numbers = [int(text) for text in texts if text.isdigit()]
    wanted = [*range(count), 0]
    if numbers[-len(wanted) :] != wanted:
        raise CheckFailed(f"of a backlog of {count} came {len(numbers)}, or in another order")
    life.record.messages["received"] += count


async def says_much_at_once(life: Life) -> None:
    """One big message."""
    size = life.dice.choice([10**5, 10**6, 3 * 10**6])
    async with life.ear() as ear:
        frames = await ear.execute(f"say('é' * {size})")
    if not any(
        word(one) == "iopub:stream" and one["content"]["text"] == "é" * size for one in frames
    ):
        raise CheckFailed(f"a message of {size} characters has not come")


async def talks_nonsense(life: Life) -> None:
    """Messages that are none, and some of somebody else's."""
    forged = "publish('stream', {'name': 'stdout', 'text': 'forged'}, key='wrong')"
    nonsense = "raw(b'<IDS|MSG>'); raw(os.urandom(200)); raw(b'<IDS|MSG>', *[b'{'] * 5); raw()"
    async with life.ear() as ear:
        frames = await ear.execute(f"{forged}; {nonsense}; answer('execute_reply', 5, key='no')")
    if any(word(one) == "iopub:stream" and one["content"]["text"] == "forged" for one in frames):
        raise CheckFailed("a forged message has reached a client")


async def loses_its_heart(life: Life) -> None:
    """Heartbeats go unanswered for a while."""
    await life.run("kernel.deaf = True")
    await life.status("offline", seconds=15)
    reply = await life.run("kernel.deaf = False", may=["400 session_not_ready"])
    if not isinstance(reply, RequestFailed):
        raise CheckFailed("an offline session took code")
    await life.ask("restart")


async def closes_a_socket(life: Life) -> None:
    """A kernel that closes one of its sockets and lives can still be restarted."""
    name = life.dice.choice(["iopub", "stdin"])
    await life.run(f"close({name!r})", timeout_seconds=1, may=["408 timeout"])
    await life.ask("restart")


FAULTS: dict[str, tuple[Deed, int, bool]] = {
    "kill -9 of a kernel": (killed_by_somebody, 4, True),
    "kill -9 amid a flood": (killed_while_it_floods, 3, False),
    "os._exit while executing": (exits, 4, True),
    "segmentation fault": (crashes, 2, True),
    "SIGSTOP and SIGCONT": (is_frozen, 4, True),
    "SIGSTOP, then kill or restart": (is_frozen_and_killed, 2, True),
    "messages to a frozen kernel": (reads_nothing_for_a_while, 3, False),
    "children, hidden ones too": (has_children, 3, False),
    "flood of its stdout": (floods_its_output, 3, False),
    "flood with no client": (floods_with_nobody_there, 4, False),
    "one big message": (says_much_at_once, 2, False),
    "forged and malformed messages": (talks_nonsense, 4, False),
    "heartbeats unanswered": (loses_its_heart, 1, False),
    "a socket closed": (closes_a_socket, 1, False),
}
"""By name: what it does, how often against the others, and whether a real kernel can do it."""
