"""What one session that floods costs the others, and what `GET` requests cost the road."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from tests.bench.direct import ROOT, open_kernel
from tests.bench.kernels import FAKE
from tests.bench.report import By, Figure, percentile
from tests.bench.subject import TCP, open_kallichore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.plan import Plan
    from tests.bench.subject import Kallichore, KallichoreSession

STATUS_REQUESTS: Final = 200


@contextmanager
def flooding(session: KallichoreSession) -> Iterator[None]:
    """Let a session flood its client, which is another process, for as long as this is open."""
    address, path = session.channel()
    token = session.server.token
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.drain", json.dumps(address), path, token or ""],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.stdin.close()
        process.stdout.read()


def measure(plan: Plan) -> list[Figure]:
    """Round trips of one session and `GET /status`, while another session is quiet and floods."""
    server: Kallichore
    with ExitStack() as stack:
        server = stack.enter_context(open_kallichore(TCP))
        loud = stack.enter_context(server.session(FAKE))
        client = stack.enter_context(stack.enter_context(server.session(FAKE)).connect())
        direct, _ = stack.enter_context(open_kernel(FAKE))
        client.wait_quiet()
        ways: dict[str, tuple[Callable[[], float], int]] = {
            "round trip of another session": (lambda: client.execute("pass"), plan.round_trips),
            "GET /status": (lambda: server.http.seconds("/status"), plan.round_trips),
            "round trip without a server": (lambda: direct.execute("pass"), plan.round_trips),
        }
        quiet: dict[str, list[float]] = {name: [] for name in ways}
        loaded: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(plan.rounds):
            _once(ways, quiet)
            with flooding(loud):
                _once(ways, loaded)
    targets = {"round trip of another session": (2.0, "+6"), "GET /status": (1.0, "")}
    notes = {"round trip without a server": "what the machine itself adds with all its cores busy"}
    return [
        Figure(
            what=f"one session floods: {name}, p99",
            unit="ms",
            rounds=loaded[name],
            floor_rounds=quiet[name],
            by=By.ADDED,
            target=targets[name][0] if name in targets else None,
            rust=targets[name][1] if name in targets else "",
            note=notes.get(name, ""),
        )
        for name in ways
    ]


def _once(
    ways: dict[str, tuple[Callable[[], float], int]], measured: dict[str, list[float]]
) -> None:
    for name, (once, count) in ways.items():
        measured[name].append(percentile((once() * 1000 for _ in range(count)), 99))
