"""The supervisor on a clock of the test's own: idle shutdown, heartbeats, counts, order of ending.

Kernels and clients are fakes, so that nothing but the clock passes.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing

from kallichore.config import Config, Configurable, Deadlines, Limits
from kallichore.errors import (
    KernelPathNotFound,
    ServerStopping,
    SessionExists,
    SessionNotFound,
    SessionRunning,
    TooManySessions,
)
from kallichore.frontend import Pong
from kallichore.kernel.connection import PortPool
from kallichore.kernel.run import RunTools
from kallichore.models import ServerConfiguration, Status
from kallichore.supervisor import Supervisor
from kallichore.tally import Tally
from kallichore.traffic import Traffic
from tests.fakes import FakePeer, FakeRun, fake_runs
from tests.puppets import session_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.abc import Clock

    from kallichore.session import Session

HOUR = 3600
PROGRAM = ["/bin/true"]


@dataclass
class Watched:
    """A supervisor, the runs it has made, and when it stopped."""

    supervisor: Supervisor
    runs: list[FakeRun]
    over: trio.Event

    async def start(self, session_id: str = "one") -> Session:
        """Make a session and start its fake kernel."""
        session = self.supervisor.create(session_of(PROGRAM, session_id))
        await session.start()
        return session

    def last_execution(self) -> tuple[FakeRun, Any]:
        """Give the last run, and what it was last asked to execute."""
        run = self.runs[-1]
        return run, next(
            one for one in reversed(run.kernel.received) if one.msg_type == "execute_request"
        )

    def execute(self, session: Session) -> None:
        """Have code executed that stays busy until the test says otherwise."""
        self.runs[-1].kernel.holds = True
        session.talk.from_client(
            '{"header":{"msg_id":"m","msg_type":"execute_request"},'
            '"channel":"shell","content":{"code":"1"}}'
        )


@asynccontextmanager
async def open_watched(
    directory: Path, monkeypatch: pytest.MonkeyPatch, hours: int = -1, **limits: int
) -> AsyncIterator[Watched]:
    runs, make = fake_runs()
    monkeypatch.setattr("kallichore.control.LaunchedRun", make)
    config = Config(
        initial=Configurable(idle_shutdown_hours=hours),
        limits=Limits(**limits),
        deadlines=Deadlines(),
    )
    tools = RunTools(
        context=cast("Any", None),
        ports=PortPool(config.limits),
        reaper=cast("Any", None),
        directory=directory,
        environment={},
        server_id="s",
        tally=Tally(),
        traffic=Traffic(config.deadlines.shared_seconds),
        limits=config.limits,
        deadlines=config.deadlines,
    )
    supervisor = Supervisor(config, tools, uuid.uuid4(), [directory])
    over = trio.Event()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await supervisor.run(task_status=task_status)
        over.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        nursery.start_soon(supervisor.watch_idleness)
        yield Watched(supervisor, runs, over)
        supervisor.stop("the test is over")
        await over.wait()
        nursery.cancel_scope.cancel()


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    """A supervisor that shuts down after one hour of idleness."""
    async with open_watched(tmp_path, monkeypatch, hours=1) as opened:
        yield opened


@asynccontextmanager
async def client_of(session: Session) -> AsyncIterator[FakePeer]:
    """Connect a client to a session."""
    peer = FakePeer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.attach, peer, None)
        await trio.testing.wait_all_tasks_blocked()
        yield peer
        peer.vanish()


def status_of(session: Session) -> str:
    return session.status


async def stopped_after(watched: Watched) -> float:
    """Wait for the shutdown, and say how long it took from now."""
    began = trio.current_time()
    await watched.supervisor.stop_requested.wait()
    return trio.current_time() - began


async def test_an_idle_server_stops_when_its_time_is_up(
    autojump_clock: Clock, watched: Watched
) -> None:
    assert await stopped_after(watched) == HOUR
    assert watched.supervisor.stop_reason == "idle for 3600 seconds"
    await watched.over.wait()


@pytest.mark.parametrize(("hours", "seconds"), [(0, 30), (2, 2 * HOUR)])
async def test_the_time_is_that_of_the_setting(
    autojump_clock: Clock, watched: Watched, hours: int, seconds: float
) -> None:
    await trio.sleep(HOUR / 2)
    watched.supervisor.configure(ServerConfiguration(idle_shutdown_hours=hours))
    assert await stopped_after(watched) == seconds


async def test_a_negative_setting_is_never(autojump_clock: Clock, watched: Watched) -> None:
    watched.supervisor.configure(ServerConfiguration(idle_shutdown_hours=-3))
    assert watched.supervisor.configuration().idle_shutdown_hours == -1
    await trio.sleep(1000 * HOUR)
    assert not watched.supervisor.stopping


async def test_a_heartbeat_starts_the_time_anew(autojump_clock: Clock, watched: Watched) -> None:
    await trio.sleep(HOUR - 1)
    watched.supervisor.client_heartbeat(None)
    assert await stopped_after(watched) == HOUR


async def test_a_session_being_started_starts_the_time_anew(
    autojump_clock: Clock, watched: Watched
) -> None:
    session = watched.supervisor.create(session_of(PROGRAM))
    await trio.sleep(HOUR - 1)
    await session.start()
    assert await stopped_after(watched) == HOUR


async def test_a_session_that_goes_idle_starts_the_time_anew(
    autojump_clock: Clock, watched: Watched
) -> None:
    session = await watched.start()
    watched.execute(session)
    await trio.sleep(10 * HOUR)
    assert status_of(session) == "busy"
    assert not watched.supervisor.stopping
    run, request = watched.last_execution()
    run.kernel.finish(request)
    assert status_of(session) == "idle"
    assert await stopped_after(watched) == HOUR


async def test_a_session_that_exits_starts_the_time_anew(
    autojump_clock: Clock, watched: Watched
) -> None:
    session = await watched.start()
    await trio.sleep(HOUR - 1)
    watched.runs[-1].process.exit(3)
    while session.status is not Status.EXITED:
        await session.talk.status_changed.next()
    assert await stopped_after(watched) == HOUR


async def test_nothing_happens_while_a_session_starts(
    autojump_clock: Clock, watched: Watched
) -> None:
    session = watched.supervisor.create(session_of(PROGRAM))
    async with trio.open_nursery() as nursery:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FakeRun, "waits", True)
            nursery.start_soon(session.start)
            await trio.testing.wait_all_tasks_blocked()
        assert session.status is Status.STARTING
        await trio.sleep(10 * HOUR)
        assert not watched.supervisor.stopping
        watched.runs[-1].gate.set()
    assert await stopped_after(watched) == HOUR


async def test_nothing_happens_while_a_client_is_connected_and_its_leaving_counts(
    autojump_clock: Clock,
    watched: Watched,
) -> None:
    session = await watched.start()
    async with client_of(session) as peer:
        for _ in range(5 * HOUR // 30):
            await trio.sleep(30)
            peer.says(Pong())
        assert not watched.supervisor.stopping
    assert await stopped_after(watched) == pytest.approx(HOUR, abs=2)


async def test_nothing_happens_while_the_clients_process_lives(
    autojump_clock: Clock, watched: Watched
) -> None:
    with subprocess.Popen(["/bin/sleep", "600"]) as process:  # noqa: ASYNC220
        watched.supervisor.client_heartbeat(process.pid)
        await trio.sleep(10 * HOUR)
        assert not watched.supervisor.stopping
        process.kill()
        process.wait()  # noqa: ASYNC222
    assert await stopped_after(watched) <= HOUR


async def test_another_process_with_the_clients_pid_does_not_count(
    autojump_clock: Clock, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.supervisor.client_heartbeat(os.getpid())
    monkeypatch.setattr("kallichore.supervisor.process_start_time", lambda _pid: 1)
    assert await stopped_after(watched) == HOUR


async def test_a_process_that_is_none_does_not_count(
    autojump_clock: Clock, watched: Watched
) -> None:
    watched.supervisor.client_heartbeat(2**22 + 5)
    assert await stopped_after(watched) == HOUR


async def test_the_status_counts_sessions_and_seconds(
    autojump_clock: Clock, watched: Watched
) -> None:
    supervisor = watched.supervisor
    await trio.sleep(10)
    status = supervisor.status()
    assert (status.sessions, status.active, status.busy) == (0, 0, False)
    assert (status.idle_seconds, status.busy_seconds, status.uptime_seconds) == (10, 0, 10)
    first = await watched.start("one")
    supervisor.create(session_of(PROGRAM, "two"))
    watched.execute(first)
    await trio.sleep(5)
    status = supervisor.status()
    assert (status.sessions, status.active, status.busy) == (2, 2, True)
    assert (status.idle_seconds, status.busy_seconds) == (0, 5)
    run, request = watched.last_execution()
    run.kernel.finish(request)
    await trio.sleep(3)
    status = supervisor.status()
    assert (status.busy, status.idle_seconds, status.busy_seconds) == (False, 3, 0)
    run.process.exit(0)
    while first.status is not Status.EXITED:
        await first.talk.status_changed.next()
    status = supervisor.status()
    assert (status.sessions, status.active, status.uptime_seconds) == (2, 1, 18)
    assert status.process_id == os.getpid()


async def test_what_cannot_be_created_is_refused(
    autojump_clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_watched(tmp_path, monkeypatch, max_sessions=1) as watched:
        supervisor = watched.supervisor
        with pytest.raises(KernelPathNotFound):
            supervisor.create(session_of(["/no/such"]))
        session = supervisor.create(session_of([]))
        with pytest.raises(SessionExists):
            supervisor.create(session_of([]))
        with pytest.raises(TooManySessions):
            supervisor.create(session_of([], "two"))
        assert supervisor.get("one") is session
        await supervisor.delete("one")
        with pytest.raises(SessionNotFound):
            supervisor.get("one")
        with pytest.raises(SessionNotFound):
            await supervisor.delete("one")
        await watched.start()
        with pytest.raises(SessionRunning):
            await supervisor.delete("one")
        supervisor.stop("enough")
        with pytest.raises(ServerStopping):
            supervisor.create(session_of([], "two"))


async def test_stopping_ends_every_kernel_at_once_and_forgets_the_sessions(
    autojump_clock: Clock,
    watched: Watched,
) -> None:
    for name in ("one", "two", "three"):
        await watched.start(name)
    watched.supervisor.stop("asked to")
    await watched.over.wait()
    assert [run.requested for run in watched.runs] == [True] * 3
    assert [run.process.returncode for run in watched.runs] == [0] * 3
    assert watched.supervisor.sessions == {}


async def test_a_second_stop_does_not_wait_for_a_kernel_that_does_not_end(
    autojump_clock: Clock, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watched.start()

    async def never(*_: object, **__: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(FakeRun, "shut_down", never)
    began = trio.current_time()
    watched.supervisor.stop("once")
    await trio.sleep(1)
    watched.supervisor.stop("twice")
    await watched.over.wait()
    assert trio.current_time() - began == 1
    assert watched.runs[-1].process.returncode == -9


async def test_a_stop_is_bounded(
    autojump_clock: Clock, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watched.start()

    async def never(*_: object, **__: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(FakeRun, "shut_down", never)
    began = trio.current_time()
    watched.supervisor.stop("once")
    await watched.over.wait()
    assert trio.current_time() - began == 10


async def test_the_sampling_interval_has_a_floor(autojump_clock: Clock, watched: Watched) -> None:
    for given, kept in ((0, 0), (1, 100), (99, 100), (100, 100), (5000, 5000)):
        watched.supervisor.configure(ServerConfiguration(resource_sample_interval_ms=given))
        assert watched.supervisor.configuration().resource_sample_interval_ms == kept
