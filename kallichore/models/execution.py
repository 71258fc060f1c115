"""Running code: the queue, ``/execute`` and the history."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from kallichore.models.base import Count, Milliseconds

__all__ = [
    "ExecuteOutput",
    "ExecuteOutputType",
    "ExecuteReply",
    "ExecuteRequest",
    "ExecuteStatus",
    "ExecutionError",
    "ExecutionHistoryEntry",
    "ExecutionQueue",
]

EXECUTE_TIMEOUT_SECONDS = 31_536_000

ExecuteSeconds = Annotated[float, msgspec.Meta(gt=0, le=EXECUTE_TIMEOUT_SECONDS)]


class ExecutionQueue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The request that runs, and those held behind it; each a whole Jupyter message."""

    active: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    length: Count
    pending: list[msgspec.Raw]


class ExecuteRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Code to run, and how."""

    code: str
    silent: bool = False
    store_history: bool = True
    stop_on_error: bool = True
    timeout_seconds: ExecuteSeconds | None = None
    """None waits as long as the kernel needs."""


class ExecuteStatus(StrEnum):
    """How the code ended."""

    OK = "ok"
    ERROR = "error"


class ExecuteOutputType(StrEnum):
    """The iopub messages that are collected as outputs."""

    STREAM = "stream"
    DISPLAY_DATA = "display_data"
    ERROR = "error"


class ExecuteOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing the code showed while it ran."""

    type: ExecuteOutputType
    stream_name: str | None = None
    text: str | None = None
    data: dict[str, str] | None = None
    metadata: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error_name: str | None = None
    error_message: str | None = None
    error_traceback: list[str] | None = None


class ExecuteReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of the code."""

    status: ExecuteStatus
    execution_count: Count
    output: list[ExecuteOutput]
    data: dict[str, str] | None = None
    """The result by MIME type; what is not a string is its JSON text."""
    error_name: str | None = None
    error_message: str | None = None
    error_traceback: list[str] | None = None


class ExecutionError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The error that ended an execution."""

    name: str
    message: str
    traceback: list[str]


class ExecutionHistoryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One execution, remembered."""

    input: str
    output: str
    error: ExecutionError | None = None
    timestamp: Milliseconds
    """Milliseconds since 1970."""
    source: str | None = None
    agent: str | None = None
    truncated: bool
