"""The shapes of the API: one class per schema of ``kallichore.json``, and the channel's events.

Requests ignore unknown fields; responses leave out what is None or UNSET. Raw JSON that we pass on
without looking inside is `msgspec.Raw`. Integers carry their ranges, strings what they may hold.
"""

from __future__ import annotations

from kallichore.models.environment import EnvVarActions, VarAction, VarActionType
from kallichore.models.error import Error, StartupError
from kallichore.models.event import (
    Attribution,
    ExecutionRequested,
    KernelEvent,
    Resumed,
    StatusChange,
    StreamName,
)
from kallichore.models.execution import (
    ExecuteOutput,
    ExecuteOutputType,
    ExecuteReply,
    ExecuteRequest,
    ExecuteStatus,
    ExecutionError,
    ExecutionHistoryEntry,
    ExecutionQueue,
)
from kallichore.models.server import ClientHeartbeat, ServerConfiguration, ServerStatus
from kallichore.models.session import (
    ActiveSession,
    ConnectionInfo,
    InterruptMode,
    LastExit,
    NewSession,
    NewSessionReply,
    ResourceUsage,
    RestartSession,
    SessionList,
    SessionMode,
    StartupEnvironment,
    Status,
)

__all__ = [
    "ActiveSession",
    "Attribution",
    "ClientHeartbeat",
    "ConnectionInfo",
    "EnvVarActions",
    "Error",
    "ExecuteOutput",
    "ExecuteOutputType",
    "ExecuteReply",
    "ExecuteRequest",
    "ExecuteStatus",
    "ExecutionError",
    "ExecutionHistoryEntry",
    "ExecutionQueue",
    "ExecutionRequested",
    "InterruptMode",
    "KernelEvent",
    "LastExit",
    "NewSession",
    "NewSessionReply",
    "ResourceUsage",
    "RestartSession",
    "Resumed",
    "ServerConfiguration",
    "ServerStatus",
    "SessionList",
    "SessionMode",
    "StartupEnvironment",
    "StartupError",
    "Status",
    "StatusChange",
    "StreamName",
    "VarAction",
    "VarActionType",
]
