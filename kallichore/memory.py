"""Our own memory: what a flood has left free in the allocator goes back to the system in the end.

A queue of hundreds of megabytes that has been read is free to the allocator, but the C library
keeps it, in pieces between what is still in use, until it is told to return it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from kallichore import _platform

if TYPE_CHECKING:
    from kallichore.config import Deadlines, Limits

__all__ = ["give_back"]


async def give_back(limits: Limits, deadlines: Deadlines) -> None:
    """Look at our resident memory at a steady pace, and have it returned when it has grown.

    That takes about 0.1 ms a megabyte, so it is done in another thread. Until cancelled.
    """
    least = _resident_bytes()
    while True:
        await trio.sleep(deadlines.memory_pace_seconds)
        if _resident_bytes() > least + limits.spare_memory_bytes:
            await trio.to_thread.run_sync(_platform.return_free_memory)
        least = min(least, _resident_bytes())


def _resident_bytes() -> int:
    facts = _platform.process_facts(os.getpid())
    return 0 if facts is None else facts.resident_bytes
