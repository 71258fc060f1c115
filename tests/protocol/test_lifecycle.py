"""The states of a session: every row of the table, and nothing beside it (CONTRACT 3.1)."""

from __future__ import annotations

import pytest

from kallichore.models import Status
from kallichore.protocol.lifecycle import (
    MAY_BE_DELETED,
    MAY_BE_STARTED,
    RUNNING,
    TRANSITIONS,
    Cause,
    after,
)

NO_KERNEL = """
START_ACCEPTED starting
ANSWERED ready
ANSWERED_IDLE idle
ANSWERED_BUSY busy
GONE exited
"""
ALIVE = """
BUSY busy
IDLE idle
HEARTBEAT_LOST offline
GONE exited
"""
STARTING = """
ANSWERED ready
ANSWERED_IDLE idle
GONE exited
"""
OFFLINE = """
BACK_BUSY busy
BACK_IDLE idle
GONE exited
"""
ROWS = {
    Status.UNINITIALIZED: NO_KERNEL,
    Status.STARTING: STARTING,
    Status.READY: ALIVE,
    Status.IDLE: ALIVE,
    Status.BUSY: ALIVE,
    Status.OFFLINE: OFFLINE,
    Status.EXITED: NO_KERNEL,
}


def rows_of(status: Status) -> dict[Cause, Status]:
    rows = (line.split() for line in ROWS[status].strip().splitlines())
    return {Cause[cause]: Status(to) for cause, to in rows}


@pytest.mark.parametrize("status", Status)
def test_the_table_is_the_contracts(status: Status) -> None:
    assert TRANSITIONS[status] == rows_of(status)


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("status", Status)
def test_a_cause_that_a_state_does_not_list_leaves_it_as_it_is(
    status: Status, cause: Cause
) -> None:
    assert after(status, cause) is rows_of(status).get(cause, status)


def test_every_state_can_be_reached_and_every_running_one_can_end() -> None:
    reached, new = set[Status](), {Status.UNINITIALIZED}
    while new:
        reached |= new
        new = {to for status in new for to in TRANSITIONS[status].values()} - reached
    assert reached == set(Status)
    assert all(after(status, Cause.GONE) is Status.EXITED for status in RUNNING)


def test_start_and_delete_are_for_sessions_without_a_kernel() -> None:
    assert {Status.UNINITIALIZED, Status.EXITED} == MAY_BE_STARTED == MAY_BE_DELETED
    assert set(Status) - MAY_BE_STARTED == RUNNING
