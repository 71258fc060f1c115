"""Frames on disk: what an outbox cannot keep in memory, in small files of a private directory.

Records are gathered and written in one go per `WRITE_BYTES`; a file is read whole, once, and
deleted then. Files are plain: a record is its number, its length, its kind, and the finished frame.
What has to make way leaves a gap, a record in its place that says how much it was.
"""

from __future__ import annotations

import logging
import os
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from kallichore.config import Limits

__all__ = ["Dropped", "Numbered", "Spool"]

WRITE_BYTES: Final = 256 * 1024
LEAST_WRITE_BYTES: Final = 16 * 1024
"""What is written in one go while memory is tight."""
_RECORD: Final = struct.Struct("!QIB")
_GAP_SIZES: Final = struct.Struct("!QQ")
_KEPT: Final = 0
_DROPPABLE: Final = 1
_GAP: Final = 2
log = logging.getLogger(__name__)


class Numbered(msgspec.Struct, frozen=True, gc=False):
    """A frame with its place in the session's order."""

    seq: int
    frame: bytes


class Dropped(NamedTuple):
    """What had to make way in one place."""

    frames: int
    size: int


class _Record(NamedTuple):
    seq: int
    frame: bytes
    """Of a gap: its sizes, packed."""
    kind: int


@dataclass(slots=True)
class _Segment:
    path: Path
    size: int = 0
    droppable: int = 0
    """Bytes of frames that may be dropped."""
    frames: int = 0
    last_seq: int = 0
    ended: bool = False
    """Nothing is to be added any more."""
    data: bytes | None = None
    """What should be in the file, if that could not be rewritten."""


