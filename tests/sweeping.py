"""Cancelling an operation at each of its steps in turn (STYLE 3.10)."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["CancelAtStep", "EachStep", "sweep"]


class CancelAtStep(trio.abc.Instrument):
    """Cancels ``scope`` at the n-th scheduling step from now on."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope, self._left = scope, step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 (Trio's)
        if self._left == 0:
            self._scope.cancel(reason="sweep")
        self._left -= 1


class EachStep(trio.abc.Instrument):
    """Calls a function before each scheduling step, as any other task might look then."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 (Trio's)
        self._look()


async def sweep(scenario: Callable[[CancelAtStep, trio.CancelScope], Awaitable[None]]) -> int:
    """Run a scenario again and again, cancelled one step later each time; give the last step.

    The scenario adds the instrument when its operation begins, and runs the operation in the scope.
    It ends when the operation has ended before it was to be cancelled.
    """
    for step in count():
        scope = trio.CancelScope()
        instrument = CancelAtStep(scope, step)
        try:
            await scenario(instrument, scope)
        finally:
            trio.lowlevel.remove_instrument(instrument)
        if not scope.cancel_called:
            return step
    raise AssertionError
