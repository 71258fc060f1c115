"""The server as a whole."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec

from kallichore.models.base import (
    INT32_MAX,
    Count,
    Instant,
    LogLevelName,
    ProcessId,
)

__all__ = ["ClientHeartbeat", "ServerConfiguration", "ServerStatus"]

Hours = Annotated[int, msgspec.Meta(ge=-INT32_MAX - 1, le=INT32_MAX)]
SampleInterval = Annotated[int, msgspec.Meta(ge=0, le=INT32_MAX)]


class ClientHeartbeat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client says that it is there."""

    process_id: ProcessId | None = None


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the server is doing."""

    sessions: Count
    active: Count
    busy: bool
    """Whether any session is busy."""
    idle_seconds: Count
    busy_seconds: Count
    uptime_seconds: Count
    version: str
    process_id: ProcessId
    started: Instant
    server_id: UUID


class ServerConfiguration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The settings that can be changed while the server runs; a field left out stays as it is."""

    idle_shutdown_hours: Hours | None = None
    """Minus one means never."""
    resource_sample_interval_ms: SampleInterval | None = None
    resource_include_children: bool | None = None
    log_level: LogLevelName | None = None
