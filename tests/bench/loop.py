"""The *loop* floor: the least that work on the road can cost in Python, in a process of its own.

Blocking pyzmq receive, HMAC, splice, and a `sendall` of up to 64 messages; no event loop, nothing
checked but the signature. It reads one request at a time from its client, and is otherwise blind.
Run as ``python -m tests.bench.loop CONNECTION_FILE tcp|PATH``; says on stdout where it listens.
"""

from __future__ import annotations

import hmac
import json
import socket
import struct
import sys
from typing import Final

import zmq

from tests.bench.direct import DirectClient
from tests.bench.messages import Connection, Signer, signed

BATCH: Final = 64
_SHORT: Final = 126
_MEDIUM: Final = 1 << 16
_NOBLOCK: Final = int(zmq.NOBLOCK)


def frame(payload: bytes) -> bytes:
    length = len(payload)
    if length < _SHORT:
        return bytes((0x81, length)) + payload
    if length < _MEDIUM:
        return struct.pack("!BBH", 0x81, 126, length) + payload
    return struct.pack("!BBQ", 0x81, 127, length) + payload


class Loop:
    """One kernel, one client."""

    def __init__(self, connection: Connection, stream: socket.socket) -> None:
        self._signer = Signer(connection.key)
        kernel = DirectClient(connection)
        kernel.wait_ready()
        self._shell, self._iopub = kernel.shell, kernel.iopub
        self._stream = stream
        self._file = stream.makefile("rb")
        self._batch: list[bytes] = []

    def upgrade(self) -> None:
        while self._file.readline().strip():
            pass
        self._stream.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")

    def run(self) -> None:
        """Carry one request after the other, with everything that comes of it."""
        while request := self._read_request():
            self._shell.send_multipart(request)
            while not self._carry(self._next()):
                if len(self._batch) >= BATCH:
                    self._flush()
            self._carry(self._shell.recv_multipart())
            self._flush()

    def _next(self) -> list[bytes]:
        try:
            return self._iopub.recv_multipart(_NOBLOCK)
        except zmq.Again:
            self._flush()
            return self._iopub.recv_multipart()

    def _read_request(self) -> list[bytes]:
        head = self._file.read(2)
        if not head:
            return []
        length = head[1] & 0x7F
        if length >= _SHORT:
            length = int.from_bytes(self._file.read(2 if length == _SHORT else 8), "big")
        mask, payload = self._file.read(4), self._file.read(length)
        pad = (mask * (length // 4 + 1))[:length]
        mixed = int.from_bytes(payload, "little") ^ int.from_bytes(pad, "little")
        request = json.loads(mixed.to_bytes(length, "little"))
        parts = [json.dumps(request[key]).encode() for key in ("header", "parent_header")]
        return signed(self._signer, [*parts, b"{}", json.dumps(request["content"]).encode()])

    def _carry(self, frames: list[bytes]) -> bool:
        """Check, splice and keep a message; whether it is the request's idle."""
        topic = frames[0]
        signature, header, parent, metadata, content = frames[-5:]
        if not hmac.compare_digest(self._signer.sign(header, parent, metadata, content), signature):
            raise SystemExit("a wrong signature")
        self._batch.append(
            frame(
                b'{"kind":"jupyter","header":%b,"parent_header":%b,"channel":"iopub",'
                b'"content":%b,"metadata":%b,"buffers":[]}' % (header, parent, content, metadata)
            )
        )
        return topic == b"status" and b'"idle"' in content

    def _flush(self) -> None:
        if self._batch:
            self._stream.sendall(b"".join(self._batch))
            self._batch.clear()


def main(connection_file: str, where: str) -> None:
    if where == "tcp":
        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(where)
        listener.listen()
        print(where, flush=True)
    stream, _ = listener.accept()
    if where == "tcp":
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    loop = Loop(Connection.read(connection_file), stream)
    loop.upgrade()
    loop.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
