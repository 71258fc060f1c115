"""A door on a real socket, with a fake supervisor behind it."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from kallichore.config import Config, Deadlines, Limits, Transport
from kallichore.web.door import Door
from tests.web.fakes import FakeSession, FakeSupervisor
from tests.web.wire import TOKEN, Answer, Wire, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kallichore.supervisor import Supervisor

QUICK = Deadlines(linger_seconds=0.2, http_close_seconds=0.2)


@dataclass
class Front:
    """A running door, and what a test needs to know of it."""

    door: Door
    supervisor: FakeSupervisor
    session: FakeSession
    """The session ``one``."""
    address: Any
    closed: trio.Event
    """Set when the door's `run` has ended."""
    scope: trio.CancelScope
    """Around the door's `run`."""

    wires: list[Wire] = field(default_factory=list)

    async def connect(self, path: str | None = None) -> Wire:
        """Open a connection to the main listener, or to a session's socket."""
        if path is None and not isinstance(self.address, str):
            stream = await trio.open_tcp_stream(*self.address)
        else:
            stream = await trio.open_unix_socket(path or self.address)
        self.wires.append(Wire(stream))
        return self.wires[-1]

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str | None] | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        wire = await self.connect()
        async with wire.stream:
            return await wire.ask(request(method, path, body, headers))


async def _bind(transport: Transport, directory: str) -> tuple[trio.SocketListener, Any]:
    family = trio.socket.AF_INET if transport is Transport.TCP else trio.socket.AF_UNIX
    listener = trio.socket.socket(family)
    wanted = ("127.0.0.1", 0) if transport is Transport.TCP else f"{directory}/main.sock"
    await listener.bind(wanted)
    listener.listen(128)
    return trio.SocketListener(listener), listener.getsockname()


@asynccontextmanager
async def open_front(
    transport: Transport,
    *,
    limits: Limits | None = None,
    deadlines: Deadlines | None = None,
    token: str | None = TOKEN,
) -> AsyncIterator[Front]:
    """Run a door until the block ends; it must then close within its bounds."""
    config = Config(transport=transport)
    config = replace(config, limits=limits or config.limits, deadlines=deadlines or QUICK)
    with tempfile.TemporaryDirectory(prefix="kc-") as directory:
        async with trio.open_nursery() as nursery:
            supervisor = FakeSupervisor(nursery, Path(directory))
            door = Door(config, cast("Supervisor", supervisor), token)
            listener, address = await _bind(transport, directory)
            closed, scope = trio.Event(), trio.CancelScope()

            async def run(*, task_status: trio.TaskStatus[None]) -> None:
                with scope:
                    await door.run(listener, task_status=task_status)
                closed.set()

            await nursery.start(run)
            front = Front(door, supervisor, supervisor.add("one"), address, closed, scope)
            try:
                yield front
                door.close()
                with trio.fail_after(5):
                    await closed.wait()
            finally:
                for wire in front.wires:
                    wire.stream.socket.close()
            nursery.cancel_scope.cancel()


@pytest.fixture(params=[Transport.TCP, Transport.SOCKET], ids=["tcp", "socket"])
async def front(request: pytest.FixtureRequest) -> AsyncIterator[Front]:
    """A door on either transport."""
    async with open_front(request.param) as opened:
        yield opened


@pytest.fixture
async def tcp() -> AsyncIterator[Front]:
    """A door on TCP."""
    async with open_front(Transport.TCP) as opened:
        yield opened


@pytest.fixture
async def unix() -> AsyncIterator[Front]:
    """A door on a Unix socket."""
    async with open_front(Transport.SOCKET) as opened:
        yield opened
