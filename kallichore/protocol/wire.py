"""The Jupyter wire protocol: signed ZeroMQ frames to messages, and back.

Source: the Jupyter messaging specification, "The Wire Protocol", and CONTRACT 6.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec
from msgspec import Struct

from kallichore.protocol.lax import JSON_ERRORS, lenient, repair, without_lone_surrogates
from kallichore.protocol.message import KernelMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from kallichore.protocol.message import Channel, ClientMessage

__all__ = ["BadSignature", "Malformed", "Signer", "WireError", "check_object", "parse", "serialize"]

DELIMITER: Final = b"<IDS|MSG>"
_PARTS: Final = 5
"""Signature, header, parent header, metadata, content: at least this many after the delimiter."""
_OPEN: Final = ord("{")
_SPACE: Final = b" \t\r\n"


_BLOCK_BYTES: Final = 64
"""Of SHA-256."""


class WireError(Exception):
    """A multipart that is not a message we can use."""


class BadSignature(WireError):
    """The message is unsigned, or signed with another key."""


class Malformed(WireError):
    """Too few frames, or a part that is not a JSON object."""


class _Header(Struct, gc=False):
    msg_id: str
    msg_type: str


class _ParentHeader(Struct, gc=False):
    msg_id: str = ""
    msg_type: str | None = None


class _Stream(Struct, gc=False):
    detail: str = msgspec.field(default="", name="name")
    text: str = ""


class _Status(Struct, gc=False):
    detail: str = msgspec.field(default="", name="execution_state")
    text: ClassVar[str] = ""


# Reading one word of a content checks all of it, so it replaces the check and costs nothing.
_KINDS: Final[dict[str, type[_Stream | _Status]]] = {"stream": _Stream, "status": _Status}
_read: dict[str, Callable[[bytes], _Stream | _Status]] = {
    msg_type: msgspec.json.Decoder(kind).decode for msg_type, kind in _KINDS.items()
}
_UNKNOWN: Final[_Stream | _Status] = _Status()
_decode_header = msgspec.json.Decoder(_Header).decode
_decode_parent = msgspec.json.Decoder(_ParentHeader).decode
_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class Signer:
    """HMAC-SHA256 over the four JSON frames with a connection's key.

    An empty key switches signing off, as the messaging specification has it; the server itself
    never makes one, but an adopted kernel may have been started so.
    """

    def __init__(self, key: str) -> None:
        """Take the key string's ASCII bytes as the key."""
        self._keyed = _keyed_hashes(key.encode()) if key else None

    def sign(self, signed: bytes) -> bytes:
        """Give the lower-case hexadecimal signature of the joined frames."""
        if self._keyed is None:
            return b""
        inner, outer = self._keyed[0].copy(), self._keyed[1].copy()
        inner.update(signed)
        outer.update(inner.digest())
        return outer.hexdigest().encode()

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """Tell, in constant time, whether the signature fits."""
        return self._keyed is None or hmac.compare_digest(self.sign(signed), signature)


def _keyed_hashes(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """Give the two hashes that HMAC begins with, which depend on the key alone (RFC 2104, 4).

    The standard library's objects keep them too, but a signature made with these costs a third
    less, and there is one for every message.
    """
    if len(key) > _BLOCK_BYTES:
        key = hashlib.sha256(key).digest()
    block = key.ljust(_BLOCK_BYTES, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in block) for pad in (0x36, 0x5C))
    return hashlib.sha256(inner), hashlib.sha256(outer)


def serialize(message: ClientMessage, signer: Signer) -> list[bytes]:
    """Give the frames that carry a message to the kernel over a DEALER socket."""
    header, parent = message.header, message.parent_header
    metadata, content = message.metadata, message.content
    signature = signer.sign(b"".join((header, parent, metadata, content)))
    return [DELIMITER, signature, header, parent, metadata, content, *message.buffers]


def parse(channel: Channel, frames: list[bytes], signer: Signer) -> KernelMessage:
    """Check a multipart of the kernel and decode what decisions need.

    What strict JSON lacks but Python kernels send (NaN, infinities, lone surrogates, broken
    UTF-8) is repaired; everything else reaches the client byte by byte as the kernel sent it.

    Raises:
        BadSignature: It is unsigned or wrongly signed.
        Malformed: Too few frames, or a part that is not a JSON object.
    """
    try:
        start = frames.index(DELIMITER) + 1
    except ValueError:
        raise Malformed("no <IDS|MSG> delimiter") from None
    if len(frames) < start + _PARTS:
        raise Malformed(f"{len(frames) - start} frames after the delimiter, expected at least 5")
    signature, header, parent, metadata, content = frames[start : start + _PARTS]
    signed = b"".join((header, parent, metadata, content))
    if not signer.verify(signed, signature):
        raise BadSignature("unsigned" if not signature else "wrong signature")
    known = _UNKNOWN
    try:
        # The parts are JSON one by one, so each begins and ends with an ASCII character, and no
        # UTF-8 sequence can straddle two of them: one check of the joined bytes serves all.
        head = _decode_header(header)
        origin = _decode_parent(parent)
        _check_json(metadata)
        read = _read.get(head.msg_type)
        if read is None:
            _check_json(content)
        else:
            known = read(content)
        if not signed.isascii():
            signed.decode()
        if metadata[0] != _OPEN or content[0] != _OPEN:
            metadata, content = check_object(metadata), check_object(content)
    except JSON_ERRORS:
        header, parent, metadata, content = _repaired(header, parent, metadata, content)
        head, origin, known = _read_repaired(header, parent, content)
    return KernelMessage(
        channel,
        head.msg_id,
        head.msg_type,
        origin.msg_id,
        origin.msg_type,
        header,
        parent if origin.msg_id else _null_if_empty(parent),
        metadata,
        content,
        frames[start + _PARTS :],
        known.detail,
        known.text,
    )


def check_object(part: bytes) -> bytes:
    """Give the part without surrounding white space; it must be a JSON object.

    Raises:
        Malformed: It is another JSON value, or nothing.
    """
    stripped = part.strip(_SPACE)
    if not stripped.startswith(b"{"):
        raise Malformed("a part that is not a JSON object")
    return stripped


def _null_if_empty(parent: bytes) -> bytes:
    return b"null" if parent.translate(None, _SPACE) == b"{}" else parent


def _repaired(header: bytes, parent: bytes, metadata: bytes, content: bytes) -> list[bytes]:
    if parent.strip(_SPACE) == b"null":
        parent = b"{}"
    try:
        return [repair(part) for part in (header, parent, metadata, content)]
    except JSON_ERRORS as error:
        raise Malformed(str(error) or type(error).__name__) from None


def _read_repaired(
    header: bytes, parent: bytes, content: bytes
) -> tuple[_Header, _ParentHeader, _Stream | _Status]:
    """Decode what decides, in which a lone surrogate reads as U+FFFD."""
    try:
        head = _decode_header(without_lone_surrogates(header))
    except JSON_ERRORS as error:
        raise Malformed(f"header: {error}") from None
    kind = _KINDS.get(head.msg_type)
    known = _UNKNOWN if kind is None else lenient(content, kind)
    return head, lenient(parent, _ParentHeader), known
