"""Where a kernel is reached: ports, and the files that tell it so.

Owns the ports handed out to kernels, the private directory for everything we write while we run,
and the connection file of each run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import re
import shutil
import socket
import stat
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import msgspec

from kallichore import _platform
from kallichore.models import ConnectionInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kallichore.config import Limits

__all__ = [
    "ConnectionInfo",
    "PortPool",
    "connection_file_content",
    "open_connection_file",
    "open_runtime_directory",
    "safe_name",
]

LOOPBACK: Final = "127.0.0.1"
LOWEST_PORT: Final = 10_000
PORT_END: Final = 65_536
CONNECTION_KEYS: Final = (
    "control_port",
    "shell_port",
    "stdin_port",
    "hb_port",
    "iopub_port",
    "signature_scheme",
    "key",
    "transport",
    "ip",
)
READABLE_BYTES: Final = 40
"""How much of a session's id is kept readable in a file's name."""


@final
class PortPool:
    """TCP ports for kernels on 127.0.0.1, each with one user at a time.

    They are drawn where the system does not draw the ports of outgoing connections, so that nobody
    is given one by accident between our look and the kernel's.
    """

    def __init__(self, limits: Limits) -> None:
        """Make a pool with no port reserved."""
        self._draws = limits.port_draws
        self._candidates = candidate_ports(_platform.ephemeral_ports())
        self._random = random.SystemRandom()
        self._reserved: set[int] = set()

    def reserve(self, count: int) -> list[int]:
        """Return ports that nobody uses now and that no other call returns until `release`.

        Raises:
            OSError: So many ports are in use that not enough free ones were found.
        """
        found: list[int] = []
        for _ in range(self._draws):
            if len(found) == count:
                self._reserved.update(found)
                return found
            port = self._random.choice(self._candidates)
            if port not in self._reserved and port not in found and is_free(port):
                found.append(port)
        message = f"no {count} free TCP ports found on {LOOPBACK}"
        raise OSError(message)

    def release(self, ports: Iterable[int]) -> None:
        """Let ports be handed out again; those that are not reserved are passed over."""
        self._reserved.difference_update(ports)


def candidate_ports(ephemeral: range) -> Sequence[int]:
    """Return the unprivileged ports outside the given range, or all if there are too few."""
    all_ports = range(LOWEST_PORT, PORT_END)
    outside = [port for port in all_ports if port not in ephemeral]
    return outside if len(outside) >= len(all_ports) // 20 else all_ports


def is_free(port: int) -> bool:
    """Say whether a port can be bound now, that is, nobody listens on it or has just done so."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def connection_file_content(info: ConnectionInfo) -> bytes:
    """Encode a connection file, its keys in the order of CONTRACT 3.2."""
    ordered = {name: getattr(info, name) for name in CONNECTION_KEYS}
    return msgspec.json.format(msgspec.json.encode(ordered), indent=2) + b"\n"


def safe_name(session_id: str) -> str:
    """Derive a part of a file name from a session's id: bounded, harmless, unique."""
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", session_id)[:READABLE_BYTES]
    digest = hashlib.blake2b(session_id.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return f"{readable}-{digest}"


@contextmanager
def open_connection_file(directory: Path, session_id: str, content: bytes) -> Iterator[Path]:
    """Write a connection or registration file that only we can read; remove it at the end.

    Raises:
        OSError: It cannot be written.
    """
    path = directory / f"kernel-{safe_name(session_id)}.json"
    with suppress(FileNotFoundError):
        path.unlink()  # the directory is ours alone: this can only be an earlier run's
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield path
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


@contextmanager
def open_runtime_directory(parent: Path | None = None) -> Iterator[Path]:
    """Make a directory that nobody else can enter, and remove it with all it holds at the end.

    It is made in the temporary directory, or in ``parent``. It is locked, which is the sign for
    those who tidy up temporary directories (systemd-tmpfiles) that it is in use, however old.

    Raises:
        OSError: It cannot be made, or is not ours alone.
    """
    path = Path(tempfile.mkdtemp(prefix="kallichore-", dir=parent)).absolute()
    try:
        status = path.lstat()
        ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        if not ours or status.st_mode & 0o077:
            message = f"{path} is not a directory of ours alone"
            raise PermissionError(message)
        with ExitStack() as stack:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
