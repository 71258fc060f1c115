"""Other servers from PyPI on the same work, with the same client: Jupyter Server, Kernel Gateway.

They are installed into an environment of their own, which is kept for the next time. Their limits
on a kernel's output are switched off, so that they show what they can.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench import road
from tests.bench.client import WebSocketClient, info_request_frame
from tests.bench.direct import ROOT, draw_connection
from tests.bench.kernels import FAKE, IPYKERNEL
from tests.bench.machine import MIB, memory_bytes, wait
from tests.bench.messages import new_id
from tests.bench.report import Figure, progress
from tests.bench.subject import TCP, Http, Refused, open_kallichore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.plan import Plan
    from tests.bench.subject import Kallichore, Subject

PACKAGES: Final = ["jupyter_server", "jupyter_kernel_gateway", "ipykernel"]
HOME: Final = Path(tempfile.gettempdir()) / "kallichore-bench-peers"
TOKEN: Final = "bench"
NO_LIMITS: Final = [
    "--ZMQChannelsWebsocketConnection.iopub_msg_rate_limit=1e9",
    "--ZMQChannelsWebsocketConnection.iopub_data_rate_limit=1e12",
]
COMMANDS: Final = {
    "Jupyter Server": [
        "jupyter_server",
        "--allow-root",
        "--no-browser",
        f"--IdentityProvider.token={TOKEN}",
        "--ServerApp.port={port}",
        *NO_LIMITS,
    ],
    "Kernel Gateway": [
        "kernel_gateway",
        f"--KernelGatewayApp.auth_token={TOKEN}",
        "--KernelGatewayApp.port={port}",
        *NO_LIMITS,
    ],
}


def install() -> Path:
    """Make the environment; give its Python."""
    python = HOME / "bin" / "python"
    if not (HOME / "complete").exists():
        progress(f"installing {', '.join(PACKAGES)} into {HOME}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", HOME], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (HOME / "complete").touch()
    return python


@dataclass
class PeerSession:
    """A kernel behind a peer."""

    server: Peer
    id: str

    def connect(self) -> WebSocketClient:
        """See `Session`."""
        path = f"/api/kernels/{self.id}/channels?session_id={new_id()}&token={TOKEN}"
        return WebSocketClient(self.server.address, path)


class Peer:
    """One other server (a `Subject`)."""

    ours = False

    def __init__(self, name: str, python: Path, directory: Path) -> None:
        """Start it and wait for its first answer."""
        self.name = name
        port = draw_connection().ports["shell"]
        self.address = ("127.0.0.1", port)
        self.http = Http(self.address, {"Authorization": f"token {TOKEN}"})
        for kernel, argv in (("fake", FAKE), ("real", IPYKERNEL)):
            spec = directory / "data" / "kernels" / kernel / "kernel.json"
            spec.parent.mkdir(parents=True)
            spec.write_text(
                json.dumps(
                    {
                        "argv": argv,
                        "display_name": kernel,
                        "language": kernel,
                        "env": {"PYTHONPATH": str(ROOT)},
                    }
                )
            )
        folders = {f"JUPYTER_{each}_DIR": str(directory / each) for each in ("CONFIG", "RUNTIME")}
        begin = time.perf_counter()
        with (directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [python, "-m", *(part.format(port=port) for part in COMMANDS[name])],
                cwd=directory,
                env={**os.environ, **folders, "JUPYTER_PATH": str(directory / "data")},
                stdout=log,
                stderr=log,
            )
        self.pid = self.process.pid
        while not self._answers():
            if self.process.poll() is not None:
                raise Refused((directory / "log").read_text())
            wait(0.005)
        self.seconds_to_answer = time.perf_counter() - begin

    def _answers(self) -> bool:
        try:
            self.http.ask("GET", "/api")
        except (OSError, HTTPException):
            self.http.close()
            return False
        return True

    @contextmanager
    def session(self, argv: Sequence[str]) -> Iterator[PeerSession]:
        """See `Subject`."""
        name = "fake" if list(argv) == FAKE else "real"
        answer = json.loads(self.http.ask("POST", "/api/kernels", {"name": name}))
        try:
            yield PeerSession(self, answer["id"])
        finally:
            self.http.ask("DELETE", f"/api/kernels/{answer['id']}")

    def close(self) -> None:
        """End it."""
        self.http.close()
        self.process.terminate()
        self.process.wait()


@contextmanager
def open_peer(name: str, python: Path) -> Iterator[Peer]:
    """Start a peer; it is ended at the end."""
    with tempfile.TemporaryDirectory(prefix="kc-bench-") as directory:
        peer = Peer(name, python, Path(directory))
        try:
            yield peer
        finally:
            peer.close()


def first_answer(subject: Subject) -> float:
    """Time from asking for an ipykernel to its answer on the channel."""
    begin = time.perf_counter()
    with subject.session(IPYKERNEL) as session, session.connect() as client:
        msg_id = new_id()
        client.round_trip(info_request_frame(msg_id), msg_id)
        return time.perf_counter() - begin


def starts(plan: Plan, subjects: Sequence[Subject]) -> list[Figure]:
    """From asking for a kernel to its first answer to a client."""
    times: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    for number in range(plan.starts + 1):
        for subject in subjects:
            seconds = first_answer(subject)
            if number:
                times[subject.name].append(seconds * 1000)
    return [
        Figure(what=f"{name}: ipykernel, request to first answer", unit="ms", rounds=rounds)
        for name, rounds in times.items()
    ]


def measure(plan: Plan) -> list[Figure]:
    """Ours and theirs, interleaved. They are slow, so the floods are short."""
    python = install()
    short = replace(plan, small_messages=5_000, big_messages=2_000, rounds=plan.rounds // 2 + 1)
    with ExitStack() as stack:
        ours = stack.enter_context(open_kallichore(TCP))
        peers = [stack.enter_context(open_peer(name, python)) for name in COMMANDS]
        servers: list[Kallichore | Peer] = [ours, *peers]
        figures = [
            Figure(what=f"{server.name}: {what}", unit=unit, rounds=[value])
            for server in servers
            for what, unit, value in (
                ("process start to first answer", "ms", server.seconds_to_answer * 1000),
                ("memory then", "MiB", memory_bytes(server.pid) / MIB),
            )
        ]
        subjects: list[Subject] = [*servers]
        figures += starts(plan, subjects)
        figures += road.throughput(short, *subjects)
        figures += road.gentle(short, *subjects)
        return figures + road.round_trips(short, *subjects)