class Spool:
    """A first-in first-out queue of frames on disk."""

    def __init__(self, directory: Path, limits: Limits, notice: Callable[[Dropped], bytes]) -> None:
        """Keep the files in ``directory``, which is made on first use and owned by the spool.

        ``notice`` makes the frame that tells a client what was dropped in its place.
        """
        self._directory = directory
        self._limits = limits
        self._notice = notice
        self._segments: deque[_Segment] = deque()
        self._pending: list[_Record] = []
        self._pending_bytes = 0
        self._write_at = WRITE_BYTES
        self._disk_bytes = 0
        self._files_made = 0
        self._failing = False
        self._overfull = False
        self._dropped_before = 0
        self.dropped_frames = 0
        """How many had to make way, in all."""

    def __bool__(self) -> bool:
        """Whether anything is in it."""
        return bool(self._pending or self._segments)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._disk_bytes

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory: about to go to the disk."""
        return self._pending_bytes

    def append(self, seq: int, frame: bytes, *, droppable: bool, tight: bool = False) -> None:
        """Add a frame at the end; while memory is ``tight`` less of it is gathered."""
        self._pending.append(_Record(seq, frame, _DROPPABLE if droppable else _KEPT))
        self._pending_bytes += len(frame)
        if self._pending_bytes >= self._write_at or (
            tight and not self._failing and self._pending_bytes >= LEAST_WRITE_BYTES
        ):
            self._write()

    def load(self) -> list[Numbered]:
        """Take out the oldest file's worth of frames; empty only if there is nothing more."""
        if self._segments:
            segment = self._segments.popleft()
            records = self._read(segment)
            self._forget(segment)
        else:
            records, self._pending = self._pending, []
            self._pending_bytes, self._write_at = 0, WRITE_BYTES
        if not self and self.dropped_frames > self._dropped_before:
            dropped = self.dropped_frames - self._dropped_before
            log.info("the client reads on: %d frames of output were dropped", dropped)
            self._dropped_before, self._overfull = self.dropped_frames, False
        return [Numbered(record.seq, self._frame_of(record)) for record in records]

    def skip(self, seq: int) -> None:
        """Forget files in which nothing is newer than ``seq``, without reading them."""
        while self._segments and self._segments[0].last_seq <= seq:
            self._forget(self._segments.popleft())

    def close(self) -> None:
        """Delete everything."""
        while self._segments:
            self._forget(self._segments.popleft())
        self._pending.clear()
        self._pending_bytes = 0
        with suppress(OSError):
            self._directory.rmdir()

    def _frame_of(self, record: _Record) -> bytes:
        if record.kind != _GAP:
            return record.frame
        return self._notice(Dropped(*_GAP_SIZES.unpack(record.frame)))

    # -- files ----------------------------------------------------------------------------------

    def _write(self) -> None:
        data = _packed(self._pending)
        try:
            segment = self._open_segment(len(data))
            _append(segment.path, segment.size, data)
        except OSError as error:
            self._end_segment()
            self._shed_pending(error)
            return
        segment.size += len(data)
        segment.droppable += _droppable(self._pending)
        segment.frames += len(self._pending)
        segment.last_seq = self._pending[-1].seq
        self._disk_bytes += len(data)
        self._pending.clear()
        self._pending_bytes, self._write_at, self._failing = 0, WRITE_BYTES, False
        self._make_room()

    def _open_segment(self, size: int) -> _Segment:
        last = self._segments[-1] if self._segments else None
        if (
            last is not None
            and not last.ended
            and last.size + size <= self._limits.outbox_segment_bytes
        ):
            return last
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._files_made += 1
        path = self._directory / f"{self._files_made:08}"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
        segment = _Segment(path)
        self._segments.append(segment)
        return segment

    def _end_segment(self) -> None:
        """Add nothing more to a file that could not be written; an empty one goes."""
        if self._segments:
            self._segments[-1].ended = True
            if not self._segments[-1].size:
                self._forget(self._segments.pop())

    def _read(self, segment: _Segment) -> list[_Record]:
        """Read a file; one that is not as it was left reads as a gap."""
        try:
            data = segment.path.read_bytes() if segment.data is None else segment.data
            return list(_unpacked(data[: segment.size], segment.size))
        except (OSError, struct.error) as error:
            log.error("a spool file of %d bytes cannot be read: %s", segment.size, error)  # noqa: TRY400
            self.dropped_frames += segment.frames
            sizes = _GAP_SIZES.pack(segment.frames, segment.size)
            return [_Record(segment.last_seq, sizes, _GAP)]

    def _forget(self, segment: _Segment) -> None:
        self._disk_bytes -= segment.size
        with suppress(OSError):
            segment.path.unlink()

    # -- making room ----------------------------------------------------------------------------

    def _shed_pending(self, error: OSError) -> None:
        """The disk is full: the newest stream output makes way, the rest stays in memory."""
        level = logging.DEBUG if self._failing else logging.WARNING
        log.log(level, "cannot spool to %s: %s", self._directory, error)
        self._failing = True
        self._pending = self._thinned(self._pending)
        self._pending_bytes = sum(len(record.frame) for record in self._pending)
        self._write_at = self._pending_bytes + WRITE_BYTES

    def _make_room(self) -> None:
        """Over the bound the oldest stream output makes way, file by file."""
        while self._disk_bytes > self._limits.outbox_disk_bytes:
            droppable = (place for place, one in enumerate(self._segments) if one.droppable)
            oldest = next(droppable, None)
            if oldest is None:
                return
            if not self._overfull:
                self._overfull = True
                limit = self._limits.outbox_disk_bytes
                log.warning("more than %d bytes wait on disk: the oldest output is dropped", limit)
            self._thin_out(oldest)

    def _thin_out(self, place: int) -> None:
        """Drop what may be dropped of a file; what is left joins the file before, if there is room.

        So the files that are left of a long flood do not become many.
        """
        segment = self._segments[place]
        records = self._thinned(self._read(segment))
        room = segment.size - len(_packed(records))
        if place and self._segments[place - 1].size <= room:
            before = self._segments[place - 1]
            records = self._thinned([*self._read(before), *records])
            self._forget(before)
            del self._segments[place - 1]
        data = _packed(records)
        self._disk_bytes += len(data) - segment.size
        segment.size, segment.droppable, segment.frames = len(data), 0, len(records)
        try:
            # Never longer than before, so this needs no space on a disk that is full.
            with segment.path.open("r+b") as file:
                file.write(data)
                file.truncate()
        except OSError as error:
            log.warning("cannot thin out a spool file, which stays in memory: %s", error)
            segment.data, segment.ended = data, True

    def _thinned(self, records: Iterable[_Record]) -> list[_Record]:
        """Put one gap in the place of neighbours that may be dropped."""
        thinned: list[_Record] = []
        for record in records:
            if record.kind == _KEPT:
                thinned.append(record)
                continue
            frames, size = 1, len(record.frame)
            if record.kind == _GAP:
                frames, size = _GAP_SIZES.unpack(record.frame)
            else:
                self.dropped_frames += 1
            if thinned and thinned[-1].kind == _GAP:
                more_frames, more_size = _GAP_SIZES.unpack(thinned.pop().frame)
                frames, size = frames + more_frames, size + more_size
            thinned.append(_Record(record.seq, _GAP_SIZES.pack(frames, size), _GAP))
        return thinned


def _packed(records: Iterable[_Record]) -> bytes:
    return b"".join(
        part
        for record in records
        for part in (_RECORD.pack(record.seq, len(record.frame), record.kind), record.frame)
    )


def _unpacked(data: bytes, size: int) -> Iterable[_Record]:
    if len(data) != size:
        raise struct.error(f"it has {len(data)} bytes")
    start = 0
    while start < size:
        seq, length, kind = _RECORD.unpack_from(data, start)
        start += _RECORD.size
        yield _Record(seq, data[start : start + length], kind)
        start += length


def _droppable(records: Iterable[_Record]) -> int:
    return sum(len(record.frame) for record in records if record.kind == _DROPPABLE)


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
