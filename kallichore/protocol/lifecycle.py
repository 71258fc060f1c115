"""The states of a session and everything that moves it from one to another (CONTRACT 3.1).

`TRANSITIONS` is the whole automaton: what is not in it does not happen. A cause that a state does
not list leaves the state as it is. The documentation's diagram is drawn from this table.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from kallichore.models import Status

__all__ = ["MAY_BE_DELETED", "MAY_BE_STARTED", "RUNNING", "TRANSITIONS", "Cause", "after"]


class Cause(Enum):
    """What can move a session."""

    START_ACCEPTED = "start or restart accepted"
    ANSWERED = "kernel_info answered, no iopub status heard"
    ANSWERED_IDLE = "kernel_info answered, iopub status heard"
    ANSWERED_BUSY = "kernel_info answered, at work for somebody else"
    BUSY = "iopub status busy"
    IDLE = "iopub status idle"
    HEARTBEAT_LOST = "heartbeat unanswered"
    BACK_BUSY = "heartbeat answered, last status was busy"
    BACK_IDLE = "heartbeat answered, last status was idle"
    GONE = "process gone, or the start failed"


_ALIVE: Final = {
    Cause.BUSY: Status.BUSY,
    Cause.IDLE: Status.IDLE,
    Cause.HEARTBEAT_LOST: Status.OFFLINE,
    Cause.GONE: Status.EXITED,
}
_ADOPTABLE: Final = {
    Cause.START_ACCEPTED: Status.STARTING,
    Cause.ANSWERED: Status.READY,
    Cause.ANSWERED_IDLE: Status.IDLE,
    Cause.ANSWERED_BUSY: Status.BUSY,
    Cause.GONE: Status.EXITED,
}

TRANSITIONS: Final[dict[Status, dict[Cause, Status]]] = {
    Status.UNINITIALIZED: _ADOPTABLE,
    Status.STARTING: {
        Cause.ANSWERED: Status.READY,
        Cause.ANSWERED_IDLE: Status.IDLE,
        Cause.GONE: Status.EXITED,
    },
    Status.READY: _ALIVE,
    Status.IDLE: _ALIVE,
    Status.BUSY: _ALIVE,
    Status.OFFLINE: {
        Cause.BACK_BUSY: Status.BUSY,
        Cause.BACK_IDLE: Status.IDLE,
        Cause.GONE: Status.EXITED,
    },
    Status.EXITED: _ADOPTABLE,
}

MAY_BE_STARTED: Final = frozenset({Status.UNINITIALIZED, Status.EXITED})
MAY_BE_DELETED: Final = MAY_BE_STARTED
RUNNING: Final = frozenset(Status) - MAY_BE_STARTED


def after(status: Status, cause: Cause) -> Status:
    """Give the state that a cause leads to."""
    return TRANSITIONS[status].get(cause, status)
