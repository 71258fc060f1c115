"""How the server tells others where it is: the connection file and the handshake socket.

Sources: CONTRACT 1.3 to 1.5.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from kallichore.errors import StartupRefusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kallichore.config import Limits

__all__ = [
    "ConnectionDetails",
    "open_connection_details",
    "reason_of",
    "report",
    "resolve_token",
    "server_path",
]

NO_TOKEN: Final = "none"  # noqa: S105 (the word that stands for no token)
TOKEN_FILE_BYTES: Final = 4096
"""A bigger file holds no token, whatever space is around it."""


class ConnectionDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What a client needs to reach the server; the keys in the contract's order."""

    port: int | msgspec.UnsetType = msgspec.UNSET
    base_path: str | msgspec.UnsetType = msgspec.UNSET
    socket_path: str | msgspec.UnsetType = msgspec.UNSET
    transport: str
    server_path: str
    server_pid: int
    bearer_token: str | None
    log_path: str | None
    server_id: str


def reason_of(error: Exception) -> str:
    """Say why, in the system's words if they are the system's, without its numbers and paths."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def resolve_token(given: str | None, limits: Limits) -> str | None:
    """Give the bearer token, or None for no authentication; a token's file is deleted.

    Raises:
        StartupRefusal: The file is empty, unreadable, or too long.
    """
    if given is None:
        return secrets.token_hex(16)
    if given == NO_TOKEN:
        return None
    path = Path(given)
    try:
        with path.open("rb") as file:
            data = file.read(TOKEN_FILE_BYTES + 1)
        too_big = len(data) > TOKEN_FILE_BYTES
        token = "" if too_big else data.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupRefusal(f"Cannot read the token file {path}: {reason_of(error)}") from error
    if not token and not too_big:
        raise StartupRefusal(f"The token file {path} is empty")
    if too_big or len(token) > limits.token_bytes:
        raise StartupRefusal(f"The token in {path} has more than {limits.token_bytes} characters")
    try:
        path.unlink()
    except OSError as error:
        raise StartupRefusal(f"Cannot delete the token file {path}: {reason_of(error)}") from error
    return token


def server_path() -> str:
    """Give the path of the command that was started."""
    found = shutil.which(sys.argv[0]) or sys.argv[0]
    return str(Path(found).absolute())


@contextmanager
def open_connection_details(path: Path, details: ConnectionDetails) -> Iterator[None]:
    """Write the connection file, whole and for us alone; remove it at the end, if it is still ours.

    Raises:
        StartupRefusal: It cannot be written.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(details), indent=2) + b"\n")
        temporary.replace(path)
    except (OSError, ValueError) as error:  # the latter: a path in it is no UTF-8
        with suppress(OSError):
            temporary.unlink()
        why = reason_of(error)
        raise StartupRefusal(f"Cannot write the connection file {path}: {why}") from error
    try:
        yield
    finally:
        _remove_if_ours(path, details.server_id)


def _remove_if_ours(path: Path, server_id: str) -> None:
    with suppress(OSError, ValueError):
        found = msgspec.json.decode(path.read_bytes(), type=ConnectionDetails)
        if found.server_id == server_id:
            path.unlink()


async def report(path: Path, details: ConnectionDetails) -> None:
    """Tell whoever listens on a Unix socket: one JSON document and a newline.

    Raises:
        StartupRefusal: Nobody listens there, or it hangs up.
    """
    try:
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            await stream.send_all(msgspec.json.encode(details) + b"\n")
            await stream.send_eof()
    except (OSError, trio.BrokenResourceError, ValueError) as error:
        why = reason_of(error)
        raise StartupRefusal(f"Cannot report to the handshake socket {path}: {why}") from error
