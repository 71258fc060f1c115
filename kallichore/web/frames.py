"""Where wsproto is slow for what we read most: unmasking, and plain text frames (RFC 6455, 5).

It unmasks in Python: 1.4 ms for a megabyte, which would be most of what a big message costs us; the
C function of the `websockets` package needs 0.03 ms. A small frame that needs none of the rules
costs 15 µs of following them, and a big one is copied six times. Whatever is not plain is left to
wsproto, which judges.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any, Final

from wsproto.connection import ConnectionState
from wsproto.frame_protocol import FrameDecoder, XorMaskerSimple

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsproto.connection import Connection

__all__ = ["LongText", "begin_long_text", "between_messages", "unmask_fast", "whole_texts"]

_WHOLE_TEXT: Final = 0x81
_MASKED: Final = 0x80
_SHORT: Final = 126
_MEDIUM: Final = 65536
_KEY: Final = 4
_LONG_BEGINS: Final = 1024 * 1024


def _find_apply_mask() -> Callable[[Any, bytes], bytes] | None:
    """Load the one C module that we want; its package as a whole would cost 40 ms of our start."""
    package = PathFinder.find_spec("websockets")
    places = None if package is None else package.submodule_search_locations
    spec = None if places is None else PathFinder.find_spec("websockets.speedups", places)
    if spec is None or spec.loader is None:
        return None  # a platform for which there is no compiled package
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    apply_mask: Callable[[Any, bytes], bytes] = module.apply_mask
    return apply_mask


_apply_mask = _find_apply_mask()


class _Masker(XorMaskerSimple):
    """The payload of one frame, in as many pieces as it comes in."""

    def process(self, data: bytearray) -> bytearray:
        key = bytes(self._masking_key)
        turn = len(data) % 4
        self._masking_key = key[turn:] + key[:turn]
        assert _apply_mask is not None  # noqa: S101 (else nobody makes one)
        return bytearray(_apply_mask(data, key))


class _Decoder(FrameDecoder):
    """wsproto's, with another masker."""

    def parse_header(self) -> bool:
        parsed = super().parse_header()
        if isinstance(self.masker, XorMaskerSimple):
            self.masker = _Masker(self.masker._masking_key)  # noqa: SLF001
        return parsed


def unmask_fast(connection: Connection) -> None:
    """Have a connection that has not received anything yet unmask fast, if that is possible."""
    if _apply_mask is not None:
        connection._proto._frame_decoder = _Decoder(client=False)  # noqa: SLF001


def _plain_text(data: bytes, begin: int, most_bytes: int) -> tuple[int, int]:
    """Say where the masking key of a frame is, and how long its payload; 0 if it is not plain.

    Plain is a masked text frame that is a message of its own and not empty, of at most
    ``most_bytes``, with a length that takes no more room than it must.
    """
    if begin + 1 >= len(data) or data[begin] != _WHOLE_TEXT:
        return 0, 0
    length, key, least = data[begin + 1] - _MASKED, begin + 2, 1
    if length >= _SHORT:
        key, least = (begin + 4, _SHORT) if length == _SHORT else (begin + 10, _MEDIUM)
        length = int.from_bytes(data[begin + 2 : key], "big")
    return (key, length) if least <= length <= most_bytes and key < len(data) else (0, 0)


def whole_texts(data: bytes, most: int, most_bytes: int) -> tuple[list[str], int]:
    """Read the plain text frames with which ``data`` begins.

    It stops at the first that is not whole yet, or anything else, and after ``most``.

    Returns:
        Their texts, and how many bytes of ``data`` they are.
    """
    texts: list[str] = []
    begin = 0
    while len(texts) < most:
        key, length = _plain_text(data, begin, most_bytes)
        payload = key + _KEY
        end = payload + length
        if not key or end > len(data) or _apply_mask is None:
            break
        try:
            text = _apply_mask(data[payload:end], data[key:payload]).decode()
        except UnicodeDecodeError:
            break
        texts.append(text)
        begin = end
    return texts, begin


class LongText:
    """A plain text frame that comes in pieces, each read into its place and unmasked there.

    It takes twice the memory of what has come at most, whatever length was announced.
    """

    def __init__(self, key: bytes, length: int) -> None:
        """Begin with the masking key, and the length of the payload."""
        self._key = key
        self._length = length
        self._payload = bytearray(min(length, _LONG_BEGINS))
        self._have = 0

    def room(self, most: int) -> memoryview:
        """Give what the next piece, of ``most`` bytes or less, is to be read into; release it."""
        payload = self._payload
        if self._have == len(payload):
            payload += bytes(min(len(payload), self._length - len(payload)))
        return memoryview(payload)[self._have : self._have + most]

    def took(self, count: int) -> bool:
        """Note that so many bytes have been read; whether the frame is whole."""
        begin, self._have = self._have, self._have + count
        assert _apply_mask is not None  # noqa: S101 (else nobody makes one)
        turn = begin % _KEY
        key = self._key[turn:] + self._key[:turn]
        with memoryview(self._payload)[begin : self._have] as piece:
            piece[:] = _apply_mask(piece, key)
        return self._have == self._length

    def text(self) -> str | bytearray:
        """Give the text of a whole frame, as it is if it is ASCII. Raises UnicodeDecodeError."""
        return self._payload if self._payload.isascii() else self._payload.decode()


def begin_long_text(data: bytes, most_bytes: int) -> LongText | None:
    """Begin with a plain text frame of which ``data`` is the beginning, if it is one and long."""
    key, length = _plain_text(data, 0, most_bytes)
    payload = key + _KEY
    if length < _MEDIUM or payload + length <= len(data) or _apply_mask is None:
        return None
    if payload > len(data):
        return None
    frame = LongText(data[key:payload], length)
    begin = payload
    while begin < len(data):
        with frame.room(len(data) - begin) as room:
            size = len(room)
            room[:] = data[begin : begin + size]
        frame.took(size)
        begin += size
    return frame


def between_messages(connection: Connection) -> bool:
    """Whether the next byte begins a message: nothing is half read, and nothing closes."""
    protocol = connection._proto  # noqa: SLF001
    frames = protocol._frame_decoder  # noqa: SLF001
    return (
        connection.state is ConnectionState.OPEN
        and frames.header is None
        and not len(frames.buffer)
        and protocol._message_decoder.opcode is None  # noqa: SLF001
    )
