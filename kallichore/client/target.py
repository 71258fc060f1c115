"""Where a server is and how to be let in: from a URL, a connection file or a socket's path."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import msgspec

from kallichore.client.errors import BadTarget

__all__ = ["ConnectionDetails", "Target", "read_token"]


class ConnectionDetails(msgspec.Struct, kw_only=True):
    """A connection file, or what a server says over the handshake socket (CONTRACT 1.4)."""

    transport: str
    port: int | None = None
    base_path: str | None = None
    socket_path: str | None = None
    named_pipe: str | None = None
    server_path: str = ""
    server_pid: int = 0
    bearer_token: str | None = None
    log_path: str | None = None
    server_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The address of a server: an HTTP base URL, or a Unix socket, and the token for it."""

    base_url: str = "http://localhost"
    socket_path: str | None = None
    token: str | None = None

    def __str__(self) -> str:
        """Return the address as a person would name it; never the token."""
        return self.base_url if self.socket_path is None else f"Unix socket {self.socket_path}"

    def __repr__(self) -> str:
        """Return the address without the token."""
        return f"<Target {self}>"

    @classmethod
    def parse(cls, address: str | Path, token: str | None = None) -> Self:
        """Understand ``http://…``, ``unix:/path``, a socket's path or a connection file's path.

        A given token outranks the one in a connection file.

        Raises:
            BadTarget: if it is none of these, or a connection file that cannot be used.
        """
        text = str(address)
        if text.startswith("unix:"):
            path = "/" + text.removeprefix("unix:").lstrip("/")
            return cls(socket_path=path, token=token)
        if "://" in text:
            return cls._from_url(text, token)
        return cls._from_path(Path(text), token)

    @classmethod
    def from_details(cls, details: ConnectionDetails, source: str) -> Self:
        """Take the address out of connection details; ``source`` is named in errors.

        Raises:
            BadTarget: if they name a transport that this client has not, or no address.
        """
        if details.transport == "socket" and details.socket_path:
            return cls(socket_path=details.socket_path, token=details.bearer_token)
        if details.transport == "tcp" and (details.base_path or details.port):
            url = details.base_path or f"http://127.0.0.1:{details.port}"
            return cls._from_url(url, details.bearer_token)
        raise BadTarget(
            f"{source} names no TCP port and no Unix socket (transport {details.transport!r})."
        )

    @classmethod
    def from_connection_file(cls, path: str | Path) -> Self:
        """Read a connection file.

        Raises:
            BadTarget: if it cannot be read, is not JSON of the right shape, or has no address.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as exc:
            raise BadTarget(f"Cannot read the connection file {path}: {exc.strerror}.") from exc
        return cls.from_details(decode_details(content, str(path)), str(path))

    @classmethod
    def _from_url(cls, url: str, token: str | None) -> Self:
        """Check a URL, and strip it of what does not belong to an address."""
        try:
            parts = urlsplit(url)
            usable = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise BadTarget(f"{url!r} is no address; write http://HOST:PORT or unix:/PATH.")
        return cls(base_url=f"http://{parts.netloc}{parts.path}".rstrip("/"), token=token)

    @classmethod
    def _from_path(cls, path: Path, token: str | None) -> Self:
        """Tell a socket from a connection file."""
        try:
            mode = path.stat().st_mode
        except OSError as exc:
            raise BadTarget(f"Cannot find {path}: {exc.strerror}.") from exc
        if stat.S_ISSOCK(mode):
            return cls(socket_path=os.path.abspath(path), token=token)  # noqa: PTH100 - no resolving
        target = cls.from_connection_file(path)
        return target if token is None else replace(target, token=token)


def decode_details(content: bytes, source: str) -> ConnectionDetails:
    """Decode connection details; ``source`` is named in errors.

    Raises:
        BadTarget: if they are not JSON of the right shape.
    """
    try:
        return msgspec.json.decode(content, type=ConnectionDetails)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BadTarget(f"{source} is not a connection file: {exc}.") from exc


def read_token(value: str) -> str:
    """Return the token that ``value`` stands for: the content of a file of that name, or itself.

    Prefer the file: other users of the machine can read command lines.

    Raises:
        BadTarget: if there is such a file but it cannot be read.
    """
    path = Path(value)
    try:
        if not path.is_file():
            return value
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as exc:
        raise BadTarget(f"Cannot read a token from {value}: {exc}.") from exc
