"""The operations of the API (CONTRACT 2.2): a record, and a small function that does it, for each.

This table is the only place that knows which paths there are. What an operation does is the
business of the supervisor and its sessions; here it is only asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
import trio

from kallichore.errors import BadRequest, KallichoreError, SessionNotFound
from kallichore.models import (
    ClientHeartbeat,
    ConnectionInfo,
    ExecuteRequest,
    NewSession,
    NewSessionReply,
    RestartSession,
    ServerConfiguration,
)
from kallichore.web import metrics
from kallichore.web.upgrade import upgrade_required

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kallichore.models import (
        ActiveSession,
        ExecuteReply,
        ExecutionHistoryEntry,
        ServerStatus,
    )
    from kallichore.session import Session
    from kallichore.supervisor import Supervisor

__all__ = ["OPERATIONS", "AdoptionFailed", "Call", "Operation"]

B = TypeVar("B")

_SESSION = "/sessions/{session_id}"


class AdoptionFailed(Exception):
    """An adoption was refused or failed: 500, whatever the error's own status is."""

    def __init__(self, error: KallichoreError) -> None:
        """Keep the error."""
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[B]):
    """One request for an operation, with its body read already."""

    supervisor: Supervisor
    session_id: str
    """Empty for an operation on the server."""
    body: B
    serve_session: Callable[[Session, trio.SocketListener], Awaitable[None]] | None
    """None where channels are had by an upgrade."""

    @property
    def session(self) -> Session:
        """The session that the path names.

        Raises:
            SessionNotFound: There is none.

        """
        return self.supervisor.get(self.session_id)


@dataclass(frozen=True, slots=True)
class Operation(Generic[B]):
    """One method on one path."""

    operation_id: str
    method: str
    path: str
    carry_out: Callable[[Call[B]], Awaitable[object]]
    """Its value becomes the body of the answer."""
    body: type[msgspec.Struct] | None = field(default=None, kw_only=True)
    """What the body is decoded to; without one, a body is not looked at."""
    body_is_optional: bool = field(default=False, kw_only=True)
    is_open: bool = field(default=False, kw_only=True)
    """Whether it works without a token."""
    ends_with_caller: bool = field(default=False, kw_only=True)
    """Whether it is cancelled when its caller hangs up."""
    starts_kernel: bool = field(default=False, kw_only=True)
    """Whether a failure of ours (500) is told as a `StartupError`."""
    content_type: str | None = field(default=None, kw_only=True)
    """Of an answer that is bytes, not JSON."""


async def server_status(call: Call[None]) -> ServerStatus:
    """How the server is doing."""
    return call.supervisor.status()


async def list_sessions(call: Call[None]) -> msgspec.Raw:
    """Every session (a `SessionList`), in the order of their creation.

    Encoded one by one, so that hundreds of them do not delay the road of a message.
    """
    encoded: list[bytes] = []
    for session in list(call.supervisor.sessions.values()):
        encoded.append(msgspec.json.encode(session.describe()))
        await trio.lowlevel.checkpoint()
    return msgspec.Raw(b'{"total":%d,"sessions":[%b]}' % (len(encoded), b",".join(encoded)))


async def new_session(call: Call[NewSession]) -> NewSessionReply:
    """Make a session without a kernel yet."""
    return NewSessionReply(session_id=call.supervisor.create(call.body).id)


async def get_session(call: Call[None]) -> ActiveSession:
    """One session."""
    return call.session.describe()


async def delete_session(call: Call[None]) -> None:
    """Forget a session whose kernel is gone."""
    await call.supervisor.delete(call.session.id)


async def start_session(call: Call[None]) -> msgspec.Raw:
    """Start the session's kernel; its kernel_info."""
    return msgspec.Raw(await call.session.start())


async def restart_session(call: Call[RestartSession | None]) -> None:
    """End the session's kernel, if there is one, and start another."""
    await call.session.restart(call.body)


async def kill_session(call: Call[None]) -> None:
    """Kill the session's kernel."""
    call.session.kill()


async def interrupt_session(call: Call[None]) -> None:
    """Interrupt what the session's kernel does."""
    await call.session.interrupt()


