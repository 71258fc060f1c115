"""Directories in which there is hardly any room, made with what the machine allows."""

from __future__ import annotations

import errno
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["FillingDisk", "open_small_disk"]


@contextmanager
def open_small_disk(directory: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes; a pretended one without the right to mount a real one."""
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
    with pytest.MonkeyPatch.context() as patches:
        FillingDisk(patches).room = size
        yield directory


class FillingDisk:
    """Makes `os.pwrite` fail for want of space, half way through a write, while ``full``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.room: int | None = None
        """Bytes until it is full by itself."""
        self.failures = 0
        self._pwrite: Callable[[int, memoryview, int], int] = os.pwrite
        monkeypatch.setattr(os, "pwrite", self.pwrite)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        if not self.full:
            if self.room is not None:
                self.room -= len(data)
                self.full = self.room < 0
            return self._pwrite(fd, data, offset)
        if len(data) > 10:
            return self._pwrite(fd, data[: len(data) // 2], offset)
        self.failures += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
