"""What kernels use, and when it is measured."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from kallichore import resources
from kallichore._platform import ProcessFacts
from kallichore.config import Configurable, Limits
from kallichore.resources import Reading, Sampler, cpu_percent, read_tree

if TYPE_CHECKING:
    from kallichore.models import ResourceUsage


def facts(
    cpu: float = 0, waited: float = 0, *, started: int = 1, memory: int = 0, threads: int = 1
) -> ProcessFacts:
    return ProcessFacts(
        parent=1,
        group=1,
        session=1,
        zombie=False,
        start_time=started,
        cpu_seconds=cpu,
        waited_cpu_seconds=waited,
        resident_bytes=memory,
        threads=threads,
    )


def test_a_tree_is_measured_with_or_without_children() -> None:
    script = "sleep 1000 & sleep 1000 & echo; wait"
    with subprocess.Popen(
        ["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            alone = read_tree(process.pid, at=0, include_children=False, limit=100)
            tree = read_tree(process.pid, at=0, include_children=True, limit=100)
            some = read_tree(process.pid, at=0, include_children=True, limit=1)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert alone is not None
    assert tree is not None
    assert some is not None
    assert (alone.thread_count, some.thread_count, tree.thread_count) == (1, 2, 3)
    assert 0 < alone.memory_bytes <= tree.memory_bytes


def test_a_process_that_has_exited_has_no_reading() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert read_tree(process.pid, at=0, include_children=True, limit=1) is None
    assert read_tree(process.pid, at=0, include_children=True, limit=1) is None


def test_a_busy_process_uses_one_core_and_its_children_more() -> None:
    """The parent waits for children that burn time; one runs at each of the two readings."""
    burn = "import time\nwhile time.process_time() < 0.1: pass"
    code = f"""
import subprocess, sys
for _ in range(3): subprocess.run([sys.executable, '-S', '-c', {burn!r}])
print(flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        before = read_tree(process.pid, at=0, include_children=True, limit=100)
        process.stdout.readline()
        after = read_tree(process.pid, at=1, include_children=True, limit=100)
        process.kill()
    assert before is not None
    assert after is not None
    assert 25 <= cpu_percent(before, after) <= 100


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [
        ({1: facts(1)}, {1: facts(1.5)}, 50),
        ({1: facts(1)}, {1: facts(3)}, 200),
        ({1: facts(1)}, {1: facts(1), 2: facts(0.25)}, 25),
        # a child that was seen before has ended, and was waited for
        ({1: facts(1), 2: facts(4)}, {1: facts(1, waited=4.5)}, 50),
        # it has ended, and nobody has waited for it
        ({1: facts(1), 2: facts(4)}, {1: facts(1.25)}, 25),
        # it came and went between the readings
        ({1: facts(1)}, {1: facts(1, waited=0.75)}, 75),
        # another process has its pid
        ({1: facts(1), 2: facts(9)}, {1: facts(1), 2: facts(0.5, started=2)}, 50),
        ({1: facts(1)}, {1: facts(1)}, 0),
    ],
)
def test_processor_time_of_a_tree(
    before: dict[int, ProcessFacts], after: dict[int, ProcessFacts], percent: int
) -> None:
    assert cpu_percent(Reading(0, before), Reading(1, after)) == percent
    assert cpu_percent(Reading(1, before), Reading(1, after)) == 0


