"""Frames on disk: what an outbox cannot keep in memory, in small files of a private directory.

Records are gathered and written in one go per `WRITE_BYTES`; a file is read whole, once, and
deleted then. Files are plain: a record is its number, its length, whether it may be dropped, and
the finished frame.
"""

from __future__ import annotations

import logging
import os
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from kallichore.config import Limits

__all__ = ["Dropped", "Numbered", "Spool"]

WRITE_BYTES: Final = 256 * 1024
_RECORD: Final = struct.Struct("!QIB")
log = logging.getLogger(__name__)


class Numbered(NamedTuple):
    """A frame with its place in the session's order."""

    seq: int
    frame: bytes


@dataclass(slots=True)
class Dropped:
    """What had to make way since this was last told."""

    frames: int = 0
    size: int = 0
    seq: int = 0
    """The number of the last one."""

    def count(self, seq: int, size: int) -> None:
        """Add a frame."""
        self.frames += 1
        self.size += size
        self.seq = seq


class _Record(NamedTuple):
    seq: int
    frame: bytes
    droppable: bool


@dataclass(slots=True)
class _Segment:
    path: Path
    size: int = 0
    droppable: int = 0
    """Bytes of records that may be dropped."""


class Spool:
    """A first-in first-out queue of frames on disk."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        """Keep the files in ``directory``, which is made on first use and owned by the spool."""
        self._directory = directory
        self._limits = limits
        self._segments: deque[_Segment] = deque()
        self._pending: list[_Record] = []
        self._pending_bytes = 0
        self._disk_bytes = 0
        self._files_made = 0
        self.dropped = Dropped()

    def __bool__(self) -> bool:
        """Whether anything is in it."""
        return bool(self._pending or self._segments)

    @property
    def size(self) -> int:
        """Bytes kept, on disk and about to go there."""
        return self._disk_bytes + self._pending_bytes

    def append(self, seq: int, frame: bytes, *, droppable: bool) -> None:
        """Add a frame at the end."""
        self._pending.append(_Record(seq, frame, droppable))
        self._pending_bytes += len(frame)
        if self._pending_bytes >= WRITE_BYTES:
            self._write()

    def load(self) -> list[Numbered]:
        """Take out the oldest file's worth of frames."""
        if not self._segments:
            records, self._pending, self._pending_bytes = self._pending, [], 0
            return [Numbered(record.seq, record.frame) for record in records]
        segment = self._segments.popleft()
        records = self._read(segment)
        self._forget(segment)
        return [Numbered(record.seq, record.frame) for record in records]

    def close(self) -> None:
        """Delete everything."""
        while self._segments:
            self._forget(self._segments.popleft())
        self._pending.clear()
        self._pending_bytes = 0
        with suppress(OSError):
            self._directory.rmdir()

    # -- files ----------------------------------------------------------------------------------

    def _write(self) -> None:
        data = b"".join(
            part
            for record in self._pending
            for part in (
                _RECORD.pack(record.seq, len(record.frame), record.droppable),
                record.frame,
            )
        )
        try:
            segment = self._open_segment(len(data))
            _append(segment.path, segment.size, data)
        except OSError as error:
            self._shed_pending(error)
            return
        segment.size += len(data)
        segment.droppable += sum(len(r.frame) for r in self._pending if r.droppable)
        self._disk_bytes += len(data)
        self._pending.clear()
        self._pending_bytes = 0
        self._make_room()

    def _open_segment(self, size: int) -> _Segment:
        last = self._segments[-1] if self._segments else None
        if last is not None and last.size + size <= self._limits.outbox_segment_bytes:
            return last
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._files_made += 1
        path = self._directory / f"{self._files_made:08}"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
        segment = _Segment(path)
        self._segments.append(segment)
        return segment

    def _read(self, segment: _Segment) -> list[_Record]:
        try:
            data = segment.path.read_bytes()
        except OSError as error:
            log.warning("a spool file of %d bytes cannot be read: %s", segment.size, error)
            self.dropped.count(self.dropped.seq, segment.size)
            return []
        records: list[_Record] = []
        start = 0
        while start < segment.size:
            seq, length, droppable = _RECORD.unpack_from(data, start)
            start += _RECORD.size
            records.append(_Record(seq, data[start : start + length], bool(droppable)))
            start += length
        return records

    def _forget(self, segment: _Segment) -> None:
        self._disk_bytes -= segment.size
        segment.path.unlink(missing_ok=True)

    # -- making room ----------------------------------------------------------------------------

    def _shed_pending(self, error: OSError) -> None:
        """The disk is full: the newest stream output makes way, the rest stays in memory."""
        log.warning("cannot spool to %s: %s", self._directory, error)
        kept: list[_Record] = []
        for record in self._pending:
            if record.droppable:
                self.dropped.count(record.seq, len(record.frame))
            else:
                kept.append(record)
        self._pending = kept
        self._pending_bytes = sum(len(record.frame) for record in kept)

    def _make_room(self) -> None:
        """Over the bound the oldest stream output makes way, file by file."""
        while self._disk_bytes > self._limits.outbox_disk_bytes:
            oldest = next((s for s in self._segments if s.droppable), None)
            if oldest is None:
                return
            self._thin_out(oldest)

    def _thin_out(self, segment: _Segment) -> None:
        kept: list[bytes] = []
        for record in self._read(segment):
            if record.droppable:
                self.dropped.count(record.seq, len(record.frame))
            else:
                kept += (_RECORD.pack(record.seq, len(record.frame), False), record.frame)  # noqa: FBT003
        data = b"".join(kept)
        self._disk_bytes += len(data) - segment.size
        segment.size, segment.droppable = len(data), 0
        # Never longer than before, so this cannot run out of space.
        with segment.path.open("r+b") as file:
            file.write(data)
            file.truncate()


def _append(path: Path, size: int, data: bytes) -> None:
    """Write at the end; on failure the file is as it was."""
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        view = memoryview(data)
        done = 0
        while done < len(data):
            done += os.pwrite(fd, view[done:], size + done)
    except OSError:
        os.ftruncate(fd, size)
        raise
    finally:
        os.close(fd)
