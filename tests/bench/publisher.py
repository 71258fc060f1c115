"""How the fake kernel publishes: through libzmq, or straight onto the wire.

A kernel on libzmq spends as much on a message as a good supervisor does, and competes with it for
the same processors. `WirePublisher` speaks ZMTP 3.0 by itself and writes what was put together
before, so that a flood costs the kernel nothing and the supervisor's queue is always full.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final, Protocol

import zmq

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_GREETING: Final = (
    b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
)  # https://rfc.zeromq.org/spec/23/
_MORE: Final = 1
_LONG: Final = 2
_COMMAND: Final = 4
_SHORT_FRAME: Final = 255
_CHUNK_MESSAGES: Final = 512
_CHUNK_BYTES: Final = 256 * 1024
Frames = list[bytes]


class Publisher(Protocol):
    """The iopub side of a fake kernel."""

    @property
    def incoming(self) -> socket.socket | None:
        """What to poll, for `accept`."""

    def accept(self) -> None:
        """Serve what `incoming` has."""

    def publish(self, messages: Sequence[Frames], between: Callable[[], None]) -> None:
        """Send, calling ``between`` now and then."""

    def close(self, flush_ms: int) -> None:
        """Flush and close."""


class ZmqPublisher:
    """A PUB socket without a high-water mark."""

    incoming: socket.socket | None = None

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self._socket = context.socket(zmq.PUB)
        self._socket.set(zmq.SNDHWM, 0)
        self._socket.bind(address)

    def accept(self) -> None:
        """Nothing to do: libzmq accepts by itself."""

    def publish(self, messages: Sequence[Frames], between: Callable[[], None]) -> None:
        """See `Publisher`."""
        send = self._socket.send_multipart
        for start in range(0, len(messages), _CHUNK_MESSAGES):
            for message in messages[start : start + _CHUNK_MESSAGES]:
                send(message)
            between()

    def close(self, flush_ms: int) -> None:
        """See `Publisher`."""
        self._socket.close(flush_ms)


class WirePublisher:
    """ZMTP 3.0 as a PUB speaks it, to subscribers that want everything."""

    def __init__(self, ip: str, port: int) -> None:
        self._listener = socket.create_server((ip, port))
        self.incoming: socket.socket | None = self._listener
        self._subscribers: list[socket.socket] = []

    def accept(self) -> None:
        """Shake hands with one subscriber, and wait for its subscription."""
        stream, _ = self._listener.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.settimeout(5)
        stream.sendall(_GREETING)
        with stream.makefile("rb") as file:
            file.read(len(_GREETING))
            kind = b"\x0bSocket-Type" + struct.pack("!I", 3) + b"PUB"
            ready = b"\x05READY" + kind
            stream.sendall(bytes((_COMMAND, len(ready))) + ready)
            for _ in ("READY", "the subscription"):
                _, size = file.read(2)
                file.read(size)
        stream.settimeout(None)
        self._subscribers.append(stream)

    def publish(self, messages: Sequence[Frames], between: Callable[[], None]) -> None:
        """See `Publisher`. The bytes are all there before the first of them is sent."""
        wire = b"".join(encode(frames) for frames in messages)
        view = memoryview(wire)
        for start in range(0, len(wire), _CHUNK_BYTES):
            for stream in list(self._subscribers):
                try:
                    stream.sendall(view[start : start + _CHUNK_BYTES])
                except OSError:
                    self._subscribers.remove(stream)
            if start:
                between()

    def close(self, flush_ms: int) -> None:
        """See `Publisher`; the operating system flushes."""
        del flush_ms
        for stream in (*self._subscribers, self._listener):
            stream.close()


def encode(frames: Frames) -> bytes:
    """Give a multipart message as it is on the wire."""
    parts: list[bytes] = []
    last = len(frames) - 1
    for place, frame in enumerate(frames):
        flags = _MORE if place != last else 0
        if len(frame) > _SHORT_FRAME:
            parts.append(struct.pack("!BQ", flags | _LONG, len(frame)))
        else:
            parts.append(bytes((flags, len(frame))))
        parts.append(frame)
    return b"".join(parts)
