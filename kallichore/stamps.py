"""Clock and chance: the instants and ids the pure core may not make itself."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime

__all__ = ["new_id", "now", "now_ms", "now_text"]


def now() -> datetime:
    """Give the current instant, in UTC."""
    return datetime.now(UTC)


def now_text() -> str:
    """Give the current instant as RFC 3339 text."""
    return now().isoformat().replace("+00:00", "Z")


def now_ms() -> int:
    """Give the current instant in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """Give a fresh UUID4."""
    return str(uuid.uuid4())
