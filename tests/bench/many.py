"""Many sessions: 25 that echo at once, 25 that are idle, hundreds that are merely there."""

from __future__ import annotations

import selectors
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import zmq

from tests.bench import road
from tests.bench.client import Exchange, request_frame
from tests.bench.direct import open_kernel
from tests.bench.kernels import FAKE
from tests.bench.machine import CpuClock, cpu_seconds, descriptors, memory_bytes, wait
from tests.bench.messages import new_id
from tests.bench.report import By, Figure, percentile
from tests.bench.subject import TCP, open_kallichore

if TYPE_CHECKING:
    from tests.bench.client import WebSocketClient
    from tests.bench.direct import DirectClient
    from tests.bench.plan import Plan
    from tests.bench.subject import Kallichore

KERNELS: Final = 25
LISTED: Final = 100
GETS: Final = 200
LIST_GETS: Final = 40


def echo_directly(clients: list[DirectClient], seconds: float) -> float:
    """Keep one request in flight at each kernel; round trips a second."""
    poller = zmq.Poller()
    owners: dict[zmq.Socket[bytes], DirectClient] = {}
    waiting = dict.fromkeys(map(id, clients), 2)
    for client in clients:
        for opened in (client.shell, client.iopub):
            owners[opened] = client
            poller.register(opened, zmq.POLLIN)
        client.shell.send_multipart(client.request("pass"))
    done, begin = 0, time.perf_counter()
    while (now := time.perf_counter()) < begin + seconds:
        for opened, _ in poller.poll():
            client = owners[opened]
            while opened.get(zmq.EVENTS) & zmq.POLLIN:
                content = client.check(opened.recv_multipart())[3]
                waiting[id(client)] -= opened is client.shell or b'"idle"' in content
            if not waiting[id(client)]:
                waiting[id(client)] = 2
                done += 1
                client.shell.send_multipart(client.request("pass"))
    return done / (now - begin)


def echo(clients: list[WebSocketClient], seconds: float) -> float:
    """Keep one request in flight in each session; round trips a second."""
    with selectors.DefaultSelector() as selector:
        waiting: dict[WebSocketClient, Exchange] = {}

        def ask(client: WebSocketClient) -> None:
            msg_id = new_id()
            waiting[client] = Exchange(msg_id)
            client.send(request_frame("pass", msg_id))

        for client in clients:
            selector.register(client.stream, selectors.EVENT_READ, client)
            ask(client)
        done, begin = 0, time.perf_counter()
        while (now := time.perf_counter()) < begin + seconds:
            for key, _ in selector.select():
                client = key.data
                if client.advance(waiting[client]):
                    done += 1
                    ask(client)
        return done / (now - begin)


def busy(plan: Plan, server: Kallichore) -> list[Figure]:
    """25 kernels at once: round trips a second, and what one costs the server."""
    rates, floor, costs = [], [], []
    with ExitStack() as stack:
        direct = [stack.enter_context(open_kernel(FAKE))[0] for _ in range(KERNELS)]
        sessions = server.start_many(FAKE, KERNELS)
        clients = [stack.enter_context(session.connect()) for session in sessions]
        for number in range(plan.rounds + 1):
            for client in clients:
                client.wait_quiet(0.01)
            bare = echo_directly(direct, plan.many_seconds)
            wait(0.2)
            for kernel in direct:
                kernel.forget()
            with CpuClock(server.pid) as cpu:
                rate = echo(clients, plan.many_seconds)
            if number:
                floor.append(bare)
                rates.append(rate)
                costs.append(cpu.seconds / (rate * plan.many_seconds) * 1e6)
    return [
        Figure(
            what=f"{KERNELS} kernels echo at once, round trips",
            unit="/s",
            rounds=rates,
            floor_rounds=floor,
            by=By.RATIO,
            target=0.65,
            at_least=True,
            rust="x 1.1",
        ),
        Figure(
            what="server CPU per round trip then", unit="µs", rounds=costs, target=250, rust="114"
        ),
    ]


def idle(plan: Plan) -> list[Figure]:
    """25 sessions with a client each, doing nothing, sampled once a second."""
    with ExitStack() as stack:
        server = stack.enter_context(open_kallichore(TCP))
        with server.session(FAKE) as session, session.connect() as client:
            client.execute("pass")
        memory, fds = memory_bytes(server.pid), descriptors(server.pid)
        sessions = server.start_many(FAKE, KERNELS)
        for session in sessions:
            stack.enter_context(session.connect()).execute("pass")
        wait(1)
        each = (memory_bytes(server.pid) - memory) / KERNELS / 1000
        opened = (descriptors(server.pid) - fds) / KERNELS
        seconds = 5 * plan.many_seconds
        before = cpu_seconds(server.pid)
        wait(seconds)
        share = (cpu_seconds(server.pid) - before) / seconds * 100
    return [
        Figure(what="idle session: memory", unit="kB", rounds=[each], target=300, rust="110"),
        Figure(what="idle session: descriptors", unit="", rounds=[opened], target=12, rust="11"),
        Figure(what=f"CPU, {KERNELS} idle sessions", unit="%", rounds=[share], target=2, rust="3"),
    ]


def requests(plan: Plan, server: Kallichore) -> list[Figure]:
    """`GET` requests with 100 sessions, and how long one keeps the road waiting."""
    sessions = server.start_many(FAKE, LISTED)
    with sessions[0].connect() as client:
        client.wait_quiet()
        alone, beside = [], []
        for _ in range(LIST_GETS * plan.rounds):
            alone.append(client.execute("pass") * 1000)
            server.http.begin("GET", "/sessions")
            beside.append(client.execute("pass") * 1000)
            server.http.finish()
    status = [server.http.seconds("/status") * 1000 for _ in range(GETS)]
    listing = [server.http.seconds("/sessions") * 1000 for _ in range(LIST_GETS)]
    return [
        Figure(what="GET /status, p50", unit="ms", rounds=status, target=1),
        Figure(
            what=f"GET /sessions with {LISTED} sessions, p50",
            unit="ms",
            rounds=listing,
            target=8,
            rust="1.6 (25)",
        ),
        Figure(
            what="round trip beside one GET /sessions, p99",
            unit="ms",
            rounds=[percentile(beside, 99)],
            floor_rounds=[percentile(alone, 99)],
            by=By.ADDED,
            target=2,
        ),
    ]


def hundreds(plan: Plan) -> list[Figure]:
    """The figures of the first row again, with hundreds of sessions open."""
    count = plan.many_sessions
    with open_kallichore(TCP) as server:
        figures = requests(plan, server)
        server.start_many(FAKE, max(0, count - LISTED))
        return figures + road.throughput(plan, server, when=f", {max(count, LISTED)} sessions")


def measure(plan: Plan) -> list[Figure]:
    """All of it."""
    with open_kallichore(TCP) as server:
        figures = busy(plan, server)
    return [*figures, *idle(plan), *hundreds(plan)]
