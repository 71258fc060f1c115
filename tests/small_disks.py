"""Directories in which there is hardly any room, made with what the machine allows."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

__all__ = ["FillingDisk", "open_small_disk"]


@contextmanager
def open_small_disk(directory: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes; without the right to mount one, files of at most that."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if mounted:
        try:
            yield directory
        finally:
            subprocess.run(["umount", "-l", str(directory)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield directory
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class FillingDisk:
    """Makes `os.pwrite` fail for want of space, half way through a write, while ``full``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.failures = 0
        self._pwrite: Callable[[int, memoryview, int], int] = os.pwrite
        monkeypatch.setattr(os, "pwrite", self.pwrite)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        if not self.full:
            return self._pwrite(fd, data, offset)
        if len(data) > 10:
            return self._pwrite(fd, data[: len(data) // 2], offset)
        self.failures += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
