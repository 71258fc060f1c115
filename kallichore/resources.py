"""What kernels use: processor time, memory and threads of a process tree (CONTRACT 4).

Only known processes and what is below them are looked at. The `Sampler` is one task; it rests on an
event while there is nothing to measure.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar, final

import trio

from kallichore import _platform
from kallichore.models import ResourceUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from kallichore._platform import ProcessFacts
    from kallichore.config import Configurable, Limits

__all__ = ["Reading", "Sampler", "cpu_percent", "read_tree"]

Subject = TypeVar("Subject", bound="Hashable")
"""Whoever has the process, a session."""

MILLISECONDS: Final = 1000


class Reading(NamedTuple):
    """A process tree at one moment."""

    at: float
    """On the clock that `cpu_percent` measures with."""
    processes: Mapping[int, ProcessFacts]
    """By pid; the first is the top of the tree."""

    @property
    def memory_bytes(self) -> int:
        """Resident memory of all processes; what they share counts for each."""
        return sum(facts.resident_bytes for facts in self.processes.values())

    @property
    def thread_count(self) -> int:
        """Threads of all processes."""
        return sum(facts.threads for facts in self.processes.values())


def read_tree(pid: int, *, at: float, include_children: bool, limit: int) -> Reading | None:
    """Look at a process and, if wanted, at most ``limit`` below it; None if it has exited."""
    top = _platform.process_facts(pid)
    if top is None or top.zombie:
        return None
    processes = {pid: top}
    if include_children:
        for descendant in _platform.descendants(pid, limit):
            facts = _platform.process_facts(descendant)
            if facts is not None:
                processes[descendant] = facts
    return Reading(at, processes)


def cpu_percent(before: Reading, after: Reading) -> int:
    """Return the share of one core that a tree has used between two readings, in percent.

    Processes that came and went in between are counted if their parents have waited for them: their
    time is then in what the parent waited for, together with what was counted of them before.
    """
    seconds = after.at - before.at
    if seconds <= 0:
        return 0
    own = 0.0
    waited = 0.0
    for pid, now in after.processes.items():
        then = before.processes.get(pid)
        if then is None or then.start_time != now.start_time:
            own += now.cpu_seconds
            waited += now.waited_cpu_seconds
        else:
            own += now.cpu_seconds - then.cpu_seconds
            waited += now.waited_cpu_seconds - then.waited_cpu_seconds
    for pid, then in before.processes.items():
        now_there = after.processes.get(pid)
        if now_there is None or now_there.start_time != then.start_time:
            waited -= then.cpu_seconds + then.waited_cpu_seconds
    return max(0, round(100 * (own + max(0.0, waited)) / seconds))


@final
class Sampler(Generic[Subject]):
    """Measures those that are to be measured, at the pace that the configuration sets."""

    def __init__(
        self,
        subjects: Callable[[], Iterable[tuple[Subject, int]]],
        report: Callable[[Subject, ResourceUsage], None],
        configurable: Configurable,
        limits: Limits,
    ) -> None:
        """Prepare to measure.

        Args:
            subjects: Gives who is to be measured now, each with the pid of its process.
            report: Is called with each measurement.
            configurable: Is looked at before each round.
            limits: How much is looked at.
        """
        self._subjects = subjects
        self._report = report
        self._configurable = configurable
        self._limits = limits
        self._changed = trio.Event()
        self._readings: dict[tuple[Subject, int], Reading] = {}

    def wake(self) -> None:
        """Say that there may be others to measure now, or that the configuration has changed."""
        self._changed.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        """Measure until cancelled.

        A subject is first reported when it has been measured for one interval.
        """
        due = trio.current_time()
        while True:
            changed = self._changed
            seconds = self._configurable.resource_sample_interval_ms / MILLISECONDS
            subjects = list(self._subjects()) if seconds > 0 else []
            self._begin(subjects)
            if not subjects:
                await changed.wait()
                due = trio.current_time()
                continue
            due = min(due, trio.current_time() + seconds)
            with trio.move_on_at(due):
                await changed.wait()
                continue
            due = trio.current_time() + seconds
            await self._measure(list(self._subjects()), seconds)

    def _begin(self, subjects: list[tuple[Subject, int]]) -> None:
        """Take the first reading of those that are new, and forget those that are gone."""
        for gone in self._readings.keys() - set(subjects):
            del self._readings[gone]
        for subject in subjects:
            if subject not in self._readings:
                self._read(subject)

    async def _measure(self, subjects: list[tuple[Subject, int]], seconds: float) -> None:
        """Measure and report, letting other tasks have their turn in between.

        Who has joined in the middle of the interval waits for the next round: the system counts
        time in steps too large for less.
        """
        for subject in subjects:
            before = self._readings.get(subject)
            if before is None or trio.current_time() - before.at >= seconds / 2:
                after = self._read(subject)
                if before is not None and after is not None:
                    self._report(subject[0], self._usage(before, after))
            await trio.lowlevel.checkpoint()

    def _read(self, subject: tuple[Subject, int]) -> Reading | None:
        reading = read_tree(
            subject[1],
            at=trio.current_time(),
            include_children=self._configurable.resource_include_children,
            limit=self._limits.sampled_processes,
        )
        if reading is None:
            self._readings.pop(subject, None)
        else:
            self._readings[subject] = reading
        return reading

    def _usage(self, before: Reading, after: Reading) -> ResourceUsage:
        return ResourceUsage(
            cpu_percent=cpu_percent(before, after),
            memory_bytes=after.memory_bytes,
            thread_count=after.thread_count,
            sampling_period_ms=self._configurable.resource_sample_interval_ms,
            timestamp=int(time.time() * MILLISECONDS),
        )
