"""Servers for end-to-end tests: in the test's own process, on both transports or on one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kallichore.config import Transport
from tests.serving import Serving, open_serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    """A server on a Unix socket, for tests to which the transport makes no difference."""
    async with open_serving() as opened:
        yield opened


@pytest.fixture(params=[Transport.TCP, Transport.SOCKET])
async def both_ways(request: pytest.FixtureRequest) -> AsyncIterator[Serving]:
    """A server on TCP, and one on a Unix socket."""
    async with open_serving(transport=request.param) as opened:
        yield opened
