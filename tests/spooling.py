"""What tests of the spool and of the outbox share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kallichore import outbox as outbox_module
from kallichore import spool as spool_module

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kallichore.spool import Dropped, Numbered

SIZE = 50
"""Bytes of a frame."""
OVERHEAD = outbox_module._OVERHEAD


@pytest.fixture(autouse=True)
def small_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fourth frame of a test brings a write."""
    monkeypatch.setattr(spool_module, "WRITE_BYTES", 4 * SIZE)


def notice(dropped: Dropped) -> bytes:
    return b"dropped %d frames, %d bytes" % dropped


def frame(seq: int, kind: str = "reply") -> bytes:
    return (b"%08d %b" % (seq, kind.encode())).ljust(SIZE, b".")


def seqs_of(frames: Iterable[Numbered]) -> list[int]:
    return [numbered.seq for numbered in frames]
