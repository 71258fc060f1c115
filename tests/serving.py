"""A whole server inside the test's own process, and an account of what it leaves behind.

What `kallichore.server` builds, without the process around it: no signals, no guardian, no files
for others. Whatever a test does, at the end nothing may be left: `open_serving` counts tasks,
processes, descriptors, ports and files.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections import Counter
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
import zmq

from kallichore import _platform, listeners
from kallichore.client import Client, Target
from kallichore.config import Config, Deadlines, Limits, Transport
from kallichore.kernel.connection import PortPool, open_runtime_directory
from kallichore.kernel.process import Reaper
from kallichore.kernel.run import RunTools
from kallichore.supervisor import Supervisor
from kallichore.tally import Tally
from kallichore.traffic import Traffic
from kallichore.web.behind import MODULES
from kallichore.web.door import Door

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["TOKEN", "Account", "Serving", "open_serving", "take_account"]

TOKEN: Final = "a-token-of-the-tests"
for _module in MODULES:
    import_module(_module)  # now: a file that a thread is just importing is no leftover
PATIENCE: Final = 30
"""Seconds after which a test hangs."""


@dataclass(frozen=True)
class Account:
    """What this process has, by kind."""

    descriptors: dict[str, str]
    children: set[int]
    tasks: Counter[str]

    def grown_since(self, before: Account) -> dict[str, object]:
        """What is there now and was not before, by kind; empty if nothing is."""
        more: dict[str, object] = {
            "descriptors": {
                number: target
                for number, target in self.descriptors.items()
                if before.descriptors.get(number) is None
            },
            "children": self.children - before.children,
            "tasks": self.tasks - before.tasks,
        }
        return {kind: what for kind, what in more.items() if what}


def take_account() -> Account:
    """Count what this process has open, running and alive."""
    descriptors = {}
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            descriptors[number] = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
        except FileNotFoundError:
            continue  # the one with which we list
    children = set(_platform.children(os.getpid()))
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return Account(descriptors, children, Counter(_names(root)))


def _names(task: trio.lowlevel.Task) -> list[str]:
    """Name a task and everything below it."""
    found = [task.name]
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            found += _names(child)
    return found


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A server, and a client of it."""

    supervisor: Supervisor
    tools: RunTools
    door: Door
    target: Target
    client: Client
    directory: Path
    """Of the test; the server's own sockets are in it too."""

    def stranger(self) -> Client:
        """Make a client without the token."""
        return Client(replace(self.target, token=None))

    async def wait_until(self, status: str, session_id: str = "one") -> None:
        """Wait until a session has the given status."""
        session = self.supervisor.get(session_id)
        while session.status != status:
            await session.talk.status_changed.next()


@asynccontextmanager
async def open_serving(
    *,
    transport: Transport = Transport.SOCKET,
    token: str | None = TOKEN,
    limits: Limits | None = None,
    deadlines: Deadlines | None = None,
    environment: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> AsyncIterator[Serving]:
    """Serve until the end of the block; then shut down in order, and see that nothing is left."""
    config = Config(
        transport=transport, limits=limits or Limits(), deadlines=deadlines or Deadlines()
    )
    before = take_account()
    with tempfile.TemporaryDirectory(prefix="kc-", dir="/tmp") as name, trio.fail_after(patience):
        directory = Path(name)
        tools: RunTools | None = None
        with ExitStack() as stack:
            tools = _tools(config, directory, environment or os.environ, stack)
            listener, target = _listen(config, directory, token, stack)
            supervisor = Supervisor(config, tools, uuid.UUID(tools.server_id), [directory])
            door = Door(config, supervisor, token)
            async with Client(target) as client, trio.open_nursery() as services:
                await services.start(tools.reaper.run)
                async with trio.open_nursery() as doors:
                    async with trio.open_nursery() as sessions:
                        await sessions.start(supervisor.run)
                        await doors.start(door.run, listener)
                        try:
                            yield Serving(
                                supervisor=supervisor,
                                tools=tools,
                                door=door,
                                target=target,
                                client=client,
                                directory=directory,
                            )
                        finally:
                            supervisor.stop("the test is over")
                    door.close()
                services.cancel_scope.cancel(reason="the test is over")
            assert _contents(tools.directory) == []
        assert tools.ports._reserved == set()
        assert [path for path in _contents(directory) if path.is_socket()] == []
    assert take_account().grown_since(before) == {}


def _contents(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def _tools(
    config: Config, directory: Path, environment: Mapping[str, str], stack: ExitStack
) -> RunTools:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stack.callback(context.destroy, linger=0)
    return RunTools(
        context=context,
        ports=PortPool(config.limits),
        reaper=Reaper(config.limits, config.deadlines),
        directory=stack.enter_context(open_runtime_directory(directory)),
        environment=dict(environment),
        server_id=str(uuid.uuid4()),
        tally=Tally(),
        traffic=Traffic(config.deadlines.shared_seconds),
        limits=config.limits,
        deadlines=config.deadlines,
    )


def _listen(
    config: Config, directory: Path, token: str | None, stack: ExitStack
) -> tuple[trio.SocketListener, Target]:
    backlog = config.limits.listen_backlog
    if config.transport is Transport.TCP:
        listener = listeners.listen_tcp(0, backlog)
        port = listener.socket.getsockname()[1]
        return listener, Target(base_url=f"http://127.0.0.1:{port}", token=token)
    path = directory / "main.sock"
    listener = listeners.listen_unix(path, backlog)
    stack.callback(listeners.remove_socket, path)
    return listener, Target(socket_path=str(path), token=token)
