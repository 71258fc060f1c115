"""Sessions with fake kernels: who waits for whom, and what a cancellation at any step leaves."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from kallichore.errors import (
    KallichoreError,
    NoProcess,
    SessionNotFound,
    SessionNotRunning,
    SessionRunning,
    StartupFailed,
)
from kallichore.frontend import Closed, HalfClosed, Text
from kallichore.models import ExecuteRequest, Status
from kallichore.nurseries import SessionGone
from tests.fakes import FakePeer, FakeRun
from tests.puppets import session_of
from tests.test_supervisor import PROGRAM, open_watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from kallichore.session import Session
    from tests.test_supervisor import Watched


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    async with open_watched(tmp_path, monkeypatch) as opened:
        yield opened


def status_of(session: Session) -> str:
    return session.status


def queued(session: Session) -> list[str]:
    """Say in words what waits for the session's client."""
    said = []
    for numbered in session.talk.outbox.take(2**20):
        frame = json.loads(numbered.frame[numbered.frame.index(b"{") :])
        frame.pop("kind")
        key = next(iter(frame))
        said.append(frame[key]["status"] if key == "status" else key)
    return said


async def test_a_start_announces_starting_then_idle(watched: Watched) -> None:
    session = await watched.start()
    assert status_of(session) == "idle"
    assert queued(session) == ["starting", "idle"]


async def test_a_failed_start_leaves_exited_and_can_be_tried_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = watched.supervisor.create(session_of(PROGRAM))
    monkeypatch.setattr(FakeRun, "fails_with", 3)
    with pytest.raises(StartupFailed) as caught:
        await session.start()
    assert caught.value.exit_code == 3
    assert status_of(session) == "exited"
    assert session.control.last_exit is not None
    assert session.control.last_exit.exit_code == 3
    monkeypatch.setattr(FakeRun, "fails_with", None)
    await session.start()
    assert status_of(session) == "idle"
    assert queued(session) == ["starting", "exited", "exited", "starting", "idle"]


async def test_operations_wait_for_each_other_but_interrupt_and_kill_do_not(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeRun, "waits", True)
    session = watched.supervisor.create(session_of(PROGRAM))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.start)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(session.restart, None)
        await trio.testing.wait_all_tasks_blocked()
        assert len(watched.runs) == 1
        await session.interrupt()
        assert watched.runs[0].process.signals == [2]
        with pytest.raises(SessionRunning):
            await session.delete()
        watched.runs[0].gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert len(watched.runs) == 2
        watched.runs[1].gate.set()
    assert status_of(session) == "idle"
    session.kill()
    assert watched.runs[1].process.returncode == -9


async def test_without_a_kernel_nothing_is_interrupted_or_killed(watched: Watched) -> None:
    session = watched.supervisor.create(session_of(PROGRAM))
    with pytest.raises(SessionNotRunning):
        await session.interrupt()
    with pytest.raises(NoProcess):
        session.kill()
    await session.start()
    watched.runs[0].process.exit(0)
    await until(session, "exited")
    with pytest.raises(SessionNotRunning):
        session.kill()


async def until(session: Session, status: str) -> None:
    while status_of(session) != status:
        await session.talk.status_changed.next()


async def test_a_deleted_session_refuses_everything(watched: Watched) -> None:
    session = watched.supervisor.create(session_of(PROGRAM))
    await watched.supervisor.delete("one")
    with pytest.raises(SessionNotFound):
        await session.start()
    with pytest.raises(SessionNotFound):
        await session.restart(None)
    peer = FakePeer()
    with pytest.raises(SessionGone):
        await session.attach(peer, None)
    assert peer.aborted


async def test_a_client_is_told_goodbye_when_its_session_is_deleted(watched: Watched) -> None:
    session = watched.supervisor.create(session_of(PROGRAM))
    peer = FakePeer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attached, session, peer)
        await trio.testing.wait_all_tasks_blocked()
        await watched.supervisor.delete("one")
    assert peer.closed_with == 1000


async def attached(session: Session, peer: FakePeer, after: int | None = None) -> None:
    """Serve a client; that the session may end meanwhile is all right."""
    try:
        await session.attach(peer, after)
    except SessionGone:
        return


@pytest.mark.parametrize("goodbye", [Closed(1000), Closed(4000), HalfClosed()])
async def test_a_client_that_says_goodbye_is_answered(
    watched: Watched, goodbye: Closed | HalfClosed
) -> None:
    session = await watched.start()
    peer = FakePeer()
    peer.says(goodbye)
    await session.attach(peer, None)
    assert peer.closed_with == (goodbye.code if isinstance(goodbye, Closed) else 1000)
    assert (b'"starting"' in peer.data) == isinstance(goodbye, HalfClosed)
    assert not session.connected


async def test_what_waits_is_given_to_the_next_client_when_one_vanishes(watched: Watched) -> None:
    session = await watched.start()
    stalled = FakePeer()
    stalled.reads = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.attach, stalled, None)
        await trio.testing.wait_all_tasks_blocked()
        stalled.vanish()
    assert stalled.data == b""
    peer = FakePeer()
    peer.says(HalfClosed())
    await session.attach(peer, None)
    assert b'"starting"' in peer.data
    assert b'"idle"' in peer.data


