"""Nothing lost under a flood, and no memory kept: clients that are prompt, stalled and absent."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from tests.bench.client import Flood, Gone, request_frame
from tests.bench.kernels import FAKE, FAKE_ON_LIBZMQ
from tests.bench.machine import MIB, cpu_seconds, memory_bytes, peak_memory, wait
from tests.bench.messages import command, new_id
from tests.bench.report import Figure
from tests.bench.subject import TCP, open_kallichore

if TYPE_CHECKING:
    from tests.bench.client import WebSocketClient
    from tests.bench.plan import Plan
    from tests.bench.subject import Kallichore, KallichoreSession

SMALL: Final = 200
BIG: Final = 10_000
STALLED_MESSAGES: Final = 20_000
"""Of 10 kB: 200 MB."""
ABSENT_DELAY_MS: Final = 300
GIVE_BACK_SECONDS: Final = 5.0
"""After this much the server has returned the memory that it no longer needs."""


def wait_idle(session: KallichoreSession) -> None:
    """Wait until the server has taken everything from a kernel that was given something to do."""
    seen: set[object] = set()
    while "busy" not in seen or session.describe()["status"] != "idle":
        seen.add(session.describe()["status"])
        wait(0.02)


def settle(pid: int) -> None:
    """Wait until a server has nothing to do."""
    before, now = -1.0, cpu_seconds(pid)
    while now - before > 0.01:
        wait(0.2)
        before, now = now, cpu_seconds(pid)


def _read(client: WebSocketClient, flood: Flood) -> None:
    try:
        client.until(flood)
    except (Gone, TimeoutError):
        return  # what is missing shows


def _prompt(session: KallichoreSession, code: str, _stall: float, flood: Flood) -> None:
    with session.connect() as client:
        client.send(request_frame(code, new_id()))
        _read(client, flood)


def _stalled(session: KallichoreSession, code: str, stall: float, flood: Flood) -> None:
    with session.connect() as client:
        client.send(request_frame(code, new_id()))
        wait(stall)
        _read(client, flood)


def _absent(session: KallichoreSession, code: str, stall: float, flood: Flood) -> None:
    with session.connect() as client:
        client.send(request_frame(code, new_id()))
        client.wait_quiet(ABSENT_DELAY_MS / 2000)
    wait(stall)
    with session.connect() as client:
        _read(client, flood)


def floods(plan: Plan, server: Kallichore) -> list[Figure]:
    """Each kind of client in turn; losses, disorder, and the server's memory at its peak."""
    figures: list[Figure] = []
    count = plan.flood_messages
    code = command("flood", count=count, size=SMALL, delay_ms=ABSENT_DELAY_MS)
    for name, scenario in (("prompt", _prompt), ("stalled", _stalled), ("absent", _absent)):
        with server.session(FAKE_ON_LIBZMQ) as session:
            flood = Flood(count)
            with peak_memory(server.pid) as grown:
                scenario(session, code, plan.stall_seconds, flood)
            figures += [
                Figure(
                    what=f"flood of {count}, client {name}: lost or out of order",
                    unit="messages",
                    rounds=[float(flood.lost + flood.disorder)],
                    target=0,
                ),
                Figure(
                    what=f"flood of {count}, client {name}: server grows by",
                    unit="MiB",
                    rounds=[grown[0] / MIB],
                    target=64,
                ),
            ]
        settle(server.pid)
    return figures


def stall(server: Kallichore) -> list[Figure]:
    """A client that does not read 200 MB, and then does."""
    with ExitStack() as stack:
        session = stack.enter_context(server.session(FAKE))
        client = stack.enter_context(session.connect())
        client.execute(command("flood", count=500, size=BIG))
        settle(server.pid)
        before = memory_bytes(server.pid)
        flood = Flood(STALLED_MESSAGES)
        with peak_memory(server.pid) as grown:
            client.send(request_frame(command("flood", count=STALLED_MESSAGES, size=BIG), new_id()))
            wait_idle(session)
            wait(GIVE_BACK_SECONDS)
        waiting = memory_bytes(server.pid) - before
        _read(client, flood)
        wait(GIVE_BACK_SECONDS)
        left = memory_bytes(server.pid) - before
    what = "client stalled through 200 MB: server"
    return [
        Figure(
            what=f"{what} grows at most by",
            unit="MiB",
            rounds=[grown[0] / MIB],
            target=20,
            rust="210",
        ),
        Figure(
            what=f"{what} holds while it is stalled",
            unit="MiB",
            rounds=[waiting / MIB],
            target=20,
            rust="210",
        ),
        Figure(
            what=f"{what} keeps when all is read",
            unit="MiB",
            rounds=[left / MIB],
            target=10,
            rust="210",
        ),
        Figure(
            what="lost or out of order then",
            unit="messages",
            rounds=[float(flood.lost + flood.disorder)],
            target=0,
        ),
    ]


def measure(plan: Plan) -> list[Figure]:
    """All of it, each part on a fresh server."""
    with open_kallichore(TCP) as server:
        figures = stall(server)
    with open_kallichore(TCP) as server:
        return figures + floods(plan, server)
