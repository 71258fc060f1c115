"""A kernel with nothing between: launched by us, talked to over ZeroMQ by a blocking client."""

from __future__ import annotations

import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zmq

from kallichore.config import Limits
from kallichore.kernel.connection import PortPool
from tests.bench.messages import (
    CHANNELS,
    DELIMITER,
    Connection,
    Signer,
    header,
    new_id,
    request_parts,
    signed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT: Final = Path(__file__).parents[2]
RECONNECT_MS: Final = 5
PATIENCE_MS: Final = 30_000
_ports = PortPool(Limits())


class DirectClient:
    """Shell and iopub of one kernel, connected as a supervisor would."""

    def __init__(self, connection: Connection) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.signer = Signer(connection.key)
        self.shell = self._open(zmq.DEALER, connection.address("shell"))
        self.iopub = self._open(zmq.SUB, connection.address("iopub"))
        self.others = [
            self._open(kind, connection.address(channel))
            for channel, kind in (("control", zmq.DEALER), ("stdin", zmq.DEALER), ("hb", zmq.REQ))
        ]

    def _open(self, kind: int, address: str) -> zmq.Socket[bytes]:
        opened = self._context.socket(kind)
        opened.set(zmq.LINGER, 0)
        opened.set(zmq.RCVHWM, 0)
        opened.set(zmq.RCVTIMEO, PATIENCE_MS)
        opened.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        if kind == zmq.SUB:
            opened.set(zmq.SUBSCRIBE, b"")
        opened.connect(address)
        return opened

    def close(self) -> None:
        for opened in (self.shell, self.iopub, *self.others):
            opened.close()

    def request(self, code: str) -> list[bytes]:
        """Make a signed `execute_request`; its id is that of no other."""
        head, content = request_parts(code, new_id())
        return signed(self.signer, [head, b"{}", b"{}", content])

    def ask_info(self) -> None:
        head = header(new_id(), "kernel_info_request")
        self.shell.send_multipart(signed(self.signer, [head, b"{}", b"{}", b"{}"]))

    def wait_ready(self) -> None:
        """Return when the kernel answers and its iopub knows of our subscription."""
        heard = False
        while not heard:
            self.ask_info()
            self.shell.recv_multipart()
            heard = bool(self.iopub.poll(20))
        self.forget()

    def forget(self) -> None:
        """Throw away what has come, or still comes."""
        for opened in (self.shell, self.iopub):
            while opened.poll(50):
                opened.recv_multipart()

    def check(self, frames: list[bytes]) -> Sequence[bytes]:
        """Give header, parent header, metadata and content of a message, if they are signed."""
        start = frames.index(DELIMITER) + 1
        parts = frames[start + 1 : start + 5]
        if self.signer.sign(*parts) != frames[start]:
            raise RuntimeError("a wrong signature")
        return parts

    def round_trip(self, request: list[bytes]) -> float:
        """Send a request; seconds until its reply and its idle are both here."""
        begin = time.perf_counter()
        self.shell.send_multipart(request)
        while b'"idle"' not in self.check(self.iopub.recv_multipart())[3]:
            pass
        self.check(self.shell.recv_multipart())
        return time.perf_counter() - begin

    def execute(self, code: str) -> float:
        return self.round_trip(self.request(code))


def draw_connection() -> Connection:
    """Take five free ports, and a key.

    They are none of those that the system gives to outgoing connections: a client that knocks at
    such a port again and again before the kernel is there will in the end be connected to itself.
    """
    ports = dict(zip(CHANNELS, _ports.reserve(len(CHANNELS)), strict=True))
    return Connection("127.0.0.1", new_id().encode(), ports)


def launch(
    argv: Sequence[str], connection_file: Path
) -> tuple[DirectClient, subprocess.Popen[bytes]]:
    """Launch a kernel that has been asked for its info; the caller ends it.

    Everything is connected before the process is spawned, which is the fastest there is.
    """
    connection = draw_connection()
    connection.write(connection_file)
    client = DirectClient(connection)
    client.ask_info()
    process = subprocess.Popen(
        [part.replace("{connection_file}", str(connection_file)) for part in argv],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return client, process


@contextmanager
def open_kernel(argv: Sequence[str]) -> Iterator[tuple[DirectClient, Path]]:
    """Launch a kernel with nothing between; give its client and its connection file."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "kernel.json"
        client, process = launch(argv, path)
        with process:
            try:
                client.shell.recv_multipart()
                client.wait_ready()
                yield client, path
            finally:
                client.close()
                process.kill()
