"""What the server itself says on a session's channel: frames of kind ``kernel``."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from kallichore.models.base import Count, Instant
from kallichore.models.error import Error
from kallichore.models.session import ConnectionInfo, ResourceUsage, Status

__all__ = [
    "Attribution",
    "ExecutionRequested",
    "KernelEvent",
    "Resumed",
    "StatusChange",
    "StreamName",
]


class StreamName(StrEnum):
    """Where raw process output came from."""

    STDOUT = "stdout"
    STDERR = "stderr"


class StatusChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A new status; its reason is always there, and may be null."""

    status: Status
    reason: str | None


class Attribution(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who had code run."""

    source: str
    agent_name: str | None = None
    agent_version: str | None = None
    workspace_id: str | None = None
    tool: str | None = None


class ExecutionRequested(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Code that did not come from this client is about to run."""

    msg_id: str
    code: str
    requested_at: Instant
    attribution: Attribution


class Resumed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Frames between `after` and `oldest` are gone."""

    after: Count
    oldest: Count


class KernelEvent(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename="camel",
    tag_field="kind",
    tag="kernel",
):
    """A frame of kind ``kernel``: exactly one field is set, as in ``KernelEvent(exited=0)``.

    A client that resumes sees `seq` beside it.
    """

    status: StatusChange | None = None
    output: tuple[StreamName, str] | None = None
    execution_queued: str | None = None
    execution_requested: ExecutionRequested | None = None
    working_dir_changed: str | None = None
    resource_usage: ResourceUsage | None = None
    handshake_completed: tuple[str, ConnectionInfo] | None = None
    client_disconnected: str | None = None
    exited: int | None = None
    resumed: Resumed | None = None
    error: Error | None = None
    seq: Count | None = None
