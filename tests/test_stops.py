"""The server's end, cut short at any of its steps: no kernel and no client is left."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio
import trio.testing

from kallichore.errors import KallichoreError, StartupFailed
from tests.fakes import FakePeer
from tests.puppets import session_of
from tests.sweeping import CancelAtStep, sweep
from tests.test_session import attached
from tests.test_supervisor import PROGRAM, open_watched

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from trio.testing import MockClock

    from kallichore.session import Session


async def begin(session: Session) -> None:
    """Start; that it may be refused is all right."""
    with suppress(KallichoreError, StartupFailed):
        await session.start()


async def test_a_stop_may_be_cancelled_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """With a kernel that runs, one that starts, one that never has, and a client of the first."""

    async def scenario(cancel: CancelAtStep, scope: trio.CancelScope) -> None:
        with scope:
            async with open_watched(tmp_path, monkeypatch) as watched:
                supervisor = watched.supervisor
                session = await watched.start()
                supervisor.create(session_of(PROGRAM, "never"))
                monkeypatch.setattr("tests.fakes.FakeRun.waits", True)
                starting = supervisor.create(session_of(PROGRAM, "starting"))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(begin, starting)
                    await trio.testing.wait_all_tasks_blocked()
                    peers.append(FakePeer())
                    nursery.start_soon(attached, session, peers[-1])
                    await trio.testing.wait_all_tasks_blocked()
                    trio.lowlevel.add_instrument(cancel)
                    supervisor.stop("at a step")
                    await watched.over.wait()
        monkeypatch.setattr("tests.fakes.FakeRun.waits", False)
        assert len(watched.runs) == 2
        assert [run for run in watched.runs if not run.exited.is_set()] == []
        assert peers[-1].aborted
        assert supervisor.sessions == {}
        assert supervisor.budget.used == 0
        assert [path for path in tmp_path.iterdir() if path.is_socket()] == []

    peers: list[FakePeer] = []
    assert await sweep(scenario) > 10
