"""Frames on disk: order, bounds, and what happens when the disk will not have them."""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING

import pytest

from kallichore.config import Limits
from kallichore.spool import Numbered, Spool
from tests.small_disks import FillingDisk, open_small_disk
from tests.spooling import SIZE, frame, notice, seqs_of, small_writes

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["small_writes"]

OVERHEAD = 13
LIMITS = Limits(outbox_segment_bytes=1000, outbox_disk_bytes=3000)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(directory: Path) -> Spool:
    return Spool(directory, LIMITS, notice)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FillingDisk:
    return FillingDisk(monkeypatch)


def fill(spool: Spool, seqs: range, kind: str = "reply", size: int = SIZE) -> None:
    for seq in seqs:
        spool.append(seq, frame(seq, kind).ljust(size, b"."), droppable=kind == "stream")


def drain(spool: Spool) -> list[Numbered]:
    drained: list[Numbered] = []
    while spool:
        loaded = spool.load()
        assert loaded
        drained += loaded
    return drained


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.exists() else []


def said(frames: list[Numbered]) -> list[str]:
    return [numbered.frame.decode() for numbered in frames if numbered.frame.startswith(b"dropped")]


# -- in and out ----------------------------------------------------------------------------------


def test_nothing_is_on_disk_before_there_is_enough_to_write(spool: Spool, directory: Path) -> None:
    fill(spool, range(1, 4))
    assert files(directory) == []
    assert (bool(spool), spool.memory_bytes) == (True, 3 * SIZE)
    assert drain(spool) == [Numbered(seq, frame(seq)) for seq in range(1, 4)]
    assert (bool(spool), spool.size) == (False, 0)


@pytest.mark.parametrize("count", [4, 5, 15, 16, 17, 45])
def test_frames_come_out_as_they_went_in(spool: Spool, directory: Path, count: int) -> None:
    fill(spool, range(1, count + 1))
    assert spool.size + spool.memory_bytes >= count * SIZE
    assert drain(spool) == [Numbered(seq, frame(seq)) for seq in range(1, count + 1)]
    assert spool.size == 0
    assert files(directory) == []


def test_frames_can_go_in_while_others_come_out(spool: Spool) -> None:
    fill(spool, range(1, 20))
    drained = spool.load()
    fill(spool, range(20, 30))
    assert seqs_of(drained + drain(spool)) == list(range(1, 30))


def test_a_file_is_of_bounded_size_and_for_us_alone(spool: Spool, directory: Path) -> None:
    fill(spool, range(1, 41))
    assert [path.stat().st_size for path in files(directory)] == [12 * (SIZE + OVERHEAD)] * 3 + [
        4 * (SIZE + OVERHEAD)
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(directory)} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_frame_bigger_than_a_file_has_one_of_its_own(spool: Spool, directory: Path) -> None:
    fill(spool, range(1, 5))
    fill(spool, range(5, 6), size=5000)
    fill(spool, range(6, 10))
    assert len(files(directory)) == 3
    assert seqs_of(drain(spool)) == list(range(1, 10))


def test_closing_leaves_nothing_behind(spool: Spool, directory: Path) -> None:
    fill(spool, range(1, 30))
    assert files(directory)
    spool.close()
    assert not directory.exists()
    assert (bool(spool), spool.size) == (False, 0)


def test_a_file_that_is_in_the_way_is_not_written_to(spool: Spool, directory: Path) -> None:
    target = directory.parent / "target"
    directory.mkdir()
    (directory / "00000001").symlink_to(target)
    fill(spool, range(1, 5))
    assert not target.exists()
    fill(spool, range(5, 9))
    assert seqs_of(drain(spool)) == list(range(1, 9))


def test_whole_files_of_old_frames_are_skipped_unread(spool: Spool, directory: Path) -> None:
    fill(spool, range(1, 41))
    files(directory)[0].write_bytes(b"")
    spool.skip(11)
    assert len(files(directory)) == 4
    spool.skip(24)
    assert len(files(directory)) == 2
    assert seqs_of(drain(spool)) == list(range(25, 41))
    spool.skip(1000)


