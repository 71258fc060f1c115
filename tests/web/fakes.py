"""A supervisor and sessions that do what a test tells them, in place of the real ones."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

from kallichore.errors import SessionExists, SessionNotFound
from kallichore.frontend import Closed, HalfClosed, PeerGone, Text
from kallichore.models import (
    ActiveSession,
    ConnectionInfo,
    ExecuteReply,
    ExecuteStatus,
    ExecutionHistoryEntry,
    ExecutionQueue,
    InterruptMode,
    ServerConfiguration,
    ServerStatus,
    SessionMode,
    Status,
)
from kallichore.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kallichore.models import ExecuteRequest, NewSession, RestartSession
    from kallichore.web.websocket import WebSocket

__all__ = ["NEW_SESSION", "FakeSession", "FakeSupervisor"]

NEW_SESSION: dict[str, Any] = {
    "session_id": "new",
    "display_name": "Python",
    "language": "python",
    "username": "ada",
    "input_prompt": ">>>",
    "continuation_prompt": "...",
    "argv": [],
    "session_mode": "console",
    "working_directory": "",
    "env": [],
    "interrupt_mode": "signal",
    "startup_environment": "none",
}
CONNECTION = ConnectionInfo(
    control_port=1,
    shell_port=2,
    stdin_port=3,
    hb_port=4,
    iopub_port=5,
    signature_scheme="hmac-sha256",
    key="0" * 32,
    transport="tcp",
    ip="127.0.0.1",
)
KERNEL_INFO = b'{"status":"ok","banner":"1e400 \\u00e9"}'


class FakeSession:
    """A session that answers at once, unless a test gave it an error or something to wait for."""

    def __init__(self, session_id: str, nursery: trio.Nursery, directory: Path) -> None:
        self.id = session_id
        self.display_name = "Python"
        self.error: Exception | None = None
        """What every operation of the session fails with."""
        self.gate: trio.Event | None = None
        """What the slow operations wait for."""
        self.calls: list[str] = []
        self.arrived = trio.Event()
        """Set once a slow operation waits at the gate."""
        self.cancelled = trio.Event()
        """Set when a slow operation was cancelled there."""
        self.clients: list[int | None] = []
        self.texts: list[str | bytearray] = []
        self.heard = trio.Event()
        self.scope = trio.CancelScope()
        """Around everything that happens on the session's own socket."""
        self._nursery = nursery
        self._path = directory / f"{uuid.uuid4().hex[:8]}.sock"
        self._listens = False

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.error is not None:
            raise self.error

    async def _wait(self, name: str) -> None:
        self._called(name)
        self.arrived.set()
        if self.gate is not None:
            try:
                await self.gate.wait()
            except trio.Cancelled:
                self.cancelled.set()
                raise

    def describe(self) -> ActiveSession:
        self._called("describe")
        return ActiveSession(
            session_id=self.id,
            argv=[],
            username="ada",
            display_name=self.display_name,
            language="python",
            interrupt_mode=InterruptMode.SIGNAL,
            connected=False,
            started=datetime.now(UTC),
            session_mode=SessionMode.CONSOLE,
            working_directory="/",
            input_prompt=">>>",
            continuation_prompt="...",
            execution_queue=ExecutionQueue(length=0, pending=[]),
            status=Status.UNINITIALIZED,
            kernel_info=msgspec.Raw(b"{}"),
            idle_seconds=0,
            busy_seconds=0,
            history=[],
        )

    async def start(self) -> bytes:
        await self._wait("start")
        return KERNEL_INFO

    async def restart(self, changes: RestartSession | None) -> None:
        await self._wait(f"restart {changes}")

    async def adopt(self, connection: ConnectionInfo) -> bytes:
        await self._wait(f"adopt {connection.key}")
        return KERNEL_INFO

    async def interrupt(self) -> None:
        await self._wait("interrupt")

    def kill(self) -> None:
        self._called("kill")

    def connection_info(self) -> ConnectionInfo:
        self._called("connection_info")
        return CONNECTION

    async def execute(self, asked: ExecuteRequest) -> ExecuteReply:
        await self._wait(f"execute {asked.code}")
        return ExecuteReply(status=ExecuteStatus.OK, execution_count=1, output=[])

    def history(self) -> list[ExecutionHistoryEntry]:
        self._called("history")
        return [ExecutionHistoryEntry(input="1", output="1", timestamp=0, truncated=False)]

    async def open_socket(self, serve: Callable[[trio.SocketListener], Awaitable[None]]) -> Path:
        self._called("open_socket")
        if not self._listens:
            self._listens = True
            listener = trio.socket.socket(trio.socket.AF_UNIX)
            await listener.bind(str(self._path))
            listener.listen(16)
            self._nursery.start_soon(self._serve, serve, trio.SocketListener(listener))
        return self._path

    async def _serve(
        self,
        serve: Callable[[trio.SocketListener], Awaitable[None]],
        listener: trio.SocketListener,
    ) -> None:
        with self.scope:
            await serve(listener)

    async def attach(self, websocket: WebSocket, after: int | None) -> None:
        """Echo what a client says, until it goes."""
        self._called("attach")
        self.clients.append(after)
        try:
            while True:
                for event in await websocket.receive():
                    if isinstance(event, Text):
                        self.texts.append(event.text)
                        self.heard.set()
                    if isinstance(event, Closed | HalfClosed):
                        await websocket.send(websocket.close_frame(1000, ""))
                        return
        except PeerGone:
            return
        except trio.Cancelled:
            with trio.move_on_after(1, shield=True):
                await wait_all_tasks_blocked()
                await websocket.send(websocket.close_frame(1001, ""))
            raise


