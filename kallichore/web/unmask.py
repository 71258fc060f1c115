"""Undoing the masking of what clients send (RFC 6455, section 5.3) at the speed of memory.

wsproto does it in Python: 1.4 ms for a megabyte, which would be most of what a big message costs
us. The C function of the `websockets` package needs 0.03 ms.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any

from wsproto.frame_protocol import FrameDecoder, XorMaskerSimple

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsproto.connection import Connection

__all__ = ["unmask_fast"]


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
