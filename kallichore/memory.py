"""Our own memory: modules are no garbage, and what a flood has left goes back to the system.

A queue of hundreds of megabytes that has been read is free to the allocator, but the C library
keeps it, in pieces between what is still in use, until it is told to return it.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import trio

from kallichore import _platform

if TYPE_CHECKING:
    from kallichore.config import Deadlines, Limits

__all__ = ["give_back", "keep_what_is_loaded"]


def keep_what_is_loaded() -> None:
    """Spare the garbage collector what is there now: modules stay, and there are many of them.

    Looking at all of them takes 10 ms and more, in which no message moves.
    """
    gc.freeze()


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
