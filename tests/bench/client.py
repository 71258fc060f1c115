"""A blocking WebSocket client that costs next to nothing, so that the server is the bottleneck.

It reads in big pieces, walks from frame to frame, and only looks for what it waits for.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Final, Self

from tests.bench.messages import FLOOD_MARK, MESSAGE_DIGITS, header, new_id, request_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READ_BYTES: Final = 1 << 20
PATIENCE_SECONDS: Final = 30.0
HEAD_BYTES: Final = 2000
"""Within this much of a message its type, its parent and, of a status, its state are found."""
_TEXT: Final = 0x81
_PING: Final = 0x9
_CLOSE: Final = 0x8
_SHORT: Final = 126
_MEDIUM: Final = 1 << 16
Address = tuple[str, int] | str


class Gone(Exception):
    """The server closed the connection, or said nothing for too long."""


def connect(address: Address) -> socket.socket:
    """Connect to a TCP address or to a Unix socket."""
    if isinstance(address, str):
        stream = socket.socket(socket.AF_UNIX)
    else:
        stream = socket.socket(socket.AF_INET)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.settimeout(PATIENCE_SECONDS)
    stream.connect(address)
    return stream


def masked(payload: bytes) -> bytes:
    """Make a finished text frame of a client."""
    length = len(payload)
    if length < _SHORT:
        head = struct.pack("!BB", _TEXT, 0x80 | length)
    elif length < _MEDIUM:
        head = struct.pack("!BBH", _TEXT, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", _TEXT, 0x80 | 127, length)
    key = os.urandom(4)
    pad = (key * (length // 4 + 1))[:length]
    mixed = int.from_bytes(payload, "little") ^ int.from_bytes(pad, "little")
    return head + key + mixed.to_bytes(length, "little")


def request_frame(code: str, msg_id: str, buffers: Sequence[bytes] = ()) -> bytes:
    """Make the frame of an `execute_request`."""
    head, content = request_parts(code, msg_id)
    return _frame(head, content, "shell", buffers)


def _frame(head: bytes, content: bytes, channel: str, buffers: Sequence[bytes]) -> bytes:
    encoded = b",".join(b'"%b"' % base64.b64encode(buffer) for buffer in buffers)
    return masked(
        b'{"header":%b,"parent_header":{},"channel":"%b","content":%b,"metadata":{},"buffers":[%b]}'
        % (head, channel.encode(), content, encoded)
    )


def info_request_frame(msg_id: str) -> bytes:
    """Make the frame of a `kernel_info_request`."""
    return _frame(header(msg_id, "kernel_info_request"), b"{}", "shell", ())


class WebSocketClient:
    """One channel of one session."""

    def __init__(self, address: Address, path: str, token: str | None = None) -> None:
        """Connect and upgrade."""
        self.stream = connect(address)
        host = "localhost" if isinstance(address, str) else f"{address[0]}:{address[1]}"
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        ]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        self.stream.sendall("\r\n".join([*lines, "", ""]).encode())
        self._buffer = bytearray()
        self._room = memoryview(bytearray(READ_BYTES))
        while b"\r\n\r\n" not in self._buffer:
            self._read()
        answer, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 101"):
            raise Gone(answer.decode())
        self._buffer = bytearray(rest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.stream.close()

    def send(self, frame: bytes) -> None:
        self.stream.sendall(frame)

    def _read(self) -> None:
        count = self.stream.recv_into(self._room)
        if not count:
            raise Gone("the server closed the connection")
        self._buffer += self._room[:count]

    def _walk(self, take: Callable[[bytearray, int, int], bool]) -> bool:
        """Give each whole frame that is here to ``take``, until it says that this was enough."""
        buffer, start, size = self._buffer, 0, len(self._buffer)
        enough = False
        while not enough and start + 2 <= size:
            length, body = buffer[start + 1], start + 2
            if length >= _SHORT:
                wide = length != _SHORT
                body += 8 if wide else 2
                if body > size:
                    break
                length = int.from_bytes(buffer[start + 2 : body], "big")
            end = body + length
            if end > size:
                break
            opcode = buffer[start] & 0xF
            if opcode < _CLOSE:
                enough = take(buffer, body, end)
            else:
                self._control(opcode, bytes(buffer[body:end]))
            start = end
        del buffer[:start]
        return enough

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == _CLOSE:
            raise Gone(f"closed: {payload!r}")
        if opcode == _PING:
            self.stream.sendall(bytes((0x8A, 0x80 | len(payload), 0, 0, 0, 0)) + payload)

    def until(self, take: Callable[[bytearray, int, int], bool]) -> None:
        """Read until ``take`` (of buffer, begin and end of a frame's payload) says enough."""
        while not self._walk(take):
            self._read()

    def advance(self, take: Callable[[bytearray, int, int], bool]) -> bool:
        """Read once, when there is something to read; whether ``take`` says enough."""
        self._read()
        return self._walk(take)

    # -- what benchmarks wait for ---------------------------------------------------------------

    def round_trip(self, frame: bytes, msg_id: str) -> float:
        """Send a request; seconds until its reply and its idle are both here."""
        begin = time.perf_counter()
        self.stream.sendall(frame)
        self.until(Exchange(msg_id))
        return time.perf_counter() - begin

    def execute(self, code: str) -> float:
        msg_id = new_id()
        return self.round_trip(request_frame(code, msg_id), msg_id)

    def count_flood(self, count: int) -> Flood:
        """Read flood messages; the clock runs from the first to the last."""
        flood = Flood(count)
        self.until(flood)
        return flood

    def wait_quiet(self, seconds: float = 0.05) -> None:
        """Throw away what comes until nothing has come for a while."""
        while select.select([self.stream], [], [], seconds)[0]:
            self._read()
            self._walk(lambda *_: False)


class Exchange:
    """Sees the reply and the idle of one request."""

    def __init__(self, msg_id: str) -> None:
        self._id = msg_id.encode()
        self._reply = self._idle = False

    def __call__(self, buffer: bytearray, start: int, end: int) -> bool:
        end = min(end, start + HEAD_BYTES)
        if buffer.find(self._id, start, end) >= 0:
            if buffer.find(b'_reply"', start, end) >= 0:
                self._reply = True
            elif buffer.find(b'"idle"', start, end) >= 0:
                self._idle = True
        return self._reply and self._idle


class Flood:
    """Counts flood messages, and checks that each comes once and in order."""

    def __init__(self, count: int) -> None:
        self.wanted = count
        self.seen = 0
        self.disorder = 0
        self.begin = self.end = 0.0

    def __call__(self, buffer: bytearray, start: int, end: int) -> bool:
        place = buffer.find(FLOOD_MARK, start, end) + len(FLOOD_MARK)
        if place < len(FLOOD_MARK):
            return False
        if not self.seen:
            self.begin = time.perf_counter()
        if int(buffer[place : place + MESSAGE_DIGITS]) != self.seen:
            self.disorder += 1
        self.seen += 1
        if self.seen < self.wanted:
            return False
        self.end = time.perf_counter()
        return True

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    @property
    def lost(self) -> int:
        return self.wanted - self.seen
