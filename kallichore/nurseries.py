"""The few Trio helpers that the rest of the package may lean on.

`run_in` and `contain` are the two barriers of the nursery tree: the only places where a failure
stops on its way up. `Activity` is how a task waits for things to happen, or to stop happening.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import trio
from outcome import Error, Outcome, Value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Activity", "SessionGone", "contain", "hand_over", "run_in", "wait_until_quiet"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = logging.getLogger(__name__)


class SessionGone(Exception):
    """The nursery that a piece of work was borrowed from ended before the work did."""


async def run_in(nursery: trio.Nursery, async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run ``async_fn`` as a child of another nursery, as though it were called here.

    Its result or its error comes back to the caller, and never reaches the other nursery. The child
    inherits the caller's context variables.

    Cancelling the caller cancels the child and waits for it, however long its own (bounded) cleanup
    takes; a result that came at that very moment is lost, an error is not. Cancelling the nursery
    cancels the child.

    Raises:
        SessionGone: The nursery was closed already, or was cancelled before the child ended.

    """
    scope, done, result = trio.CancelScope(), trio.Event(), list[Outcome[T]]()

    async def child() -> None:
        try:
            with scope:
                try:
                    try:
                        result.append(Value(await async_fn(*args)))
                    except Exception as exc:  # noqa: BLE001 (the usual case, handed over bare)
                        result.append(Error(exc))
                except* Exception as group:  # noqa: BLE001 (an error mixed with Cancelled)
                    result.append(Error(group))
        finally:
            done.set()

    try:
        nursery.start_soon(child)
    except RuntimeError as exc:  # Trio's word for a nursery that has ended
        raise SessionGone from exc
    try:
        await done.wait()
    except trio.Cancelled:
        scope.cancel(reason="the caller was cancelled")
        with trio.CancelScope(shield=True):  # as long as the child's own cleanup, which is bounded
            await done.wait()
        if result:
            result[0].unwrap()  # a failed cleanup outranks the cancellation
        raise
    if not result:
        raise SessionGone
    return result[0].unwrap()


async def contain(what: str, async_fn: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
    """Run ``async_fn``; log any `Exception` as the failure of ``what`` and go on.

    Cancellation passes through, also when it arrives in one group with an error.
    """
    try:
        await async_fn(*args)
    except* Exception as group:
        log.error("%s failed", what, exc_info=group)  # noqa: TRY400 (the group, not its last part)


class Activity:
    """Something that happens now and then: one side notes it, others wait for the next time."""

    def __init__(self) -> None:
        self._next: trio.Event | None = None

    def note(self) -> None:
        """Say that it has happened; everybody who waits wakes up."""
        if self._next is not None:
            self._next.set()
            self._next = None

    async def next(self) -> None:
        """Wait until it happens again, counted from this call. Cancelling it changes nothing."""
        if self._next is None:
            self._next = trio.Event()
        await self._next.wait()


async def wait_until_quiet(activity: Activity, seconds: float) -> None:
    """Return once nothing has been noted for ``seconds``. Cancelling it changes nothing."""
    while True:
        with trio.move_on_after(seconds) as quiet:
            await activity.next()
        if quiet.cancelled_caught:
            return


async def hand_over(nursery: trio.Nursery, async_fn: Callable[[], Awaitable[T]]) -> T:
    """Have ``async_fn`` done in another nursery, and wait for it.

    Unlike with `run_in`, cancelling the caller leaves the work going on; an error that then finds
    nobody waiting is logged.

    Raises:
        SessionGone: The nursery was closed already, or was cancelled before the work was done.

    """
    done, result = trio.Event(), list[Outcome[T]]()
    caller_waits = True

    async def child() -> None:
        try:
            try:
                try:
                    result.append(Value(await async_fn()))
                except Exception as exc:  # noqa: BLE001 (the usual case, handed over bare)
                    result.append(Error(exc))
            except* Exception as group:  # noqa: BLE001 (an error mixed with Cancelled)
                result.append(Error(group))
        finally:
            done.set()
            if not caller_waits and result and isinstance(result[0], Error):
                log.warning("Nobody waited for an error: %s", result[0].error)

    try:
        nursery.start_soon(child)
    except RuntimeError as exc:  # Trio's word for a nursery that has ended
        raise SessionGone from exc
    try:
        await done.wait()
    finally:
        caller_waits = False
    if not result:
        raise SessionGone
    return result[0].unwrap()
