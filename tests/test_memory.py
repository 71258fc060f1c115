"""Our own memory goes back to the system once it has grown and is free again."""

from __future__ import annotations

import gc
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import trio

from kallichore import _platform, memory
from kallichore.config import Deadlines, Limits

if TYPE_CHECKING:
    import pytest

MIB = 1024 * 1024


async def test_memory_is_returned_when_it_has_grown_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks_left = 5
    returned = trio.Event()

    def look(_: int) -> SimpleNamespace:
        nonlocal looks_left
        looks_left -= 1
        return SimpleNamespace(resident_bytes=(65 if looks_left > 0 else 300) * MIB)

    def give_back() -> None:
        assert looks_left <= 0
        trio.from_thread.run_sync(returned.set)

    monkeypatch.setattr(_platform, "process_facts", look)
    monkeypatch.setattr(_platform, "return_free_memory", give_back)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.give_back, Limits(), Deadlines(memory_pace_seconds=0.001))
            await returned.wait()
            nursery.cancel_scope.cancel(reason="seen enough")


def test_the_system_takes_memory_back() -> None:
    pieces = [bytearray(100_000) for _ in range(1000)]
    kept = pieces[::100]
    del pieces
    _platform.return_free_memory()
    assert all(len(piece) == 100_000 for piece in kept)


REUSE = """
import resource
from kallichore import _platform
_platform.keep_free_memory(32 * 2**20)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block, other = b"x" * 8 * 2**20, b"x" * 24 * 2**20
del block, other
before = faults()
for _ in range(20):
    block, other = b"x" * 8 * 2**20, b"x" * 24 * 2**20
    del block, other
print(faults() - before)
"""


def test_big_blocks_are_used_again_without_asking_the_system() -> None:
    """All of them anew would be 160 000 pages."""
    done = subprocess.run([sys.executable, "-c", REUSE], capture_output=True, check=True)
    assert int(done.stdout) < 1000


def test_what_is_loaded_is_spared_by_the_collector() -> None:
    gc.unfreeze()
    memory.keep_what_is_loaded()
    try:
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
