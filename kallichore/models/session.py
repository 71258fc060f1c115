"""A session: how it is asked for, and how it is described."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from kallichore.models.base import NO_CONTROL, Count, Instant, Milliseconds, Port, ProcessId, Text
from kallichore.models.environment import EnvVarActions
from kallichore.models.execution import ExecutionHistoryEntry, ExecutionQueue

__all__ = [
    "ActiveSession",
    "ConnectionInfo",
    "InterruptMode",
    "LastExit",
    "NewSession",
    "NewSessionReply",
    "ResourceUsage",
    "RestartSession",
    "SessionList",
    "SessionMode",
    "StartupEnvironment",
    "Status",
]

SESSION_ID_BYTES = 255
CONNECTION_TIMEOUT_SECONDS = 86_400

SessionId = Annotated[
    str, msgspec.Meta(min_length=1, max_length=SESSION_ID_BYTES, pattern=NO_CONTROL)
]
TimeoutSeconds = Annotated[int, msgspec.Meta(ge=1, le=CONNECTION_TIMEOUT_SECONDS)]


class SessionMode(StrEnum):
    """What the session is for."""

    CONSOLE = "console"
    NOTEBOOK = "notebook"
    BACKGROUND = "background"


class InterruptMode(StrEnum):
    """How the kernel is interrupted."""

    SIGNAL = "signal"
    MESSAGE = "message"


class StartupEnvironment(StrEnum):
    """What runs before the kernel, in the process that becomes the kernel."""

    NONE = "none"
    SHELL = "shell"
    COMMAND = "command"
    SCRIPT = "script"


class Status(StrEnum):
    """Where a session is in its life."""

    UNINITIALIZED = "uninitialized"
    STARTING = "starting"
    READY = "ready"
    IDLE = "idle"
    BUSY = "busy"
    OFFLINE = "offline"
    EXITED = "exited"


class NewSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to create a session from."""

    session_id: SessionId
    display_name: str
    language: str
    username: str
    input_prompt: str
    continuation_prompt: str
    argv: list[Text]
    session_mode: SessionMode
    working_directory: Text
    notebook_uri: str | None = None
    env: EnvVarActions
    connection_timeout: TimeoutSeconds | None = None
    """Seconds for a start; None means the server's own deadline."""
    interrupt_mode: InterruptMode
    protocol_version: str = "5.3"
    startup_environment: StartupEnvironment
    startup_environment_arg: Text | None = None

    def __post_init__(self) -> None:
        """Check what the schema alone cannot say.

        Raises:
            ValueError: if the id is too long in UTF-8, or a start-up step lacks its argument.
        """
        size = len(self.session_id.encode())
        if size > SESSION_ID_BYTES:
            msg = f"`session_id`: expected at most {SESSION_ID_BYTES} bytes of UTF-8, got {size}"
            raise ValueError(msg)
        step = self.startup_environment
        needs_argument = step in {StartupEnvironment.COMMAND, StartupEnvironment.SCRIPT}
        if needs_argument and not self.startup_environment_arg:
            msg = f"`startup_environment_arg`: expected the {step} that `startup_environment` names"
            raise ValueError(msg)


class NewSessionReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The id of the session that was created."""

    session_id: str


class RestartSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to change when a kernel is restarted."""

    working_directory: Text | None = None
    env: EnvVarActions | None = None


class ConnectionInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a kernel listens, and the key its messages are signed with.

    Encoded, it is the content of a Jupyter connection file.
    """

    control_port: Port
    shell_port: Port
    stdin_port: Port
    hb_port: Port
    iopub_port: Port
    signature_scheme: str
    key: str
    transport: str
    ip: str


class ResourceUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One measurement of what a kernel uses."""

    cpu_percent: Count
    """100 is one core."""
    memory_bytes: Count
    thread_count: Count
    sampling_period_ms: Milliseconds
    timestamp: Milliseconds
    """Milliseconds since 1970."""


class LastExit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the session's last run ended."""

    exit_code: int
    """Minus one for a signal."""
    signal: str | None = None
    out_of_memory: bool | None = None
    requested: bool
    at: Instant
    output_tail: str | None = None


class ActiveSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session as it is now."""

    session_id: str
    argv: list[str]
    process_id: ProcessId | None = None
    username: str
    display_name: str
    language: str
    interrupt_mode: InterruptMode
    initial_env: dict[str, str] | None = None
    connected: bool
    started: Instant
    session_mode: SessionMode
    working_directory: str
    notebook_uri: str | None = None
    input_prompt: str
    continuation_prompt: str
    execution_queue: ExecutionQueue
    status: Status
    kernel_info: msgspec.Raw
    """A JSON object: the content of the last kernel_info_reply, ``{}`` until there was one."""
    resource_usage: ResourceUsage | None = None
    idle_seconds: Count
    busy_seconds: Count
    socket_path: str | None = None
    history: list[ExecutionHistoryEntry]
    last_exit: LastExit | None = None


class SessionList(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All sessions, in the order of their creation."""

    total: Count
    sessions: list[ActiveSession]