class FakeSupervisor:
    """A supervisor of fake sessions."""

    def __init__(self, nursery: trio.Nursery, directory: Path) -> None:
        self.sessions: dict[str, FakeSession] = {}
        self.settings = ServerConfiguration(idle_shutdown_hours=-1)
        self.heartbeats: list[int | None] = []
        self.stops: list[str] = []
        self.traffic = Traffic(0)
        self.error: Exception | None = None
        """What `status` fails with."""
        self._nursery = nursery
        self._directory = directory

    def add(self, session_id: str) -> FakeSession:
        session = FakeSession(session_id, self._nursery, self._directory)
        self.sessions[session_id] = session
        return session

    def create(self, new: NewSession) -> FakeSession:
        if new.session_id in self.sessions:
            raise SessionExists(new.session_id)
        return self.add(new.session_id)

    def get(self, session_id: str) -> FakeSession:
        try:
            return self.sessions[session_id]
        except KeyError:
            raise SessionNotFound(session_id) from None

    async def delete(self, session_id: str) -> None:
        await trio.lowlevel.checkpoint()
        session = self.get(session_id)
        if session.error is not None:
            raise session.error
        del self.sessions[session_id]

    def status(self) -> ServerStatus:
        if self.error is not None:
            raise self.error
        return ServerStatus(
            sessions=len(self.sessions),
            active=0,
            busy=False,
            idle_seconds=0,
            busy_seconds=0,
            uptime_seconds=0,
            version="0",
            process_id=os.getpid(),
            started=datetime.now(UTC),
            server_id=uuid.uuid4(),
        )

    def configuration(self) -> ServerConfiguration:
        return ServerConfiguration(
            idle_shutdown_hours=-1,
            resource_sample_interval_ms=1000,
            resource_include_children=True,
            log_level="info",
        )

    def configure(self, changes: ServerConfiguration) -> None:
        self.settings = changes

    def client_heartbeat(self, process_id: int | None) -> None:
        self.heartbeats.append(process_id)

    def stop(self, reason: str) -> None:
        self.stops.append(reason)