# -- the bound -----------------------------------------------------------------------------------


def test_beyond_the_bound_the_oldest_stream_output_makes_way(spool: Spool) -> None:
    fill(spool, range(1, 49), "stream")
    assert spool.size <= LIMITS.outbox_disk_bytes
    drained = drain(spool)
    assert drained[0] == Numbered(12, b"dropped 12 frames, 600 bytes")
    assert drained[1:] == [Numbered(seq, frame(seq, "stream")) for seq in range(13, 49)]
    assert spool.dropped_frames == 12


def test_replies_stay_where_they_were_between_the_gaps(spool: Spool) -> None:
    for start in range(1, 101, 10):
        fill(spool, range(start, start + 9), "stream")
        fill(spool, range(start + 9, start + 10), "reply")
    drained = drain(spool)
    assert seqs_of(drained) == sorted(set(seqs_of(drained)))
    replies = [numbered for numbered in drained if b"reply" in numbered.frame]
    assert seqs_of(replies) == list(range(10, 101, 10))
    told = sum(int(text.split()[1]) for text in said(drained))
    assert told == spool.dropped_frames == 100 - len(drained) + len(said(drained))


def test_a_long_flood_leaves_neither_many_files_nor_many_notices(
    spool: Spool, directory: Path
) -> None:
    fill(spool, range(1, 5001), "stream")
    assert len(files(directory)) <= 6
    drained = drain(spool)
    assert len(said(drained)) == 1
    assert said(drained)[0].startswith(f"dropped {spool.dropped_frames} frames")


def test_replies_alone_may_exceed_the_bound(spool: Spool) -> None:
    fill(spool, range(1, 201))
    assert spool.size > LIMITS.outbox_disk_bytes
    assert seqs_of(drain(spool)) == list(range(1, 201))
    assert spool.dropped_frames == 0


