"""What models share: numbers with their ranges, and strings with what they may not hold."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

__all__ = [
    "Count",
    "EnvName",
    "Instant",
    "LogLevelName",
    "Milliseconds",
    "Port",
    "ProcessId",
    "Text",
]

INT32_MAX = 2**31 - 1

Count = Annotated[int, msgspec.Meta(ge=0)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
ProcessId = Annotated[int, msgspec.Meta(ge=1, le=INT32_MAX)]

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A moment with its time zone, RFC 3339 in JSON."""

Text = Annotated[str, msgspec.Meta(pattern="^[^\u0000]*$")]
"""A string that is handed to the operating system, and therefore holds no NUL."""

EnvName = Annotated[str, msgspec.Meta(pattern="^[^=\u0000]+$")]

LogLevelName = Annotated[str, msgspec.Meta(pattern=r"^(?:trace|debug|info|warn|error)(?![\s\S])")]
