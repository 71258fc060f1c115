"""Our own memory goes back to the system once it has grown and is free again."""

from __future__ import annotations

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
