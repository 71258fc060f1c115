"""Where wsproto is slow for what we read most: unmasking, and whole text frames (RFC 6455, 5).

It unmasks in Python: 1.4 ms for a megabyte, which would be most of what a big message costs us; the
C function of the `websockets` package needs 0.03 ms. And a small frame that needs none of the rules
costs 15 µs of following them. Whatever is not plain and whole is left to wsproto, which judges.
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

__all__ = ["between_messages", "unmask_fast", "whole_texts"]

_WHOLE_TEXT: Final = 0x81
_MASKED: Final = 0x80
_SHORT: Final = 126
_MEDIUM: Final = 65536
_KEY: Final = 4


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


def whole_texts(data: bytes, most: int, most_bytes: int) -> tuple[list[str], int]:
    """Read the masked text frames, each a message of its own, with which ``data`` begins.

    It stops at the first frame that is anything else: not whole yet, empty, of more than
    ``most_bytes``, malformed; and after ``most`` frames.

    Returns:
        Their texts, and how many bytes of ``data`` they are.
    """
    texts: list[str] = []
    begin, size = 0, len(data)
    if _apply_mask is None:
        return texts, begin
    while len(texts) < most and begin + 1 < size and data[begin] == _WHOLE_TEXT:
        length, key = data[begin + 1] - _MASKED, begin + 2
        if length == _SHORT:
            key += 2
            length = int.from_bytes(data[begin + 2 : key], "big")
            least = _SHORT
        elif length > _SHORT:
            key += 8
            length = int.from_bytes(data[begin + 2 : key], "big")
            least = _MEDIUM
        else:
            least = 1
        end = key + _KEY + length
        if end > size or not least <= length <= most_bytes:
            break
        payload = key + _KEY
        try:
            text = _apply_mask(data[payload:end], data[key:payload]).decode()
        except UnicodeDecodeError:
            break
        texts.append(text)
        begin = end
    return texts, begin


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
