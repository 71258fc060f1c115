"""Requests that came before their kernel (CONTRACT 3.6): they wait for it, in order."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kallichore.config import Limits
    from kallichore.protocol.events import ClientRequested

__all__ = ["EarlyRequests"]


class EarlyRequests:
    """At most so many, and so many bytes, of them."""

    def __init__(self, limits: Limits) -> None:
        """Begin with none."""
        self._limits = limits
        self._waiting: deque[ClientRequested] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: ClientRequested) -> bool:
        """Have one wait; false if too much waits already."""
        size = self._bytes + request.message.size
        if len(self._waiting) >= self._limits.client_messages_waiting:
            return False
        if size > self._limits.client_bytes_waiting:
            return False
        self._waiting.append(request)
        self._bytes = size
        return True

    def take(self) -> list[ClientRequested]:
        """Take them all out."""
        taken, self._bytes = list(self._waiting), 0
        self._waiting.clear()
        return taken

    def take_executions(self) -> list[ClientRequested]:
        """Take out those that ask for an execution; what else waits goes on waiting."""
        taken: list[ClientRequested] = []
        kept: deque[ClientRequested] = deque()
        for request in self._waiting:
            execution = request.message.msg_type == "execute_request"
            (taken if execution else kept).append(request)
        self._waiting = kept
        self._bytes -= sum(request.message.size for request in taken)
        return taken
