"""Upgrades to a channel: which requests ask for one, and whether they may have it (CONTRACT 5.1).

Plain functions over a request's head, stricter than the WebSocket library behind them: everything
that RFC 6455 asks of an opening handshake is checked here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from kallichore.errors import BadRequest, SessionNotFound
from kallichore.web.refusal import Refused, new_span

if TYPE_CHECKING:
    from kallichore.web.inbound import Head

__all__ = ["Accepted", "accept", "asks_for_channel", "session_id_in", "upgrade_required"]

_CHANNEL_PATH = re.compile(r"/sessions/(?P<session_id>[^/]+)/channels")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
_VERSION = b"13"
_INT64_DIGITS = 19
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Accepted:
    """An upgrade that may be had."""

    response: bytes
    """The 101, complete."""
    after: int | None
    """The sequence number to resume after, if the client resumes (CONTRACT 5.5)."""


def asks_for_channel(head: Head) -> bool:
    """Whether it means to become the channel of a session, by its path."""
    return _CHANNEL_PATH.fullmatch(head.path) is not None and _asks_for_websocket(head)


def session_id_in(head: Head) -> str:
    """The session that the path of a channel names.

    Raises:
        SessionNotFound: The name is no text.

    """
    match = _CHANNEL_PATH.fullmatch(head.path)
    encoded = match["session_id"] if match else ""
    try:
        return unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        raise SessionNotFound(encoded) from None


def accept(head: Head) -> Accepted:
    """Accept an upgrade.

    Raises:
        Refused: 426 if it is none, or one of another version; 400 if it is not as RFC 6455 has it.

    """
    if not _asks_for_websocket(head):
        raise upgrade_required("This is a WebSocket; upgrade to version 13")
    versions = head.values(b"sec-websocket-version")
    if versions != [_VERSION]:
        raise upgrade_required("Sec-WebSocket-Version must be 13, given once")
    if head.http_version == "1.0":
        raise _bad("A WebSocket upgrade needs HTTP/1.1")
    if b"upgrade" not in head.tokens(b"connection"):
        raise _bad("Connection must name `upgrade`")
    if head.values(b"transfer-encoding") or head.values(b"content-length") not in ([], [b"0"]):
        raise _bad("A WebSocket upgrade has no body")
    key = _key(head)
    return Accepted(_switching(key, head.span), _after(head.query))


def upgrade_required(message: str) -> Refused:
    """What a request that is no upgrade is told where only channels are to be had."""
    headers = ((b"upgrade", b"websocket"), (b"sec-websocket-version", _VERSION))
    return Refused.because(426, "upgrade_required", message, headers)


def _asks_for_websocket(head: Head) -> bool:
    return head.method == "GET" and b"websocket" in head.tokens(b"upgrade")


def _key(head: Head) -> bytes:
    keys = head.values(b"sec-websocket-key")
    try:
        right = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == _KEY_BYTES
    except binascii.Error:
        right = False
    if not right:
        raise _bad("Sec-WebSocket-Key must be 16 bytes in base64, given once")
    return keys[0]


def _after(query: str) -> int | None:
    values = [value for name, value in parse_qsl(query, keep_blank_values=True) if name == "after"]
    if not values:
        return None
    number = _int64(values[0])
    if number is None or len(values) > 1:
        raise _bad("`after`: expected a non-negative integer, given once")
    return number


def _int64(digits: str) -> int | None:
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _INT64_DIGITS:
        return None
    number = int(digits)
    return number if number <= _INT64_MAX else None


def _switching(key: bytes, span: bytes | None) -> bytes:
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"upgrade: websocket",
        b"connection: Upgrade",
        b"sec-websocket-accept: " + base64.b64encode(digest),
        b"x-span-id: " + (span or new_span()),
    ]
    return b"\r\n".join([*lines, b"", b""])


def _bad(message: str) -> Refused:
    return Refused.by(BadRequest(message))
