"""The course of a soak: a warm-up, rounds with an audit after each, and the end of the server."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from kallichore.client import Client, open_server
from tests.bench.machine import MIB
from tests.listening import Ear
from tests.puppets import start_puppet
from tests.soak.audit import Account, Auditor, check_memory
from tests.soak.counting import count_messages
from tests.soak.lives import IGNORED, lead_lives
from tests.soak.quiet import ask_for_status, sit_quietly, stay_silent, watch
from tests.soak.record import CheckFailed, Record
from tests.soak.report import Course
from tests.soak.strangers import come_and_go
from tests.soak.world import MARKER, World

if TYPE_CHECKING:
    from kallichore.client import LaunchedServer

__all__ = ["soak"]

LIVES, STRANGERS = 5, 2
WARM_UP_SECONDS, ROUND_SECONDS = 60.0, 300.0
LATE_SECONDS = 180.0
"""How long after its time a round's last deeds may take."""
SHUTDOWN_SECONDS = 10.5
"""The bound of an orderly shutdown, and a little for a busy machine."""


async def soak(minutes: float, seed: int, transport: str) -> Course:
    """Soak a server; what comes of it is the report's matter."""
    record = Record(seed)
    course = Course(record, minutes, transport)
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(
        prefix="soak-", dir="/tmp"
    ) as name:  # a socket's path is short
        directory = Path(name) / "tmp"
        directory.mkdir()
        log = Path(name) / "kc.log"
        environment = {
            **os.environ,
            "TMPDIR": str(directory),
            "XDG_RUNTIME_DIR": str(directory),
            MARKER: mark,
        }
        arguments = ("--transport", transport, "--log-file", str(log), "--log-format", "json")
        with record.noting("the whole"):
            async with open_server(*arguments, env=environment) as server:
                auditor = Auditor(server, directory, log, mark)
                await taste(server)
                begin = await auditor.take("begin")
                course.accounts.append(begin)
                for stage, seconds in plan(minutes * 60):
                    print(f"{stage}: {seconds:.0f} s", flush=True)
                    async with Client(server.client.target) as client:
                        deadline = trio.current_time() + seconds
                        await play(
                            World(server, client, record, directory, environment, stage, deadline)
                        )
                    await audit(course, auditor, stage, begin)
                await shut_down(course, auditor)
        course.warnings = auditor.warnings()
        for complaint in auditor.complaints():
            record.fail("the log", complaint)
    return course


def plan(seconds: float) -> list[tuple[str, float]]:
    """Divide the time into a warm-up and rounds."""
    warm_up = min(WARM_UP_SECONDS, seconds / 4)
    rounds = max(1, round((seconds - warm_up) / ROUND_SECONDS))
    share = (seconds - warm_up) / rounds
    return [("warm-up", warm_up), *((f"round {n + 1}", share) for n in range(rounds))]


async def taste(server: LaunchedServer) -> None:
    """Use everything once, so that what is made on first use is there before we count."""
    async with Client(server.client.target) as client:
        await start_puppet(client, "taste")
        async with client.open_channel("taste") as channel:
            ear = Ear(channel)
            await ear.execute("say('1')")
            await client.kill_session("taste")
            await ear.until("exited=-1")
        await client.delete_session("taste")
        await client.get_metrics()


async def play(world: World) -> None:
    """Let all actors act until the round is over and they have ended."""
    with world.record.noting(world.stage):
        with trio.fail_at(world.deadline + LATE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch, world)
                nursery.start_soon(ask_for_status, world)
                nursery.start_soon(partial(sit_quietly, world, real=False))
                nursery.start_soon(partial(sit_quietly, world, real=True))
                nursery.start_soon(stay_silent, world)
                nursery.start_soon(partial(count_messages, world, 1, resumes=True))
                nursery.start_soon(partial(count_messages, world, 2, resumes=False))
                for actor in range(LIVES):
                    nursery.start_soon(lead_lives, world, actor + 1)
                for actor in range(STRANGERS):
                    nursery.start_soon(come_and_go, world, actor + 1)


async def audit(course: Course, auditor: Auditor, stage: str, begin: Account) -> None:
    """See that all is back to where it began; memory, to where it was after the warm-up."""
    record = course.record
    with record.noting(f"audit after {stage}"):
        account, grown = await auditor.settle(f"after {stage}", begin)
        course.accounts.append(account)
        print(f"{account.stage}: {account.memory_bytes / MIB:.1f} MiB, left {grown}", flush=True)
        if grown:
            raise CheckFailed(f"left behind: {grown}")
        if stage != "warm-up":
            check_memory(course.accounts[1], account)


async def shut_down(course: Course, auditor: Auditor) -> None:
    """End the server while kernels run, do not obey, or are frozen, and clients are connected."""
    server, record = auditor.server, course.record
    with record.noting("shutdown"):
        async with Client(server.client.target) as client, AsyncExitStack() as stack:
            await start_puppet(client, "obeys")
            await start_puppet(client, "does not obey", polite=False, ready=IGNORED)
            await start_puppet(client, "frozen")
            frozen = (await client.get_session("frozen")).process_id
            assert frozen is not None
            os.kill(frozen, signal.SIGSTOP)
            for session_id in ("obeys", "does not obey"):
                await stack.enter_async_context(client.open_channel(session_id))
            began = trio.current_time()
            await client.shutdown_server()
            with trio.fail_after(2 * SHUTDOWN_SECONDS):
                course.exit_code = await server.process.wait()
            course.shutdown_seconds = trio.current_time() - began
        if course.exit_code != 0 or course.shutdown_seconds > SHUTDOWN_SECONDS:
            raise CheckFailed(f"exit code {course.exit_code} after {course.shutdown_seconds:.1f} s")
        if left := auditor.left():
            raise CheckFailed(f"left behind: {left}")
