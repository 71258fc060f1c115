"""The loopback addresses that this machine has: one of IPv6 is not everywhere."""

from __future__ import annotations

import socket

import pytest

__all__ = ["LOOPBACKS"]


def _can_be_bound(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


LOOPBACKS = pytest.mark.parametrize(
    "host", [one for one in ("127.0.0.1", "::1") if _can_be_bound(one)]
)
"""Runs a test with each of them as its ``host``."""
