"""What a session says of itself, on a clock of the test's own (CONTRACT 2.2, ActiveSession)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from kallichore.errors import ProcessNotFound, StartFailed, StartupFailed
from kallichore.kernel.run import RunExit
from kallichore.models import Status
from tests.puppets import session_of
from tests.test_supervisor import PROGRAM, client_of, open_watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.abc import Clock

    from kallichore.session import Session
    from tests.test_supervisor import Watched


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    async with open_watched(tmp_path, monkeypatch) as opened:
        yield opened


def seconds(session: Session) -> tuple[int, int]:
    """How long it has been idle and busy."""
    record = session.describe()
    return record.idle_seconds, record.busy_seconds


async def test_it_is_either_idle_or_busy_for_so_many_seconds(
    autojump_clock: Clock, watched: Watched
) -> None:
    session = watched.supervisor.create(session_of(PROGRAM))
    await trio.sleep(2)
    assert seconds(session) == (2, 0)
    await session.start()
    await trio.sleep(3)
    assert seconds(session) == (3, 0)
    watched.execute(session)
    await trio.sleep(4)
    assert seconds(session) == (0, 4)
    run, request = watched.last_execution()
    run.kernel.finish(request)
    await trio.sleep(5)
    assert seconds(session) == (5, 0)


async def test_the_server_is_busy_since_the_earliest_and_idle_since_the_last(
    autojump_clock: Clock, watched: Watched
) -> None:
    for name in ("one", "two"):
        watched.execute(await watched.start(name))
        await trio.sleep(10)
    status = watched.supervisor.status()
    assert (status.idle_seconds, status.busy_seconds) == (0, 20)
    for run in watched.runs:
        (request,) = [one for one in run.kernel.received if one.msg_type == "execute_request"]
        run.kernel.finish(request)
        await trio.sleep(7)
    status = watched.supervisor.status()
    assert (status.idle_seconds, status.busy_seconds, status.busy) == (7, 0, False)


async def test_its_socket_is_told_while_a_client_is_on_it(watched: Watched) -> None:
    session = await watched.start()

    async def serve(listener: trio.SocketListener) -> None:
        async with listener:
            await trio.sleep_forever()

    path = await session.open_socket(serve)
    assert session.describe().socket_path is None
    async with client_of(session):
        assert session.describe().socket_path == str(path)
    while session.connected:
        await watched.supervisor.activity.next()
    assert session.describe().socket_path is None


async def test_over_tcp_it_has_no_socket(watched: Watched) -> None:
    session = await watched.start()
    async with client_of(session):
        record = session.describe()
    assert (record.connected, record.socket_path) == (True, None)


async def test_killing_a_process_that_has_just_vanished_is_an_error(watched: Watched) -> None:
    """It is gone, and the session is about to hear of it."""
    session = await watched.start()
    process = watched.runs[0].process
    process.exit(0)
    with pytest.raises(ProcessNotFound) as caught:
        session.kill()
    assert caught.value.code == "KS-4"
    assert caught.value.message == f"Can't find process {process.pid} for session one"


async def test_a_start_that_fails_in_an_unforeseen_way_is_an_error(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        process = None
        requested = False

        def __init__(self, *_: object) -> None: ...

        async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
            del task_status
            raise RuntimeError("a fault of ours")

        def lost_port_race(self, _failure: object) -> bool:
            return False

        def release_output(self) -> None: ...

        def exit_of(self, failure: StartupFailed) -> RunExit:
            return RunExit(exit_code=-1, reason=failure.error.message)

    session = watched.supervisor.create(session_of(PROGRAM))
    monkeypatch.setattr("kallichore.control.LaunchedRun", Broken)
    with pytest.raises(StartupFailed) as caught:
        await session.start()
    assert isinstance(caught.value.error, StartFailed)
    assert (caught.value.error.code, caught.value.error.message) == (
        "KS-16",
        "Failed to start kernel: a fault of ours",
    )
    assert session.status is Status.EXITED