def test_a_thinned_file_that_cannot_be_rewritten_stays_in_memory(
    spool: Spool, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(spool, range(1, 37), "stream")
    (spare := directory.parent / "spare").mkdir()
    for path in files(directory):
        path.rename(spare / path.name)
        path.mkdir()
    for segment in spool._segments:
        segment.data = (spare / segment.path.name).read_bytes()
    fill(spool, range(37, 49), "stream")
    assert "stays in memory" in caplog.text
    drained = drain(spool)
    assert said(drained) == ["dropped 12 frames, 600 bytes"]
    assert seqs_of(drained) == list(range(12, 49))


# -- a disk that fails ---------------------------------------------------------------------------


def test_a_full_disk_costs_only_the_newest_stream_output(spool: Spool, disk: FillingDisk) -> None:
    fill(spool, range(1, 9), "stream")
    disk.full = True
    fill(spool, range(9, 15), "stream")
    fill(spool, range(15, 17), "reply")
    fill(spool, range(17, 40), "stream")
    disk.full = False
    fill(spool, range(40, 50), "stream")
    drained = drain(spool)
    assert [numbered for numbered in drained if numbered.seq < 9] == [
        Numbered(seq, frame(seq, "stream")) for seq in range(1, 9)
    ]
    assert {15, 16} <= set(seqs_of(drained))
    assert {9, 20}.isdisjoint(seqs_of(drained))
    assert {45, 46, 47, 48, 49} <= set(seqs_of(drained))
    assert seqs_of(drained) == sorted(set(seqs_of(drained)))
    told = [int(text.split()[1]) for text in said(drained)]
    assert sum(told) == spool.dropped_frames == 49 - len(drained) + len(told)


def test_a_full_disk_never_costs_a_reply_nor_a_try_per_frame(
    spool: Spool, disk: FillingDisk
) -> None:
    disk.full = True
    fill(spool, range(1, 401))
    assert disk.failures <= 100
    assert seqs_of(drain(spool)) == list(range(1, 401))


def test_a_full_disk_is_said_once_until_there_is_room_again(
    spool: Spool, disk: FillingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        disk.full = True
        fill(spool, range(1, 20))
        disk.full = False
        fill(spool, range(20, 40))
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 2
    assert "No space left" in warned[0].message


def test_output_that_is_dropped_is_said_once_and_counted_when_all_is_read(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for episode in range(2):
        caplog.clear()
        fill(spool, range(1, 400), "stream")
        (begun,) = caplog.records
        assert begun.levelno == logging.WARNING
        assert "the oldest output is dropped" in begun.message
        before = spool.dropped_frames
        drain(spool)
        assert spool.dropped_frames == before
        ended = caplog.records[-1].message
        assert (
            ended == f"the client reads on: {before // (episode + 1)} frames of output were dropped"
        )
        fill(spool, range(400, 402))
        drain(spool)
        assert len(caplog.records) == 2


def test_little_is_gathered_while_memory_is_tight(
    spool: Spool, disk: FillingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kallichore.spool.LEAST_WRITE_BYTES", 2 * SIZE)
    fill(spool, range(1, 4))
    assert spool.memory_bytes == 3 * SIZE
    spool.append(4, b"x", droppable=False, tight=True)
    assert spool.memory_bytes == 0
    disk.full = True
    fill(spool, range(5, 9))
    for seq in range(9, 12):
        spool.append(seq, b"x" * SIZE, droppable=False, tight=True)
    # A disk that is full is not tried again for every frame.
    assert disk.failures == 1
    assert spool.memory_bytes == 7 * SIZE


def test_nothing_is_left_of_a_write_that_failed(
    spool: Spool, disk: FillingDisk, directory: Path
) -> None:
    disk.full = True
    fill(spool, range(1, 5))
    assert files(directory) == []
    disk.full = False
    fill(spool, range(5, 9))
    sizes = [path.stat().st_size for path in files(directory)]
    disk.full = True
    fill(spool, range(9, 13))
    assert [path.stat().st_size for path in files(directory)] == sizes
    assert seqs_of(drain(spool)) == list(range(1, 13))


def test_a_disk_that_is_really_full_behaves_the_same(tmp_path: Path) -> None:
    with open_small_disk(tmp_path / "disk", 64 * 1024) as small:
        limits = Limits(outbox_segment_bytes=1_000_000)
        spool = Spool(small / "spool", limits, notice)
        for start in range(1, 4001, 10):
            fill(spool, range(start, start + 9), "stream")
            fill(spool, range(start + 9, start + 10), "reply")
        drained = drain(spool)
        spool.close()
        assert files(small) == []
    assert len(drained) < 3900
    assert seqs_of(drained) == sorted(set(seqs_of(drained)))
    replies = [numbered for numbered in drained if b"reply" in numbered.frame]
    assert seqs_of(replies) == list(range(10, 4001, 10))
    assert drained[0] == Numbered(1, frame(1, "stream"))
    told = sum(int(text.split()[1]) for text in said(drained))
    assert told == spool.dropped_frames == 4000 - len(drained) + len(said(drained))


@pytest.mark.parametrize("damage", ["gone", "shorter", "garbage"])
def test_a_file_that_is_not_as_it_was_left_is_told_like_dropped_output(
    spool: Spool, directory: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(spool, range(1, 29))
    first = files(directory)[0]
    match damage:
        case "gone":
            first.unlink()
        case "shorter":
            os.truncate(first, 100)
        case _:
            first.write_bytes(b"\x00" * first.stat().st_size)
    drained = drain(spool)
    assert drained[0] == Numbered(12, b"dropped 12 frames, 756 bytes")
    assert seqs_of(drained[1:]) == list(range(13, 29))
    assert "cannot be read" in caplog.text


def test_a_file_that_vanishes_does_not_stop_those_that_follow(
    spool: Spool, directory: Path
) -> None:
    fill(spool, range(1, 5), "stream")
    files(directory)[0].unlink()
    fill(spool, range(5, 21), "stream")
    drained = drain(spool)
    assert said(drained) == ["dropped 4 frames, 252 bytes", "dropped 4 frames, 200 bytes"]
    assert seqs_of(drained)[-12:] == list(range(9, 21))
