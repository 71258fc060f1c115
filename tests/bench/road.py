"""The road: messages a second, CPU per message, round trips; each against *loop* or *zmq*."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.client import WebSocketClient, request_frame
from tests.bench.direct import ROOT, open_kernel
from tests.bench.kernels import FAKE
from tests.bench.machine import CpuClock
from tests.bench.messages import command, new_id
from tests.bench.report import By, Figure, percentile
from tests.bench.subject import TCP, UNIX, open_kallichore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.plan import Plan
    from tests.bench.subject import Subject

SMALL: Final = 200
BIG: Final = 10_000
GENTLE_PER_SECOND: Final = 500
GENTLE_BURST: Final = 5
FLOOR: Final = "loop"
Rounds = dict[str, list[float]]


@dataclass
class Road:
    """One way from a fake kernel to a client."""

    name: str
    pid: int
    client: WebSocketClient

    def flood(self, count: int, size: int, **pace: int) -> tuple[float, float]:
        """Give messages a second, and the supervisor's CPU time per message in µs."""
        self.client.wait_quiet()
        with CpuClock(self.pid) as cpu:
            code = command("flood", count=count, size=size, **pace)
            self.client.send(request_frame(code, new_id()))
            flood = self.client.count_flood(count)
        if flood.disorder:
            raise RuntimeError(f"{self.name}: {flood.disorder} messages lost or out of order")
        self.client.wait_quiet()
        return count / flood.seconds, cpu.seconds / count * 1e6


@contextmanager
def open_road(subject: Subject) -> Iterator[Road]:
    """Start a session of a server and connect to it."""
    with subject.session(FAKE) as session, session.connect() as client:
        client.wait_quiet()
        yield Road(subject.name, subject.pid, client)


@contextmanager
def open_loop(transport: str) -> Iterator[Road]:
    """Start the *loop* floor between a kernel and a client."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _, path = stack.enter_context(open_kernel(FAKE))
        where = "tcp" if transport == TCP else str(directory / "loop.sock")
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.bench.loop", str(path), where],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        address = ("127.0.0.1", int(said)) if transport == TCP else said
        client = stack.enter_context(WebSocketClient(address, "/"))
        yield Road(f"{FLOOR} {'TCP' if transport == TCP else 'Unix'}", process.pid, client)


@contextmanager
def open_roads(*subjects: Subject) -> Iterator[list[Road]]:
    """Open one road through each server, and the two floors."""
    with ExitStack() as stack:
        roads = [stack.enter_context(open_loop(transport)) for transport in (TCP, UNIX)]
        roads += [stack.enter_context(open_road(subject)) for subject in subjects]
        yield roads


def interleave(
    rounds: int, roads: list[Road], measure: Callable[[Road], tuple[float, float]]
) -> tuple[Rounds, Rounds]:
    """Measure every road once a round, after one round for warming up."""
    first, second = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for number in range(rounds + 1):
        for road in roads:
            one, other = measure(road)
            if number:
                first[road.name].append(one)
                second[road.name].append(other)
    return first, second


def _floor_of(name: str, measured: Rounds) -> list[float]:
    return measured[f"{FLOOR} {'Unix' if name.endswith('Unix') else 'TCP'}"]


RUST_RATE: Final = {SMALL: "58 900", BIG: "31 400"}
RUST_CPU: Final = {SMALL: "10", BIG: "34"}


def throughput(plan: Plan, *subjects: Subject, when: str = "") -> list[Figure]:
    """Full speed: the first two rows of the table."""
    figures: list[Figure] = []
    with open_roads(*subjects) as roads:
        for size, count in ((SMALL, plan.small_messages), (BIG, plan.big_messages)):
            rates, costs = interleave(
                plan.rounds,
                roads,
                lambda road, c=count, s=size: road.flood(c, s),  # type: ignore[misc]
            )
            for subject in subjects:
                name, what = subject.name, f"{subject.name}: {size} B{when}"
                figures += [
                    Figure(
                        what=f"{what}, messages",
                        unit="/s",
                        rounds=rates[name],
                        floor_rounds=_floor_of(name, rates),
                        by=By.RATIO,
                        target=0.85 if subject.ours else None,
                        at_least=True,
                        rust=RUST_RATE[size] if subject.ours else "",
                    ),
                    Figure(
                        what=f"{what}, CPU per message",
                        unit="µs",
                        rounds=costs[name],
                        floor_rounds=_floor_of(name, costs),
                        by=By.RATIO,
                        target=1.2 if subject.ours else None,
                        rust=RUST_CPU[size] if subject.ours else "",
                    ),
                ]
    return figures


def gentle(plan: Plan, *subjects: Subject) -> list[Figure]:
    """CPU per message of a kernel that prints now and then."""
    pace = {"per_second": GENTLE_PER_SECOND, "burst": GENTLE_BURST}
    with open_roads(*subjects) as roads:
        _, costs = interleave(
            plan.rounds, roads, lambda road: road.flood(GENTLE_PER_SECOND, SMALL, **pace)
        )
    return [
        Figure(
            what=f"{subject.name}: {SMALL} B at {GENTLE_PER_SECOND}/s, CPU per message",
            unit="µs",
            rounds=costs[subject.name],
            floor_rounds=_floor_of(subject.name, costs),
            by=By.RATIO,
            target=2.0 if subject.ours else None,
        )
        for subject in subjects
    ]


def round_trips(plan: Plan, *subjects: Subject) -> list[Figure]:
    """An execution, from the request to its reply and its idle, over the same on ZeroMQ."""
    with ExitStack() as stack:
        direct, _ = stack.enter_context(open_kernel(FAKE))
        ways: dict[str, Callable[[str], float]] = {"zmq": direct.execute}
        for subject in subjects:
            ways[subject.name] = stack.enter_context(open_road(subject)).client.execute
        medians, tails = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
        for number in range(plan.rounds + 1):
            for name, execute in ways.items():
                times = [execute("pass") * 1000 for _ in range(plan.round_trips)]
                if number:
                    medians[name].append(percentile(times, 50))
                    tails[name].append(percentile(times, 99))
    return [
        Figure(
            what=f"{subject.name}: round trip {word}",
            unit="ms",
            rounds=measured[subject.name],
            floor_rounds=measured["zmq"],
            by=By.ADDED,
            target=target if subject.ours else None,
            rust=rust if subject.ours else "",
        )
        for subject in subjects
        for word, measured, target, rust in (
            ("p50", medians, 0.2, "+0.2 Unix, +43 TCP"),
            ("p99", tails, 1.0, ""),
        )
    ]


def measure(plan: Plan) -> list[Figure]:
    """Everything about the road, over both transports."""
    with open_kallichore(TCP) as tcp, open_kallichore(UNIX) as unix:
        return [
            *throughput(plan, tcp, unix),
            *gentle(plan, tcp, unix),
            *round_trips(plan, tcp, unix),
        ]
