"""What a session's client has yet to read: finished WebSocket frames, in memory, then on disk.

Frames are numbered from 1 in the order they were appended. A frame stays until `release` says that
its write has completed, so a dying connection loses at most what the operating system had taken.
Beyond the memory bound frames go to the spool; beyond the disk bound, or when the disk is full,
stream output makes way, never a reply or a status (CONTRACT 5.4).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from kallichore.spool import Numbered, Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from kallichore.config import Limits
    from kallichore.spool import Dropped
    from kallichore.traffic import Traffic

__all__ = ["MemoryBudget", "Outbox"]

_OVERHEAD: Final = 120
"""What keeping one frame costs beside its bytes: object headers and the queue's own entry."""


def _wake() -> bool:
    return False


class MemoryBudget:
    """Bytes that the outboxes of all sessions keep in memory together."""

    def __init__(self, limit: int) -> None:
        """Allow ``limit`` bytes in all."""
        self.limit = limit
        self.used = 0


class Outbox:
    """One session's undelivered frames. One reader at a time, any number of writers."""

    def __init__(
        self,
        limits: Limits,
        budget: MemoryBudget,
        traffic: Traffic,
        spool_directory: Path,
        notice: Callable[[Dropped], bytes],
    ) -> None:
        """Begin empty; ``notice`` makes the frame that tells a client what was dropped."""
        self._limits = limits
        self._budget = budget
        self._traffic = traffic
        self._queue: deque[Numbered] = deque()
        self._in_flight: list[Numbered] = []
        self._memory = 0
        self._spool = Spool(spool_directory, limits, notice)
        self._spool_memory = 0
        self._tail: deque[Numbered] = deque()
        self._tail_bytes = 0
        self._keep_tail = False
        self._waiter: trio.Event | None = None
        self._at_once: Callable[[], bool] = _wake
        self._batches = 0
        self._hurries = False
        self.last_seq = 0
        self.delivered = 0
        """The number of the last frame that the present reader has."""

    def __len__(self) -> int:
        """Frames in memory that wait."""
        return len(self._queue) + len(self._in_flight)

    @property
    def spooled_bytes(self) -> int:
        """Bytes on disk."""
        return self._spool.size

    @property
    def dropped_frames(self) -> int:
        """Frames that had to make way so far."""
        return self._spool.dropped_frames

    @property
    def empty(self) -> bool:
        """Whether the client has everything."""
        return not (self._queue or self._in_flight or self._spool)

    # -- writing --------------------------------------------------------------------------------

    def append(self, frame: bytes, *, droppable: bool = False) -> None:
        """Add a frame and wake the reader. Never waits."""
        self.last_seq += 1
        cost = len(frame) + _OVERHEAD
        if (
            self._spool
            or (self._memory + cost > self._limits.outbox_memory_bytes and self._queue)
            or self._budget.used + cost > self._budget.limit
        ):
            tight = self._budget.used + cost > self._budget.limit
            self._spool.append(self.last_seq, frame, droppable=droppable, tight=tight)
            self._account_for_spool()
        else:
            self._memory += cost
            self._budget.used += cost
            self._queue.append(Numbered(self.last_seq, frame))
        if self._waiter is not None and not self._batches:
            self._waiter.set()

    def begin_batch(self) -> None:
        """Announce frames that belong together: the reader hears of them at the end of the batch.

        A batch may begin within another; then the end of the outer one counts.
        """
        self._batches += 1

    def hurry(self) -> None:
        """Say that somebody waits for what this batch brings, and that it is whole."""
        self._hurries = self._batches > 0

    def end_batch(self) -> None:
        """Wake the reader if something has come, or have that dealt with at once after `hurry`."""
        self._batches -= 1
        if self._batches:
            return
        hurries, self._hurries = self._hurries, False
        waiter = self._waiter
        self._traffic.note(self)
        if waiter is None or waiter.is_set() or not (self._queue or self._spool):
            return
        # While many talk, their readers' turns are cheap and the system serves several of them at
        # a time; woken one by one they would cost a tenth more.
        if not (hurries and not self._traffic.shared and self._at_once()):
            waiter.set()

    def poke(self) -> None:
        """Wake the reader without a frame."""
        if self._waiter is not None:
            self._waiter.set()

    # -- reading --------------------------------------------------------------------------------

    async def wait(self, at_once: Callable[[], bool] | None = None) -> None:
        """Return when there may be something to take, or after `poke`.

        At the end of a batch that hurries ``at_once`` is called first, by the task that brings it,
        which spares a turn of the loop; it must not wait, and says whether nothing is left.
        Cancellation is harmless.
        """
        self._waiter = trio.Event()
        self._at_once = at_once or _wake
        try:
            await self._waiter.wait()
        finally:
            self._waiter, self._at_once = None, _wake  # a client that is gone is not kept

    def take(self, size: int) -> list[Numbered]:
        """Give the next frames, up to about ``size`` bytes, at least one if there is any.

        They stay in the outbox until they are released.
        """
        while not self._queue and self._spool:
            self._load()
        queue, taken = self._queue, self._in_flight
        while queue and size > 0:
            numbered = queue.popleft()
            size -= len(numbered.frame)
            taken.append(numbered)
        return taken

    def release(self, count: int) -> None:
        """Forget the first ``count`` frames taken: their write has completed."""
        done = self._in_flight[:count]
        del self._in_flight[:count]
        if done:
            self.delivered = done[-1].seq
        freed = sum(len(numbered.frame) for numbered in done) + _OVERHEAD * len(done)
        self._memory -= freed
        self._budget.used -= freed
        if self._keep_tail:
            self._tail.extend(done)
            self._tail_bytes += freed
            while self._tail_bytes > self._limits.resume_tail_bytes and len(self._tail) > 1:
                self._tail_bytes -= len(self._tail.popleft().frame) + _OVERHEAD

    def _load(self) -> None:
        """Bring the oldest file's worth of frames back into memory."""
        loaded = self._spool.load()
        self._account_for_spool()
        self._account(loaded)
        self._queue.extend(loaded)

    def _account_for_spool(self) -> None:
        """Note what the spool has in memory before it writes."""
        grown = self._spool.memory_bytes - self._spool_memory
        self._spool_memory += grown
        self._memory += grown
        self._budget.used += grown

    def _account(self, frames: Iterable[Numbered]) -> None:
        """Note what frames that come back into memory cost there."""
        cost = sum(len(numbered.frame) + _OVERHEAD for numbered in frames)
        self._memory += cost
        self._budget.used += cost

    # -- readers come and go --------------------------------------------------------------------

    def begin(self, after: int | None) -> int | None:
        """Start over with a new reader.

        What an earlier one took and did not release comes first again. ``after`` is the number of
        the last frame a resuming client has, None if it does not resume.

        Returns:
            The number of the oldest frame still here, if frames that a resuming client wants are
            gone; else None.
        """
        self._queue.extendleft(reversed(self._in_flight))
        self._in_flight.clear()
        self._keep_tail = after is not None
        tail, self._tail, self._tail_bytes = self._tail, deque(), 0
        if after is None:
            return None
        # A number that was never given is one of another life: all of this one is news.
        known = after if after <= self.last_seq else 0
        self.delivered = known
        again = [numbered for numbered in tail if numbered.seq > known]
        self._account(again)
        self._queue.extendleft(reversed(again))
        self._skip(known)
        oldest = self._queue[0].seq if self._queue else self.last_seq + 1
        return oldest if oldest != after + 1 else None

    def _skip(self, after: int) -> None:
        """Forget what a resuming client says it has."""
        while True:
            if not self._queue:
                self._spool.skip(after)
                self._account_for_spool()
                if self._spool:
                    self._load()
            if not self._queue or self._queue[0].seq > after:
                return
            cost = len(self._queue.popleft().frame) + _OVERHEAD
            self._memory -= cost
            self._budget.used -= cost

    def close(self) -> None:
        """Forget everything and delete the files."""
        self._budget.used -= self._memory
        self._memory = self._spool_memory = 0
        self._queue.clear()
        self._in_flight.clear()
        self._tail.clear()
        self._spool.close()
