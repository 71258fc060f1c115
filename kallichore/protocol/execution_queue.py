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
        self.held.append(execution)
        return Place.HELD

    def advance(self) -> Execution | None:
        """End the active execution; give the next one, which is now active."""
        self.active = self.held.popleft() if self.held else None
        return self.active

    def withdraw(self, execution: Execution) -> bool:
        """Take a held request out again; false if it is not held (any more)."""
        try:
            self.held.remove(execution)
        except ValueError:
            return False
        return True

    def clear_held(self) -> list[Execution]:
        """Take out everything that waits, in order."""
        held = list(self.held)
        self.held.clear()
        return held
