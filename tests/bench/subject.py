"""The servers that are measured: started as users start them, driven over HTTP and WebSockets."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from tests.bench.client import PATIENCE_SECONDS, Address, WebSocketClient, connect
from tests.bench.direct import ROOT
from tests.bench.machine import wait
from tests.bench.messages import new_id

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

TCP: Final = "tcp"
UNIX: Final = "socket"
_AT_ONCE: Final = 8


class Refused(Exception):
    """The server's answer was not the one that the benchmark needs."""


class Connection(http.client.HTTPConnection):
    """One kept-alive HTTP connection, over TCP or a Unix socket."""

    def __init__(self, address: Address) -> None:
        super().__init__("localhost", timeout=PATIENCE_SECONDS)
        self._address = address
        self.sock: socket.socket

    def connect(self) -> None:
        self.sock = connect(self._address)


class Http:
    """Requests to one server."""

    def __init__(self, address: Address, headers: dict[str, str]) -> None:
        self._connection = Connection(address)
        self._headers = headers

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """Give the body of the answer, which must be a success."""
        try:
            self.begin(method, path, body)
            return self.finish()
        except (http.client.RemoteDisconnected, BrokenPipeError):  # idle for too long
            self._connection.close()
            self.begin(method, path, body)
            return self.finish()

    def begin(self, method: str, path: str, body: object = None) -> None:
        """Send a request, whose answer `finish` gives."""
        data = None if body is None else json.dumps(body)
        headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
        self._connection.request(method, path, data, headers)

    def finish(self) -> bytes:
        """Give the body of the answer to what was begun; it must be a success."""
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= http.client.MULTIPLE_CHOICES:
            raise Refused(f"{response.status} {answer.decode()}")
        return answer

    def seconds(self, path: str) -> float:
        """Time a GET."""
        begin = time.perf_counter()
        self.ask("GET", path)
        return time.perf_counter() - begin

    def close(self) -> None:
        self._connection.close()


class Session(Protocol):
    """A running kernel behind a server."""

    def connect(self) -> WebSocketClient:
        """Open its channel."""


class Subject(Protocol):
    """A running server."""

    name: str
    pid: int
    ours: bool
    """Whether it has targets."""

    def session(self, argv: Sequence[str]) -> AbstractContextManager[Session]:
        """Start a kernel; it is ended at the end."""


@dataclass
class KallichoreSession:
    """A session of ours."""

    server: Kallichore
    id: str

    def start(self) -> float:
        """Start the kernel; seconds to the answer."""
        begin = time.perf_counter()
        self.server.http.ask("POST", f"/sessions/{self.id}/start")
        return time.perf_counter() - begin

    def channel(self) -> tuple[Address, str]:
        """Give where its channel is: an address and a path."""
        path = f"/sessions/{quote(self.id, safe='')}/channels"
        if self.server.transport == TCP:
            return self.server.address, path
        return json.loads(self.server.http.ask("GET", path)), "/"

    def connect(self) -> WebSocketClient:
        """See `Session`."""
        return WebSocketClient(*self.channel(), self.server.token)

    def describe(self) -> dict[str, object]:
        answer: dict[str, object] = json.loads(self.server.http.ask("GET", f"/sessions/{self.id}"))
        return answer

    def end(self) -> None:
        self.server.http.ask("POST", f"/sessions/{self.id}/kill")
        while self.describe()["status"] != "exited":
            wait(0.001)
        self.server.http.ask("DELETE", f"/sessions/{self.id}")


class Kallichore:
    """Our server; the process that was started is its guardian."""

    ours = True

    def __init__(self, transport: str, directory: Path, arguments: Sequence[str] = ()) -> None:
        """Start it and wait for its first answer."""
        self.name = f"kallichore {'TCP' if transport == TCP else 'Unix'}"
        self.transport = transport
        file = directory / f"{transport}.json"
        command = [sys.executable, "-m", "kallichore", "--transport", transport]
        command += ["--connection-file", str(file), "--socket-dir", str(directory)]
        begin = time.perf_counter()
        with (directory / f"{transport}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=log
            )
        assert self.process.stdout is not None
        said = self.process.stdout.readline().decode().strip()
        if not said:
            raise Refused((directory / f"{transport}.log").read_text())
        while not file.exists():
            wait(0.001)
        where = said.rpartition(" ")[2]
        host, _, port = where.rpartition(":")
        self.address: Address = (host, int(port)) if transport == TCP else where
        Http(self.address, {}).ask("GET", "/status")
        self.seconds_to_answer = time.perf_counter() - begin
        details = json.loads(file.read_bytes())
        self.pid: int = details["server_pid"]
        self.token: str | None = details["bearer_token"]
        self.http = self.new_http()

    def new_http(self) -> Http:
        """Open another connection, which the caller closes."""
        return Http(self.address, {"Authorization": f"Bearer {self.token}"})

    def create(self, argv: Sequence[str]) -> KallichoreSession:
        """Make a session that is not started yet."""
        body = {
            "session_id": f"bench-{new_id()[:12]}",
            "display_name": "Benchmark",
            "language": "fake",
            "username": "bench",
            "input_prompt": "",
            "continuation_prompt": "",
            "argv": list(argv),
            "session_mode": "console",
            "working_directory": str(ROOT),
            "env": [],
            "interrupt_mode": "signal",
            "startup_environment": "none",
        }
        answer = json.loads(self.http.ask("PUT", "/sessions", body))
        return KallichoreSession(self, answer["session_id"])

    @contextmanager
    def session(self, argv: Sequence[str]) -> Iterator[KallichoreSession]:
        """See `Subject`."""
        session = self.create(argv)
        session.start()
        try:
            yield session
        finally:
            session.end()

    def start_many(self, argv: Sequence[str], count: int) -> list[KallichoreSession]:
        """Start many kernels, eight at a time; they are left to the server's shutdown."""
        sessions = [self.create(argv) for _ in range(count)]
        for start in range(0, count, _AT_ONCE):
            start_together(sessions[start : start + _AT_ONCE])
        return sessions

    def shut_down(self) -> float:
        """Ask for the orderly shutdown; seconds until the processes are gone."""
        begin = time.perf_counter()
        self.http.ask("POST", "/shutdown")
        self.process.wait(PATIENCE_SECONDS)
        return time.perf_counter() - begin

    def close(self) -> None:
        """End it, one way or the other."""
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                os.kill(self.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def start_together(sessions: Sequence[KallichoreSession]) -> float:
    """Start some sessions at the same time; seconds until the last has answered."""
    with ExitStack() as stack:
        ways = [stack.enter_context(closing(each.server.new_http())) for each in sessions]
        for way in ways:
            way.ask("GET", "/status")  # connected, before the clock starts
        begin = time.perf_counter()
        for way, session in zip(ways, sessions, strict=True):
            way.begin("POST", f"/sessions/{session.id}/start")
        for way in ways:
            way.finish()
        return time.perf_counter() - begin


@contextmanager
def open_kallichore(transport: str, *arguments: str) -> Iterator[Kallichore]:
    """Start our server; it is ended at the end."""
    with tempfile.TemporaryDirectory(prefix="kc-bench-") as directory:
        server = Kallichore(transport, Path(directory), arguments)
        try:
            yield server
        finally:
            server.close()
