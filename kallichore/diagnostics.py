"""Seeing inside: the tree of tasks and the state of every session, and how late the loop runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kallichore.session import Session
    from kallichore.supervisor import Supervisor
    from kallichore.tally import Tally

__all__ = ["task_tree", "watch_loop", "write_diagnostics"]

log = logging.getLogger(__name__)


async def watch_loop(tally: Tally, pace_seconds: float) -> None:
    """Note, at a steady pace, how late the loop wakes a task."""
    while True:
        due = trio.current_time() + pace_seconds
        await trio.sleep_until(due)
        tally.loop_lag_seconds = trio.current_time() - due
        tally.worst_loop_lag_seconds = max(tally.worst_loop_lag_seconds, tally.loop_lag_seconds)


def write_diagnostics(supervisor: Supervisor) -> None:
    """Write what goes on into the log, at a level that is seen under all but ``error``.

    Nothing in it is secret: no environment, no key, no token, no content of a message.
    """
    status = supervisor.status()
    log.warning(
        "diagnostics: %d sessions, %d active, up %d s, loop lag %.1f ms (worst %.1f ms)",
        status.sessions,
        status.active,
        status.uptime_seconds,
        supervisor.tally.loop_lag_seconds * 1000,
        supervisor.tally.worst_loop_lag_seconds * 1000,
    )
    for session in supervisor.sessions.values():
        log.warning("%s", _state_of(session), extra={"session_id": session.id})
    root = trio.lowlevel.current_root_task()
    if root is not None:
        for line in task_tree(root):
            log.warning("%s", line)


def _state_of(session: Session) -> str:
    talk = session.talk
    outbox, queue, counters = talk.outbox, talk.state.queue, talk.counters
    parts = {
        "status": session.status,
        "pid": session.control.process_id,
        "client": session.connected,
        "active": queue.active is not None,
        "held": len(queue.held),
        "outbox_frames": len(outbox),
        "spooled_bytes": outbox.spooled_bytes,
        "dropped_frames": outbox.dropped_frames,
        "from_kernel": counters.messages_from_kernel,
        "to_kernel": counters.messages_to_kernel,
        "bad_signatures": counters.bad_signatures,
        "malformed": counters.malformed,
    }
    return " ".join(f"{name}={value}" for name, value in parts.items())


def task_tree(task: trio.lowlevel.Task, depth: int = 0) -> Iterator[str]:
    """Give one line a task, children indented below their parents."""
    yield f"{'  ' * depth}{task.name}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from task_tree(child, depth + 1)
