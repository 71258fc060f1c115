"""Which execution the kernel works on, and which wait behind it (CONTRACT 3.6)."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kallichore.protocol.execution import Execution

__all__ = ["ExecutionQueue", "Place"]


class Place(Enum):
    """Where a request went."""

    ACTIVE = "it goes to the kernel now"
    HELD = "it waits behind another"
    REFUSED = "too many wait already"


class ExecutionQueue:
    """At most one active execution and a bounded number of held ones, in order of arrival."""

    def __init__(self, limit: int) -> None:
        """Hold at most ``limit`` requests behind the active one."""
        self._limit = limit
        self.active: Execution | None = None
        self.held: deque[Execution] = deque()

    def offer(self, execution: Execution) -> Place:
        """Place a request."""
        if self.active is None:
            self.active = execution
            return Place.ACTIVE
        if len(self.held) >= self._limit:
            return Place.REFUSED
        execution.held_since_idle = self.active.idle
        self.held.append(execution)
        return Place.HELD

    def advance(self) -> Execution | None:
        """End the active execution; give the next one, which is now active."""
        self.active = self.held.popleft() if self.held else None
        for execution in self.held:
            execution.held_since_idle = False
        return self.active

    def withdraw(self, execution: Execution) -> bool:
        """Take a held request out again; false if it is not held (any more)."""
        try:
            self.held.remove(execution)
        except ValueError:
            return False
        return True

    def clear_held(self, *, active_failed: bool = False) -> list[Execution]:
        """Take out everything that waits, in order.

        A failure of the active execution is no concern of those that came after its idle.
        """
        held, self.held = self.held, deque()
        if active_failed:
            self.held.extend(one for one in held if one.held_since_idle)
        return [one for one in held if not (active_failed and one.held_since_idle)]
