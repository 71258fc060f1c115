"""Where a host is, and whether anybody listens at a port, told without holding up anybody."""

from __future__ import annotations

from typing import Final

import trio

__all__ = ["address_of", "listens"]

_PROBE_SECONDS: Final = 0.5
"""On the loopback an answer or a refusal comes within microseconds; elsewhere it may be lost."""


async def address_of(host: str) -> str:
    """Give the numeric address of a host, an IPv4 one if it has both.

    libzmq can resolve names too, but in the one thread that serves all kernels.

    Raises:
        OSError, UnicodeError: There is no such host.
    """
    found = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
    found.sort(key=lambda one: one[0] != trio.socket.AF_INET)
    return str(found[0][4][0])


async def listens(host: str, port: int) -> bool:
    """Tell whether anybody accepts connections there, at an address (IPv4 or IPv6) or a name.

    Where that cannot be told in time, it counts as though somebody did: nobody answers, but nobody
    refuses either.
    """
    with trio.move_on_after(_PROBE_SECONDS):
        try:
            found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return False
        for family, kind, protocol, _, address in found:
            try:
                probe = trio.socket.socket(family, kind, protocol)
            except OSError:  # we have no descriptor left, say
                return True
            if await _accepts(probe, address):
                return True
        return False
    return True


async def _accepts(probe: trio.socket.SocketType, address: object) -> bool:
    with probe:
        try:
            await probe.connect(address)
        except OSError:
            return False
        return True
