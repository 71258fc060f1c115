"""A kernel that does nothing, fast: it answers, echoes, floods and emits buffers on command.

Run as ``python -m tests.bench.fake_kernel CONNECTION_FILE [libzmq]``. What it will send is made and
signed before the first of it is sent. It never drops on its own side (no high-water mark), and it
flushes before it ends, because pyzmq does not.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Final

import zmq

from tests.bench.messages import DELIMITER, Connection, Signer, flood, header, new_id
from tests.bench.publisher import WirePublisher, ZmqPublisher

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.publisher import Publisher

FLUSH_MS: Final = 5000
INFO: Final = (
    b'{"status": "ok", "protocol_version": "5.3", "implementation": "fake", '
    b'"implementation_version": "1", "banner": "", "help_links": [], "language_info": '
    b'{"name": "fake", "version": "1", "mimetype": "text/plain", "file_extension": ""}}'
)
OK: Final = b'{"status": "ok", "execution_count": 1, "user_expressions": {}, "payload": []}'
REPLIES: Final = {"kernel_info_request": INFO, "execute_request": OK}


class FakeKernel:
    """All five sockets in one loop."""

    def __init__(self, connection: Connection, *, libzmq: bool) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._signer = Signer(connection.key)
        self._ready: dict[int, bytes] = {}
        self._iopub: Publisher = (
            ZmqPublisher(self._context, connection.address("iopub"))
            if libzmq
            else WirePublisher(connection.ip, connection.ports["iopub"])
        )
        self._heart = self._bind(zmq.REP, connection.address("hb"))
        self._stdin = self._bind(zmq.ROUTER, connection.address("stdin"))
        self._requests = [
            self._bind(zmq.ROUTER, connection.address(channel)) for channel in ("shell", "control")
        ]
        self._commands: dict[str, Callable[[bytes, dict[str, int]], None]] = {
            "flood": self._flood,
            "buffer": self._buffer,
        }

    def _bind(self, kind: int, address: str) -> zmq.Socket[bytes]:
        opened = self._context.socket(kind)
        opened.set(zmq.SNDHWM, 0)
        opened.bind(address)
        return opened

    def run(self) -> None:
        """Serve until a `shutdown_request`; then flush and end."""
        poller = zmq.Poller()
        for opened in (*self._requests, self._heart):
            poller.register(opened, zmq.POLLIN)
        if self._iopub.incoming is not None:
            poller.register(self._iopub.incoming, zmq.POLLIN)
        over = False
        while not over:
            for ready, _ in sorted(poller.poll(), key=lambda pair: not isinstance(pair[0], int)):
                if isinstance(ready, int):
                    self._iopub.accept()
                elif ready is self._heart:
                    self._beat()
                else:
                    over |= self._answer(ready)
        for opened in (*self._requests, self._heart, self._stdin):
            opened.close(FLUSH_MS)
        self._iopub.close(FLUSH_MS)
        self._context.term()

    def _beat(self, milliseconds: float = 0) -> None:
        if self._heart.poll(int(milliseconds)):
            self._heart.send_multipart(self._heart.recv_multipart())

    def _publish(self, msg_type: str, parent: bytes, content: bytes, *buffers: bytes) -> None:
        parts = (header(new_id(), msg_type), parent, b"{}", content)
        frames = [msg_type.encode(), DELIMITER, self._signer.sign(*parts), *parts, *buffers]
        self._iopub.publish([frames], self._beat)

    def _answer(self, asking: zmq.Socket[bytes]) -> bool:
        """Answer one request; whether it was the last."""
        frames = asking.recv_multipart()
        start = frames.index(DELIMITER)
        identities, parent, content = frames[:start], frames[start + 2], frames[start + 5]
        asked = str(json.loads(parent)["msg_type"])
        self._publish("status", parent, b'{"execution_state": "busy"}')
        if asked == "execute_request" and (code := json.loads(content)["code"]).startswith("{"):
            wanted = json.loads(code)
            self._commands[wanted["do"]](parent, wanted)
        answer = REPLIES.get(asked, b'{"status": "ok"}')
        parts = (header(new_id(), asked.replace("_request", "_reply")), parent, b"{}", answer)
        asking.send_multipart([*identities, DELIMITER, self._signer.sign(*parts), *parts])
        self._publish("status", parent, b'{"execution_state": "idle"}')
        return asked == "shutdown_request"

    def _flood(self, parent: bytes, wanted: dict[str, int]) -> None:
        """Send ``count`` messages of ``size`` bytes of content, all at once or ``per_second``."""
        self._beat(wanted.get("delay_ms", 0))
        ready = list(flood(self._signer, parent, wanted["count"], wanted["size"]))
        if not wanted.get("per_second"):
            self._iopub.publish(ready, self._beat)
            return
        begin = time.monotonic()
        for start in range(0, len(ready), wanted["burst"]):
            while (early := begin + start / wanted["per_second"] - time.monotonic()) > 0:
                self._beat(early * 1000 + 1)
            self._iopub.publish(ready[start : start + wanted["burst"]], self._beat)

    def _buffer(self, parent: bytes, wanted: dict[str, int]) -> None:
        """Display something with one big random buffer, which is made the first time only."""
        size = wanted["bytes"]
        if size not in self._ready:
            self._ready[size] = os.urandom(size)
        content = b'{"data": {"application/octet-stream": ""}, "metadata": {}, "transient": {}}'
        self._publish("display_data", parent, content, self._ready[size])


if __name__ == "__main__":
    gc.disable()  # it would walk through everything that is about to be sent
    FakeKernel(Connection.read(sys.argv[1]), libzmq="libzmq" in sys.argv).run()
