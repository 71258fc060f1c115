"""`Client`: one method per operation of the API, and the way to a session's channel."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import trio

from kallichore import models
from kallichore.client.http import Http
from kallichore.client.paths import session_path
from kallichore.client.target import Target
from kallichore.config import ClientBounds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from types import TracebackType

    from kallichore.client.channel import Channel

__all__ = ["Client", "open_client"]

KernelInfo = dict[str, Any]
"""The content of a `kernel_info_reply`."""


class Client:
    """A Kallichore server, as its users see it. An async context manager; use it in one.

    Every method sends one request and waits for its answer for as long as it takes; bound it with
    `trio.fail_after`. Cancelling a method drops its connection: what the server has begun for a
    session (a start, say) goes on there, only `execute_code` is withdrawn or interrupted. Methods
    may be called from several tasks at once.

    All of them raise `ServerGone` if nobody answers, `TokenRefused`, `SessionUnknown` or another
    `RequestFailed` if the server refuses, and `UnexpectedAnswer` if it is no Kallichore server.
    """

    def __init__(self, target: Target, bounds: ClientBounds | None = None) -> None:
        """Make a client of the server at ``target``; nothing is sent yet."""
        self.target = target
        self._bounds = bounds or ClientBounds()
        self._http = Http(target, self._bounds)

    @classmethod
    def from_connection_file(cls, path: str | Path) -> Self:
        """Make a client of the server that wrote this connection file.

        Raises:
            BadTarget: if the file cannot be read or names no address.
        """
        return cls(Target.from_connection_file(path))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with trio.move_on_after(self._bounds.close_seconds, shield=True):
            await self._http.aclose()

    # The server ----------------------------------------------------------------------------------

    async def server_status(self) -> models.ServerStatus:
        """Say how the server is doing; the one operation that needs no token."""
        return await self._http.ask("GET", "/status", models.ServerStatus)

    async def get_server_configuration(self) -> models.ServerConfiguration:
        """Read the settings that can be changed while the server runs."""
        return await self._http.ask("GET", "/server_configuration", models.ServerConfiguration)

    async def set_server_configuration(self, configuration: models.ServerConfiguration) -> None:
        """Change settings, all of those given or none; what is None stays as it is."""
        await self._http.ask("POST", "/server_configuration", type(None), configuration)

    async def client_heartbeat(self, process_id: int | None = None) -> None:
        """Say that somebody is there; while the named process lives, idle shutdown waits."""
        heartbeat = models.ClientHeartbeat(process_id=process_id)
        await self._http.ask("POST", "/client_heartbeat", type(None), heartbeat)

    async def get_metrics(self) -> str:
        """Return the server's numbers in Prometheus' text format."""
        return await self._http.ask_text("GET", "/metrics")

    async def shutdown_server(self) -> None:
        """Have the server stop all kernels and then itself; it answers before it does so."""
        await self._http.ask("POST", "/shutdown", type(None))

    # Sessions ------------------------------------------------------------------------------------

    async def list_sessions(self) -> models.SessionList:
        """List all sessions in the order of their creation."""
        return await self._http.ask("GET", "/sessions", models.SessionList)

    async def new_session(self, session: models.NewSession) -> str:
        """Create a session without a kernel yet, and return its id."""
        reply = await self._http.ask("PUT", "/sessions", models.NewSessionReply, session)
        return reply.session_id

    async def get_session(self, session_id: str) -> models.ActiveSession:
        """Describe a session as it is now."""
        return await self._http.ask("GET", session_path(session_id), models.ActiveSession)

    async def delete_session(self, session_id: str) -> None:
        """Forget a session that has no kernel running; its channel is closed."""
        await self._http.ask("DELETE", session_path(session_id), type(None))

    async def start_session(self, session_id: str) -> KernelInfo:
        """Start the session's kernel, and return its `kernel_info_reply`'s content.

        Raises:
            StartFailed: if it does not come up; with its exit code and output.
        """
        return await self._http.ask("POST", session_path(session_id, "start"), KernelInfo)

    async def restart_session(
        self, session_id: str, changes: models.RestartSession | None = None
    ) -> None:
        """End the kernel and start it anew, with another directory or environment if wanted.

        Raises:
            StartFailed: if it does not come up again; with its exit code and output.
        """
        await self._http.ask("POST", session_path(session_id, "restart"), type(None), changes)

    async def kill_session(self, session_id: str) -> None:
        """Kill the kernel's process group; the answer does not wait for its end."""
        await self._http.ask("POST", session_path(session_id, "kill"), type(None))

    async def interrupt_session(self, session_id: str) -> None:
        """Interrupt what the kernel is running."""
        await self._http.ask("POST", session_path(session_id, "interrupt"), type(None))

    async def adopt_session(self, session_id: str, connection: models.ConnectionInfo) -> KernelInfo:
        """Give the session a kernel that somebody else runs; return its kernel info."""
        return await self._http.ask(
            "PUT", session_path(session_id, "adopt"), KernelInfo, connection
        )

    async def connection_info(self, session_id: str) -> models.ConnectionInfo:
        """Give ports and key of the session's kernel; allocates them if it has none yet."""
        path = session_path(session_id, "connection_info")
        return await self._http.ask("GET", path, models.ConnectionInfo)

    # Messages ------------------------------------------------------------------------------------

    async def channels_upgrade(self, session_id: str) -> str:
        """Give the path of the session's own socket, on a server reached by a Unix socket.

        On TCP the operation is a WebSocket upgrade, and asking like this is refused. `open_channel`
        knows both.
        """
        return await self._http.ask("GET", session_path(session_id, "channels"), str)

    def open_channel(
        self, session_id: str, after: int | None = None
    ) -> AbstractAsyncContextManager[Channel]:
        """Connect to the session's channel, in an ``async with``; a client already there has to go.

        ``after`` asks for numbered frames (CONTRACT 5.5): 0 for the first time, later the
        `Channel.seq` reached, to get what was sent since.

        Raises (on entering):
            ServerGone: if there is no connection, or no upgrade in `ClientBounds.upgrade_seconds`.
            RequestFailed: if the server refuses the upgrade.
        """
        from kallichore.client.channel import open_channel  # noqa: PLC0415 - costs 50 ms, rarely due

        return open_channel(self, session_id, after, self._bounds)

    async def execute_code(
        self, session_id: str, request: models.ExecuteRequest
    ) -> models.ExecuteReply:
        """Run code without a channel, and return its outputs when it has ended.

        Code that raises is no error here: the reply's status says so. A client that is connected
        to the channel stays there. Cancelling withdraws the code if it waits, and interrupts it if
        it runs.
        """
        return await self._http.ask(
            "POST", session_path(session_id, "execute"), models.ExecuteReply, request
        )

    async def get_session_history(self, session_id: str) -> list[models.ExecutionHistoryEntry]:
        """Give the session's last executions, oldest first."""
        entries = list[models.ExecutionHistoryEntry]
        return await self._http.ask("GET", session_path(session_id, "history"), entries)


@asynccontextmanager
async def open_client(target: str | Path, token: str | None = None) -> AsyncIterator[Client]:
    """Open a client of the server at a URL, a Unix socket or behind a connection file.

    ``target`` is ``http://HOST:PORT``, ``unix:/PATH``, the path of a socket or the path of a
    connection file; ``token`` outranks the file's.

    Raises:
        BadTarget: if it is none of these. Whether a server is there shows with the first request.
    """
    async with Client(Target.parse(target, token)) as client:
        yield client
