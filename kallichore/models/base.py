"""What models share: numbers with their ranges, and strings with what they may not hold."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "INT32_MAX",
    "NO_CONTROL",
    "PATTERN_WORDS",
    "Count",
    "EnvName",
    "Instant",
    "LogLevelName",
    "Milliseconds",
    "Port",
    "ProcessId",
    "Text",
]

INT32_MAX: Final = 2**31 - 1

NO_NUL: Final = r"^[^\u0000]*$"
VARIABLE: Final = r"^[^=\u0000]+$"
NO_CONTROL: Final = r"^[^\u0000-\u001f\u007f-\u009f]+(?![\s\S])"
LOG_LEVEL: Final = r"^(?:trace|debug|info|warn|error)(?![\s\S])"

PATTERN_WORDS: Final[Mapping[str | None, str]] = {
    None: "",
    NO_NUL: " without NUL characters",
    VARIABLE: " that is not empty and holds neither = nor NUL",
    NO_CONTROL: " without control characters",
    LOG_LEVEL: " that is one of trace, debug, info, warn, error",
}
"""How each pattern is said to a person."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
ProcessId = Annotated[int, msgspec.Meta(ge=1, le=INT32_MAX)]

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A moment with its time zone, RFC 3339 in JSON."""

Text = Annotated[str, msgspec.Meta(pattern=NO_NUL)]
"""A string that is handed to the operating system, and therefore holds no NUL."""

EnvName = Annotated[str, msgspec.Meta(pattern=VARIABLE)]
LogLevelName = Annotated[str, msgspec.Meta(pattern=LOG_LEVEL)]
