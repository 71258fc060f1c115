"""Jupyter messages as the benchmarks need them: made cheaply, signed, with nothing left to chance.

Shared by the fake kernel, by the floors and by the clients, so that all of them do the same work.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DELIMITER: Final = b"<IDS|MSG>"
FLOOD_MARK: Final = b'"flood-'
"""How the ids of flood messages begin; eight digits follow, counting from zero."""
MESSAGE_DIGITS: Final = 8
CHANNELS: Final = ("shell", "iopub", "stdin", "control", "hb")


@dataclass(frozen=True)
class Connection:
    """A connection file."""

    ip: str
    key: bytes
    ports: dict[str, int]

    @classmethod
    def read(cls, path: str) -> Connection:
        given = json.loads(Path(path).read_bytes())
        ports = {channel: given[f"{channel}_port"] for channel in CHANNELS}
        return cls(given["ip"], given["key"].encode(), ports)

    def write(self, path: Path) -> None:
        content = {f"{channel}_port": port for channel, port in self.ports.items()}
        content |= {"ip": self.ip, "transport": "tcp", "signature_scheme": "hmac-sha256"}  # type: ignore[dict-item]
        path.write_text(json.dumps(content | {"key": self.key.decode()}))

    def address(self, channel: str) -> str:
        return f"tcp://{self.ip}:{self.ports[channel]}"


class Signer:
    """HMAC-SHA256 with a key prepared once, the cheapest way there is in Python."""

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod=hashlib.sha256)

    def sign(self, *parts: bytes) -> bytes:
        mac = self._keyed.copy()
        mac.update(b"".join(parts))
        return mac.hexdigest().encode()


def header(msg_id: str, msg_type: str) -> bytes:
    """Give a header with the fields, the sizes and the order that ipykernel's have."""
    return (
        b'{"msg_id": "%b", "msg_type": "%b", "username": "username", '
        b'"session": "6f1ed002-5d5e-4c0f-8f8f-3a4b5c6d7e8f", '
        b'"date": "2025-01-01T00:00:00.000000Z", "version": "5.3"}'
    ) % (msg_id.encode(), msg_type.encode())


def stream_content(size: int) -> bytes:
    """Give a `stream` content of exactly ``size`` bytes."""
    frame = b'{"name": "stdout", "text": "%b"}'
    line = b"the quick brown fox jumps over the lazy dog 0123456789 "
    room = size - len(frame) + 2
    return frame % (line * (room // len(line) + 1))[:room]


def flood(
    signer: Signer, parent: bytes, count: int, size: int, first: int = 0
) -> Iterator[list[bytes]]:
    """Give numbered `stream` messages, signed and with their topic."""
    content = stream_content(size)
    for number in range(first, first + count):
        head = header(f"flood-{number:0{MESSAGE_DIGITS}}", "stream")
        yield [
            b"stream",
            DELIMITER,
            signer.sign(head, parent, b"{}", content),
            head,
            parent,
            b"{}",
            content,
        ]


def new_id() -> str:
    return os.urandom(16).hex()


def request_parts(code: str, msg_id: str) -> tuple[bytes, bytes]:
    """Give header and content of an `execute_request`."""
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
    content |= {"user_expressions": {}, "stop_on_error": True}
    return header(msg_id, "execute_request"), json.dumps(content).encode()


def signed(signer: Signer, parts: Sequence[bytes], buffers: Sequence[bytes] = ()) -> list[bytes]:
    """Give the frames of header, parent header, metadata and content, as a DEALER sends them."""
    return [DELIMITER, signer.sign(*parts), *parts, *buffers]


def command(do: str, **arguments: object) -> str:
    """Write what the fake kernel is to do, as the code of an execution."""
    return json.dumps({"do": do, **arguments})
