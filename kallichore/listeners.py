"""Listening sockets: TCP on the loopback, and Unix sockets that only we can open.

Owns the rules of CONTRACT 1.6: modes, collisions, lengths, stale files.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from kallichore.errors import SocketPathTooLong

if TYPE_CHECKING:
    from pathlib import Path

    from kallichore.config import Limits

__all__ = ["listen_tcp", "listen_unix", "remove_socket", "socket_path"]

LOOPBACK: Final = "127.0.0.1"


def listen_tcp(port: int, backlog: int) -> trio.SocketListener:
    """Listen on a port of 127.0.0.1; 0 lets the operating system pick. Raises OSError."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((LOOPBACK, port))
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def listen_unix(path: Path, backlog: int) -> trio.SocketListener:
    """Listen on a Unix socket of mode 0600; a stale one is replaced.

    Raises:
        OSError: Something else is at that path, somebody answers there, or it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nothing waits between the two, and no other thread of ours makes files, so nobody else
        # ever sees the file with another mode, and no file of ours gets this mode by mistake.
        before = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody listens
        except FileNotFoundError:
            return
    raise FileExistsError(f"another server listens on {path}")


def remove_socket(path: Path) -> None:
    """Remove a socket's file, if it is still there."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def socket_path(directories: list[Path], name: str, limits: Limits) -> Path:
    """Choose the first directory in which a socket's path is not too long.

    Raises:
        SocketPathTooLong: It is in all of them.
    """
    for directory in directories:
        path = directory.absolute() / name
        if len(os.fsencode(path)) <= limits.socket_path_bytes:
            return path
    raise SocketPathTooLong(str(directories[-1] / name), limits.socket_path_bytes)