async def adopt_session(call: Call[ConnectionInfo]) -> msgspec.Raw:
    """Connect the session to a kernel that somebody else runs; its kernel_info."""
    session = call.session
    try:
        return msgspec.Raw(await session.adopt(call.body))
    except (SessionNotFound, BadRequest):
        raise
    except KallichoreError as error:
        raise AdoptionFailed(error) from error


async def connection_info(call: Call[None]) -> ConnectionInfo:
    """Where the session's kernel is to be found, and the key to its messages."""
    return call.session.connection_info()


async def channels_upgrade(call: Call[None]) -> str:
    """The path of the session's own socket. Over TCP, an upgrade never comes as far as here."""
    session, serve_session = call.session, call.serve_session
    if serve_session is None:
        raise upgrade_required("This is a WebSocket; upgrade to version 13")

    async def serve(listener: trio.SocketListener) -> None:
        await serve_session(session, listener)

    return str(await session.open_socket(serve))


async def execute_code(call: Call[ExecuteRequest]) -> ExecuteReply:
    """Run code in the session's kernel, and wait for what comes of it."""
    return await call.session.execute(call.body)


async def get_session_history(call: Call[None]) -> list[ExecutionHistoryEntry]:
    """What has been executed, oldest first."""
    return call.session.history()


async def get_metrics(call: Call[None]) -> bytes:
    """The server's numbers, for Prometheus."""
    return metrics.render(call.supervisor)


async def client_heartbeat(call: Call[ClientHeartbeat | None]) -> None:
    """Note that a client is there, and which process it is if it says so."""
    call.supervisor.client_heartbeat(call.body.process_id if call.body else None)


async def get_server_configuration(call: Call[None]) -> ServerConfiguration:
    """The settings as they are."""
    return call.supervisor.configuration()


async def set_server_configuration(call: Call[ServerConfiguration]) -> None:
    """Change the settings that are given."""
    call.supervisor.configure(call.body)


async def shutdown_server(call: Call[None]) -> None:
    """Begin the orderly shutdown; the answer leaves before its end."""
    call.supervisor.stop("shutdown requested over HTTP")


OPERATIONS: tuple[Operation[Any], ...] = (
    Operation("server-status", "GET", "/status", server_status, is_open=True),
    Operation("list-sessions", "GET", "/sessions", list_sessions),
    Operation("new-session", "PUT", "/sessions", new_session, body=NewSession),
    Operation("get-session", "GET", _SESSION, get_session),
    Operation("delete-session", "DELETE", _SESSION, delete_session),
    Operation("start-session", "POST", f"{_SESSION}/start", start_session, starts_kernel=True),
    Operation(
        "restart-session",
        "POST",
        f"{_SESSION}/restart",
        restart_session,
        body=RestartSession,
        body_is_optional=True,
        starts_kernel=True,
    ),
    Operation("kill-session", "POST", f"{_SESSION}/kill", kill_session),
    Operation("interrupt-session", "POST", f"{_SESSION}/interrupt", interrupt_session),
    Operation("adopt-session", "PUT", f"{_SESSION}/adopt", adopt_session, body=ConnectionInfo),
    Operation("connection-info", "GET", f"{_SESSION}/connection_info", connection_info),
    Operation("channels-upgrade", "GET", f"{_SESSION}/channels", channels_upgrade),
    Operation(
        "execute-code",
        "POST",
        f"{_SESSION}/execute",
        execute_code,
        body=ExecuteRequest,
        ends_with_caller=True,
    ),
    Operation("get-session-history", "GET", f"{_SESSION}/history", get_session_history),
    Operation(
        "client-heartbeat",
        "POST",
        "/client_heartbeat",
        client_heartbeat,
        body=ClientHeartbeat,
        body_is_optional=True,
    ),
    Operation("get-server-configuration", "GET", "/server_configuration", get_server_configuration),
    Operation(
        "set-server-configuration",
        "POST",
        "/server_configuration",
        set_server_configuration,
        body=ServerConfiguration,
    ),
    Operation("get-metrics", "GET", "/metrics", get_metrics, content_type=metrics.CONTENT_TYPE),
    Operation("shutdown-server", "POST", "/shutdown", shutdown_server),
)
