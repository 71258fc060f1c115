"""The fake server on both transports, and a client of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kallichore.client import Client, open_client
from tests.client.fake_server import FakeServer, open_server
from tests.client.samples import SESSION

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
async def lone_server(short_path: Path) -> AsyncIterator[FakeServer]:
    """A server on a Unix socket only, for tests to which the transport makes no difference."""
    async with open_server(short_path / "fake.sock") as fake:
        yield fake


@pytest.fixture
def one_session(lone_server: FakeServer) -> FakeServer:
    """A server that has the session ``one``."""
    lone_server.answer("GET", "/sessions", {"total": 1, "sessions": [SESSION]})
    lone_server.answer("GET", "/sessions/one", SESSION)
    return lone_server


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[Client]:
    async with open_client(server.address, "secret") as opened:
        yield opened
