"""The two barriers and `Activity`."""

from __future__ import annotations

import contextvars
import logging

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kallichore.nurseries import Activity, SessionGone, contain, run_in, wait_until_quiet


class WickedError(Exception):
    """The error that must come through, and no other."""


async def fail_while_cancelled(started: trio.Event) -> None:
    """End with a group of `Cancelled` and an error: a sibling was cancelled, a cleanup failed."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            started.set()
            await trio.sleep_forever()
        finally:
            raise WickedError


async def test_run_in_gives_back_the_result(nursery: trio.Nursery) -> None:
    async def double(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * number

    assert await run_in(nursery, double, 21) == 42


async def test_run_in_raises_a_bare_error_and_the_nursery_lives_on(nursery: trio.Nursery) -> None:
    async def fail() -> None:
        raise WickedError

    with pytest.raises(WickedError):
        await run_in(nursery, fail)
    assert not nursery.cancel_scope.cancel_called


async def test_run_in_keeps_the_group_of_a_nursery_inside(nursery: trio.Nursery) -> None:
    async def fail() -> None:
        async with trio.open_nursery():
            raise WickedError

    with pytest.RaisesGroup(WickedError):
        await run_in(nursery, fail)


async def test_the_child_of_run_in_is_a_child_of_the_other_nursery(nursery: trio.Nursery) -> None:
    async def parent() -> trio.Nursery | None:
        await trio.lowlevel.checkpoint()
        return trio.lowlevel.current_task().parent_nursery

    assert await run_in(nursery, parent) is nursery


async def test_the_child_of_run_in_sees_the_callers_context_variables(
    nursery: trio.Nursery,
) -> None:
    variable = contextvars.ContextVar("variable", default="theirs")
    variable.set("ours")

    async def look() -> str:
        await trio.lowlevel.checkpoint()
        return variable.get()

    assert await run_in(nursery, look) == "ours"


async def test_cancelling_the_caller_cancels_the_child_and_waits_for_it(
    nursery: trio.Nursery,
) -> None:
    steps: list[str] = []

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
            steps.append("child cleaned up")

    async with trio.open_nursery() as callers:

        async def call() -> None:
            try:
                await run_in(nursery, child)
            finally:
                steps.append("caller left")

        callers.start_soon(call)
        await wait_all_tasks_blocked()
        callers.cancel_scope.cancel(reason="test")
    assert steps == ["child cleaned up", "caller left"]
    assert not nursery.cancel_scope.cancel_called


async def test_cancelling_the_nursery_gives_the_caller_session_gone(
    nursery: trio.Nursery,
) -> None:
    async def session(task_status: trio.TaskStatus[trio.Nursery]) -> None:
        async with trio.open_nursery() as borrowed:
            task_status.started(borrowed)
            await trio.sleep_forever()

    async def cancel_when_blocked() -> None:
        await wait_all_tasks_blocked()
        borrowed.cancel_scope.cancel(reason="test")

    borrowed: trio.Nursery = await nursery.start(session)
    nursery.start_soon(cancel_when_blocked)
    with pytest.raises(SessionGone):
        await run_in(borrowed, trio.sleep_forever)


async def test_a_closed_nursery_gives_the_caller_session_gone() -> None:
    async with trio.open_nursery() as session:
        await trio.lowlevel.checkpoint()
    with pytest.raises(SessionGone):
        await run_in(session, trio.sleep_forever)


async def test_an_error_mixed_with_cancelled_reaches_the_caller_and_not_the_nursery(
    nursery: trio.Nursery,
) -> None:
    """The caller is cancelled, the child's cleanup fails: one group of both arrives."""
    started = trio.Event()

    async def call() -> None:
        with pytest.RaisesGroup(WickedError):
            await run_in(nursery, fail_while_cancelled, started)

    async with trio.open_nursery() as callers:
        callers.start_soon(call)
        await started.wait()
        callers.cancel_scope.cancel(reason="test")
    assert not nursery.cancel_scope.cancel_called


async def test_an_error_mixed_with_the_nurserys_own_cancellation_reaches_the_caller_only() -> None:
    started = trio.Event()
    async with trio.open_nursery() as callers, trio.open_nursery() as session:

        async def call() -> None:
            with pytest.RaisesGroup(WickedError):
                await run_in(session, fail_while_cancelled, started)

        callers.start_soon(call)
        await started.wait()
        session.cancel_scope.cancel(reason="test")


async def test_a_plain_except_would_let_the_mixed_error_past() -> None:
    """Why the barrier is written with ``except*``: the other way lets the parent die of it."""
    started = trio.Event()
    passed: list[BaseException] = []

    async def naive() -> None:
        try:
            await fail_while_cancelled(started)
        except Exception:  # noqa: BLE001 (the mistake under test)
            pytest.fail("the group holds a Cancelled, so it is no Exception")
        except BaseException as exc:
            passed.append(exc)
            raise

    with pytest.RaisesGroup(WickedError, flatten_subgroups=True):
        async with trio.open_nursery() as session:
            session.start_soon(naive)
            await started.wait()
            session.cancel_scope.cancel(reason="test")
    assert isinstance(passed[0], BaseExceptionGroup)


async def test_contain_logs_an_error_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise WickedError

    with caplog.at_level(logging.ERROR):
        await contain("session s1", fail)
    assert caplog.messages == ["session s1 failed"]
    assert "WickedError" in caplog.text


async def test_contain_stops_an_error_mixed_with_cancelled_and_lets_the_cancellation_through(
    caplog: pytest.LogCaptureFixture,
) -> None:
    started = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(contain, "session s1", fail_while_cancelled, started)
        await started.wait()
        nursery.cancel_scope.cancel(reason="test")
    assert caplog.messages == ["session s1 failed"]


async def test_contain_lets_cancellation_through(caplog: pytest.LogCaptureFixture) -> None:
    with trio.CancelScope() as scope:
        scope.cancel(reason="test")
        await contain("session s1", trio.sleep_forever)
        pytest.fail("not reached")
    assert scope.cancelled_caught
    assert not caplog.messages


async def test_activity_wakes_everybody_who_waits_and_nobody_who_comes_later(
    nursery: trio.Nursery,
) -> None:
    activity = Activity()
    woken: list[str] = []

    async def wait(name: str) -> None:
        await activity.next()
        woken.append(name)

    nursery.start_soon(wait, "one")
    nursery.start_soon(wait, "two")
    await wait_all_tasks_blocked()
    activity.note()
    nursery.start_soon(wait, "late")
    await wait_all_tasks_blocked()
    assert sorted(woken) == ["one", "two"]
    activity.note()
    await wait_all_tasks_blocked()
    assert sorted(woken) == ["late", "one", "two"]


async def test_wait_until_quiet_starts_again_each_time_something_is_noted(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    activity = Activity()
    begin = trio.current_time()

    async def three_times() -> None:
        for _ in range(3):
            await trio.sleep(9)
            activity.note()

    nursery.start_soon(three_times)
    await wait_until_quiet(activity, 10)
    assert trio.current_time() - begin == pytest.approx(3 * 9 + 10)
    assert autojump_clock.autojump_threshold == 0
