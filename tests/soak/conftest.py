"""A server for the tests of the soak itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.serving import open_serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.serving import Serving


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    """A server on a Unix socket."""
    async with open_serving() as opened:
        yield opened
