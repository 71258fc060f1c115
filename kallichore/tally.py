"""What a server has done since it started: counts that outlive the sessions they were made in."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import msgspec

__all__ = ["Counters", "StartTimes", "Tally"]


class Counters(msgspec.Struct):
    """What went by in one session, or in all that are gone."""

    messages_from_kernel: int = 0
    messages_to_kernel: int = 0
    bytes_to_client: int = 0
    bytes_to_kernel: int = 0
    bad_signatures: int = 0
    malformed: int = 0
    unusable_frames: int = 0
    dropped_frames: int = 0

    def add(self, other: Counters) -> None:
        """Add what another counted."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class StartTimes:
    """A histogram of how long starts took, in seconds."""

    BOUNDS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)

    def __init__(self) -> None:
        """Nothing yet."""
        self.counts = [0] * (len(self.BOUNDS) + 1)
        self.total = 0.0

    def note(self, seconds: float) -> None:
        """Count a start."""
        self.counts[bisect_left(self.BOUNDS, seconds)] += 1
        self.total += seconds


class Tally:
    """One server's counts."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.starts = 0
        self.failed_starts = 0
        self.restarts = 0
        self.lost_port_races = 0
        self.start_times = StartTimes()
        self.gone = Counters()
        """What was counted in sessions that are gone."""
        self.loop_lag_seconds = 0.0
        """How late the loop last woke a task that had slept."""
        self.worst_loop_lag_seconds = 0.0
