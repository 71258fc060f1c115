"""Whether one session has the loop for itself, or several parties need it in turn."""

from __future__ import annotations

from math import inf

import trio

__all__ = ["Traffic"]


class Traffic:
    """Who used the loop last. Whoever is alone may take long turns; in company they are short.

    A turn that handles 32 messages takes half a millisecond, and whoever comes in between waits for
    two of them; shorter ones cost every message more.
    """

    def __init__(self, shared_seconds: float) -> None:
        """Believe in company for so long after one party has followed another."""
        self._shared_seconds = shared_seconds
        self._shared_until = -inf
        self._last: object = None

    def note(self, who: object) -> None:
        """Say that ``who`` has something to do."""
        if who is not self._last:
            self._last = who
            self._shared_until = trio.current_time() + self._shared_seconds

    @property
    def shared(self) -> bool:
        """Whether several parties have had something to do lately."""
        return trio.current_time() < self._shared_until
