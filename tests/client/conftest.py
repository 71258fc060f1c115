"""The fake server on both transports, and a client of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kallichore.client import Client, open_client
from tests.client.fake_server import FakeServer, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="kc-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(params=["tcp", "socket"])
async def server(request: pytest.FixtureRequest, short_path: Path) -> AsyncIterator[FakeServer]:
    path = short_path / "fake.sock" if request.param == "socket" else None
    async with open_server(path) as fake:
        yield fake


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[Client]:
    async with open_client(server.address, "secret") as opened:
        yield opened
