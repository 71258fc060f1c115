"""Groups of processes that may use hardly any memory, made with what the machine allows."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["open_small_memory"]

ROOT = Path("/sys/fs/cgroup")
VERSIONS = ((ROOT / "memory", "memory.limit_in_bytes"), (ROOT, "memory.max"))


@contextmanager
def open_small_memory(size: int) -> Iterator[Path | None]:
    """The file by which a process joins a control group of ``size`` bytes, None if we may not."""
    group = _new_group(size)
    try:
        yield None if group is None else group / "cgroup.procs"
    finally:
        if group is not None:
            group.rmdir()


def _new_group(size: int) -> Path | None:
    for parent, limit in VERSIONS:
        group = parent / f"kallichore-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(size))
        except OSError:
            group.rmdir()
            continue
        return group
    return None