async def test_a_takeover_waits_for_the_farewell_and_gives_the_rest_to_the_newest(
    watched: Watched,
) -> None:
    session = await watched.start()
    old, new = FakePeer(), FakePeer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.attach, old, None)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(session.attach, new, None)
        await trio.testing.wait_all_tasks_blocked()
        assert b"clientDisconnected" in old.data
        assert old.closed_with == 1000
        session.talk.from_client(
            '{"header":{"msg_id":"m","msg_type":"execute_request"},'
            '"channel":"shell","content":{"code":"hello"}}'
        )
        await trio.testing.wait_all_tasks_blocked()
        assert b'"hello"' in new.data
        assert b'"hello"' not in old.data
        new.says(Closed(1000))
    assert not session.connected


async def test_a_client_talks_to_its_kernel(watched: Watched) -> None:
    session = await watched.start()
    peer = FakePeer()
    peer.says(
        Text(
            '{"header":{"msg_id":"m","msg_type":"execute_request"},'
            '"channel":"shell","content":{"code":"hello"}}'
        ),
        Text("nonsense"),
        HalfClosed(),
    )
    await session.attach(peer, 0)
    assert watched.runs[0].kernel.received[-1].msg_id == "m"
    assert b'"hello"' in peer.data
    assert b'"bad_request"' in peer.data


# -- cancellation at every step -----------------------------------------------------------------


class CancelAtStep(trio.abc.Instrument):
    """Cancel a scope at the n-th scheduling step from now."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope = scope
        self._left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        if self._left == 0:
            self._scope.cancel(reason="sweep")
        self._left -= 1


@asynccontextmanager
async def cancelling(step: int) -> AsyncIterator[trio.CancelScope]:
    with trio.CancelScope() as scope:  # noqa: ASYNC100 (the body of the block waits)
        instrument = CancelAtStep(scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(instrument)


async def start(session: Session) -> None:
    await session.start()


async def restart(session: Session) -> None:
    await session.restart(None)


async def execute(session: Session) -> None:
    await session.execute(ExecuteRequest(code="1"))


async def delete(session: Session) -> None:
    await session.delete()


async def attach(session: Session) -> None:
    peer = FakePeer()
    peer.says(Closed(1000))
    await attached(session, peer)


async def settle(session: Session) -> None:
    """Let what goes on without its caller come to its end."""
    async with session.control.lock:
        await trio.testing.wait_all_tasks_blocked()


def check(watched: Watched, session: Session) -> None:
    """Check what must hold whenever nothing is under way."""
    alive = [run for run in watched.runs if not run.exited.is_set()]
    running = session.status in {Status.IDLE, Status.READY, Status.BUSY}
    assert len(alive) == int(running)
    assert session.status is not Status.STARTING
    assert session.talk.frontend is None
    assert session.talk.state.queue.active is None
    assert session.talk._waiters == {}
    assert (session.talk.run is not None) == running


OPERATIONS: list[tuple[Callable[[Session], Awaitable[None]], bool]] = [
    (start, False),
    (restart, False),
    (restart, True),
    (execute, True),
    (attach, False),
    (attach, True),
    (delete, False),
]


@pytest.mark.parametrize(
    ("operation", "started"), OPERATIONS, ids=lambda value: getattr(value, "__name__", str(value))
)
async def test_a_cancellation_at_any_step_leaves_a_session_that_works(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    operation: Callable[[Session], Awaitable[None]],
    *,
    started: bool,
) -> None:
    for step in range(1000):
        async with open_watched(tmp_path, monkeypatch) as watched:
            session = watched.supervisor.create(session_of(PROGRAM))
            await trio.testing.wait_all_tasks_blocked()
            if started:
                await session.start()
            async with cancelling(step) as scope:
                await operation(session)
            await settle(session)
            check(watched, session)
            if session.id in watched.supervisor.sessions:
                if status_of(session) in {"uninitialized", "exited"}:
                    await session.start()
                reply = await session.execute(ExecuteRequest(code="again"))
                assert reply.output[0].text == "again"
        if not scope.cancelled_caught:
            return
    pytest.fail("it never finished uncancelled")


async def test_stopping_at_any_step_of_a_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(200):
        async with open_watched(tmp_path, monkeypatch) as watched:
            session = watched.supervisor.create(session_of(PROGRAM))
            outcomes: list[Any] = []

            async def begin(session: Session = session, outcomes: list[Any] = outcomes) -> None:
                try:
                    outcomes.append(await session.start())
                except (KallichoreError, StartupFailed) as refused:
                    outcomes.append(refused)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(begin)
                async with cancelling(step) as scope:
                    await trio.testing.wait_all_tasks_blocked()
                watched.supervisor.stop("at a step")
                await watched.over.wait()
            assert [run for run in watched.runs if not run.exited.is_set()] == []
            assert len(outcomes) == 1
        if not scope.cancelled_caught:
            return
    pytest.fail("it never finished uncancelled")
