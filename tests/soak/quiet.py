"""Sessions that nobody harms, and which therefore nothing may disturb; and ``/status``."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import trio

from kallichore.client import Client
from tests.bench.machine import descriptors, memory_bytes
from tests.listening import Ear, word, words
from tests.soak.life import Life
from tests.soak.record import CheckFailed
from tests.soak.world import MARKER, ours, pause

if TYPE_CHECKING:
    from tests.soak.record import Record
    from tests.soak.world import World

__all__ = ["ask_for_status", "sit_quietly", "stay_silent", "watch"]

STATUS_SECONDS = 2.0
"""The bound of an answer of ``/status``, on a machine that is full."""
GIVE_UP = 30.0
"""After this there is none."""
ANSWER_SECONDS = 10.0
"""The bound of a small execution on the same machine."""
DISTURBANCES = ("clientDisconnected", "exited", "error", "resumed", "status=offline")


def undisturbed(frames: list[dict[str, Any]]) -> None:
    """See that nothing has happened to a session beside its own work."""
    heard = [one for one in words(frames) if one.startswith(DISTURBANCES)]
    if heard:
        raise CheckFailed(f"a quiet session heard {heard}")


async def sit_quietly(world: World, *, real: bool) -> None:
    """Run a little code every second; each time it is answered soon, in order, and whole."""
    name = "quiet ipykernel" if real else "quiet puppet"
    life = Life(world, name, world.chance(name))
    with world.record.noting(f"{world.stage}, {name}"):
        await life.create(real=real)
        await life.start()
        async with life.client.open_channel(life.id, 0) as channel:
            ear = Ear(channel)
            seq = number = 0
            while not world.over:
                await pause(1)
                number += 1
                began = trio.current_time()
                with trio.fail_after(ANSWER_SECONDS):
                    frames = await ear.execute(life.say(f"{number}"))
                world.record.slowest_quiet = max(
                    world.record.slowest_quiet, trio.current_time() - began
                )
                world.record.messages["sent by kernels"] += 1
                said = [
                    one["content"]["text"]
                    for one in frames
                    if word(one) == "iopub:stream" and one["content"]["name"] == "stdout"
                ]
                undisturbed(frames)
                if said != [str(number)]:
                    raise CheckFailed(f"execution {number} of a quiet session showed {said}")
                world.record.messages["received"] += 1
                for one in frames:
                    seq += 1
                    if one["seq"] != seq:
                        raise CheckFailed(f"frame {seq} of a quiet session is {one['seq']}")
                ear.heard.clear()
    with world.record.noting(f"{world.stage}, end of {name}"):
        await life.end()


async def stay_silent(world: World) -> None:
    """Be connected and do nothing: nothing may come but samples of resource usage."""
    life = Life(world, "silent", world.chance("silent"))
    with world.record.noting(f"{world.stage}, silent session"):
        await life.create()
        await life.start()
        async with life.ear() as ear:
            while not world.over:
                with trio.move_on_after(1):
                    await ear.next()
            if words(ear.heard):
                raise CheckFailed(f"a silent session heard {words(ear.heard)}")
    with world.record.noting(f"{world.stage}, end of the silent session"):
        await life.end()


async def watch(world: World) -> None:
    """Note peaks, have the server write diagnostics, and freeze it now and then for a moment."""
    record, details = world.record, world.server.details
    mark = world.environment[MARKER]
    turn = 0
    while not world.over:
        turn += 1
        began = trio.current_time()
        await pause(1)
        record.own_lag = max(record.own_lag, trio.current_time() - began - 1)
        if turn % 5 == 0:
            record.peak_bytes = max(record.peak_bytes, memory_bytes(details.server_pid))
            count = descriptors(details.server_pid)
            record.peak_descriptors = max(record.peak_descriptors, count)
            processes = len(await trio.to_thread.run_sync(ours, mark))
            record.peak_processes = max(record.peak_processes, processes)
        if turn % 15 == 0:
            record.deeds["SIGSTOP of the server, 0.3 s"] += 1
            os.kill(details.server_pid, signal.SIGSTOP)
            await pause(0.3)
            os.kill(details.server_pid, signal.SIGCONT)
        if turn % 30 == 0:
            record.deeds["SIGUSR1 for diagnostics"] += 1
            os.kill(details.server_pid, signal.SIGUSR1)


async def ask_for_status(world: World) -> None:
    """Ask for ``/status`` all the time, from a loop of its own: ours is busy with messages."""
    seconds = world.deadline - trio.current_time()
    await trio.to_thread.run_sync(trio.run, _ask_for_status, world, seconds)


async def _ask_for_status(world: World, seconds: float) -> None:
    record = world.record
    turn = 0
    with trio.move_on_after(seconds):
        async with Client(world.client.target) as steady:
            while True:
                turn += 1
                how = "on a connection that stays" if turn % 2 else "on a new connection"
                with record.noting(f"{world.stage}, /status {how}"), trio.fail_after(GIVE_UP):
                    took = await _time_status(record, steady if turn % 2 else None, world)
                    record.slowest_status = max(record.slowest_status, took)
                    if took > STATUS_SECONDS:
                        raise CheckFailed(f"answered after {took:.1f} s only")
                await pause(0.25)


async def _time_status(record: Record, client: Client | None, world: World) -> float:
    """Ask a client for ``/status``, a new one if there is none; give the seconds it took."""
    async with AsyncExitStack() as stack:
        if client is None:
            client = await stack.enter_async_context(Client(world.client.target))
        began = trio.current_time()
        await record.ask("status", client.server_status)
        return trio.current_time() - began
