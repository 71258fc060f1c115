"""Beginnings and ends: of kernels, and of the server itself."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.direct import launch
from tests.bench.kernels import FAKE, IPYKERNEL
from tests.bench.machine import MIB, memory_bytes
from tests.bench.report import By, Figure
from tests.bench.subject import TCP, UNIX, open_kallichore, start_together

if TYPE_CHECKING:
    from tests.bench.plan import Plan
    from tests.bench.subject import Kallichore

TOGETHER: Final = 10
KERNELS: Final = 25


def _direct_starts(count: int) -> float:
    """Start kernels at the same time with nothing between; seconds until all have answered."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        clients, processes = [], []
        begin = time.perf_counter()
        for number in range(count):
            client, process = launch(IPYKERNEL, directory / f"{number}.json")
            clients.append(client)
            processes.append(process)
        for client in clients:
            client.shell.recv_multipart()
        seconds = time.perf_counter() - begin
        for client, process in zip(clients, processes, strict=True):
            client.close()
            process.kill()
            process.wait()
    return seconds


def _server_starts(server: Kallichore, count: int) -> float:
    sessions = [server.create(IPYKERNEL) for _ in range(count)]
    seconds = start_together(sessions)
    for session in sessions:
        session.end()
    return seconds


def kernels(plan: Plan, server: Kallichore) -> list[Figure]:
    """From `/start` to its answer, alone and ten at once."""
    alone: list[float] = []
    alone_direct: list[float] = []
    together: list[float] = []
    together_direct: list[float] = []
    for number in range(plan.starts + 1):
        one, bare = _server_starts(server, 1), _direct_starts(1)
        if number:
            alone.append(one * 1000)
            alone_direct.append(bare * 1000)
    for _ in range(max(1, plan.starts // 3)):
        together.append(_server_starts(server, TOGETHER) * 1000)
        together_direct.append(_direct_starts(TOGETHER) * 1000)
    return [
        Figure(
            what="ipykernel: /start to answer",
            unit="ms",
            rounds=alone,
            floor_rounds=alone_direct,
            by=By.ADDED,
            target=25,
            rust="1 470",
        ),
        Figure(
            what=f"ipykernel: {TOGETHER} /start at once, to the last answer",
            unit="ms",
            rounds=together,
            floor_rounds=together_direct,
            by=By.RATIO,
            target=1.1,
            rust="1 760",
        ),
    ]


def server_life(plan: Plan) -> list[Figure]:
    """From the server's start to its first answer; from `/shutdown` to its end."""
    answers, sizes, loaded, empty, full = [], [], [], [], []
    for _ in range(plan.shutdowns):
        with open_kallichore(UNIX) as server:
            answers.append(server.seconds_to_answer * 1000)
            sizes.append(memory_bytes(server.pid) / MIB)
            loaded.append(server.http.seconds("/sessions") * 1000)
            empty.append(server.shut_down() * 1000)
    for _ in range(max(1, plan.shutdowns // 2)):
        with open_kallichore(UNIX) as server:
            server.start_many(FAKE, KERNELS)
            full.append(server.shut_down() * 1000)
    return [
        Figure(
            what="process start to answering /status",
            unit="ms",
            rounds=answers,
            target=250,
            rust="10",
        ),
        Figure(what="memory then", unit="MiB", rounds=sizes, target=50, rust="8"),
        Figure(
            what="first request but /status, right after that",
            unit="ms",
            rounds=loaded,
            note="it waits for Quart and Hypercorn, which are loaded behind the door",
        ),
        Figure(
            what="empty server: /shutdown to gone",
            unit="ms",
            rounds=empty,
            target=150,
            rust="1 000",
        ),
        Figure(
            what=f"server with {KERNELS} kernels: /shutdown to gone",
            unit="ms",
            rounds=full,
            target=1500,
            rust="600 (10)",
        ),
    ]


def measure(plan: Plan) -> list[Figure]:
    """All of it."""
    with open_kallichore(TCP) as server:
        figures = kernels(plan, server)
    return figures + server_life(plan)