class World:
    """Sessions, what their processes use, and what is reported of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.subjects: dict[str, int] = {}
        self.used: dict[int, float] = {}
        """By pid, how many seconds of processor time in a second."""
        self.reported: list[tuple[float, str, ResourceUsage]] = []
        self.configurable = Configurable()
        self.sampler = Sampler(self.current, self.report, self.configurable, Limits())
        self.with_children: list[bool] = []
        monkeypatch.setattr(resources, "read_tree", self.read_tree)

    def current(self) -> list[tuple[str, int]]:
        return list(self.subjects.items())

    def read_tree(
        self, pid: int, *, at: float, include_children: bool, limit: int
    ) -> Reading | None:
        assert limit == Limits().sampled_processes
        self.with_children.append(include_children)
        if pid not in self.used:
            return None
        return Reading(at, {pid: facts(at * self.used[pid], memory=pid * 1000, threads=pid)})

    def report(self, subject: str, usage: ResourceUsage) -> None:
        self.reported.append((trio.current_time(), subject, usage))

    def add(self, subject: str, pid: int, used: float = 0.5) -> None:
        self.subjects[subject] = pid
        self.used[pid] = used
        self.sampler.wake()

    def times(self, subject: str) -> list[float]:
        return [round(at, 3) for at, who, _ in self.reported if who == subject]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_every_interval_each_is_reported(
    world: World, nursery: trio.Nursery, autojump_clock: object
) -> None:
    nursery.start_soon(world.sampler.run)
    world.add("a", 3)
    world.add("b", 4, used=2)
    await trio.sleep(3.5)
    assert world.times("a") == world.times("b") == [1, 2, 3]
    usage = world.reported[1][2]
    assert usage.cpu_percent == 200
    assert usage.memory_bytes == 4000
    assert usage.thread_count == 4
    assert usage.sampling_period_ms == 1000
    assert abs(usage.timestamp - time.time() * 1000) < 60_000
    assert all(world.with_children)


async def test_with_nobody_to_measure_it_does_not_even_tick(
    world: World, nursery: trio.Nursery, autojump_clock: object
) -> None:
    nursery.start_soon(world.sampler.run)
    await trio.testing.wait_all_tasks_blocked()
    assert math.isinf(trio.lowlevel.current_statistics().seconds_to_next_deadline)
    world.add("a", 1)
    await trio.sleep(1.5)
    assert world.times("a") == [1]
    world.subjects.clear()
    await trio.sleep(1)
    await trio.testing.wait_all_tasks_blocked()
    assert math.isinf(trio.lowlevel.current_statistics().seconds_to_next_deadline)
    assert world.times("a") == [1]


async def test_who_joins_late_waits_for_a_whole_enough_interval(
    world: World, nursery: trio.Nursery, autojump_clock: object
) -> None:
    nursery.start_soon(world.sampler.run)
    world.add("a", 1)
    await trio.sleep(1.25)
    world.add("early", 2)
    await trio.sleep(0.5 + 1e-9)
    world.add("late", 3, used=0.75)
    await trio.sleep(2)
    assert world.times("a") == [1, 2, 3]
    assert world.times("early") == [2, 3]
    assert world.times("late") == [3]
    assert {usage.cpu_percent for _, who, usage in world.reported if who == "late"} == {75}


async def test_a_change_of_the_interval_takes_effect_at_once(
    world: World, nursery: trio.Nursery, autojump_clock: object
) -> None:
    world.configurable.resource_sample_interval_ms = 100_000
    world.configurable.resource_include_children = False
    nursery.start_soon(world.sampler.run)
    world.add("a", 1)
    await trio.sleep(10)
    world.configurable.resource_sample_interval_ms = 2000
    world.sampler.wake()
    await trio.sleep(5)
    assert world.times("a") == [12, 14]
    assert not any(world.with_children)
    world.configurable.resource_sample_interval_ms = 0
    world.sampler.wake()
    await trio.sleep(100)
    assert world.times("a") == [12, 14]
    world.configurable.resource_sample_interval_ms = 2000
    world.sampler.wake()
    await trio.sleep(3)
    assert world.times("a") == [12, 14, 117]


async def test_a_process_that_is_gone_is_left_out(
    world: World, nursery: trio.Nursery, autojump_clock: object
) -> None:
    nursery.start_soon(world.sampler.run)
    world.add("a", 1)
    world.add("b", 2)
    await trio.sleep(1.5)
    del world.used[1]
    await trio.sleep(1)
    assert (world.times("a"), world.times("b")) == ([1], [1, 2])
    world.add("a", 3)  # restarted
    await trio.sleep(2)
    assert world.times("a") == [1, 3, 4]
