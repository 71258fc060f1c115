"""Which execution is active, and which wait behind it."""

from __future__ import annotations

import pytest

from kallichore.protocol.execution import Execution, Origin
from kallichore.protocol.execution_queue import ExecutionQueue, Place
from kallichore.protocol.message import ExecuteContent
from tests.protocol.samples import asked


def execution(msg_id: str = "c-1") -> Execution:
    request = ExecuteContent("1")
    return Execution(asked(msg_id), request, Origin(0), history_bytes=64, output_bytes=64)


@pytest.fixture
def queue() -> ExecutionQueue:
    return ExecutionQueue(2)


def test_the_first_is_active_and_the_others_are_held_up_to_the_limit(queue: ExecutionQueue) -> None:
    offered = [execution(str(number)) for number in range(4)]
    places = [queue.offer(one) for one in offered]
    assert places == [Place.ACTIVE, Place.HELD, Place.HELD, Place.REFUSED]
    assert queue.active is offered[0]
    assert list(queue.held) == offered[1:3]


def test_the_held_ones_follow_in_order(queue: ExecutionQueue) -> None:
    offered = [execution(), execution(), execution()]
    for one in offered:
        queue.offer(one)
    assert [queue.advance(), queue.advance(), queue.advance()] == [*offered[1:], None]
    assert queue.active is None


def test_a_held_one_can_be_withdrawn_once(queue: ExecutionQueue) -> None:
    first, second, third = execution(), execution(), execution()
    for one in (first, second, third):
        queue.offer(one)
    assert not queue.withdraw(first)
    assert queue.withdraw(second)
    assert not queue.withdraw(second)
    assert queue.advance() is third


def test_clearing_leaves_the_active_one(queue: ExecutionQueue) -> None:
    offered = [execution(), execution(), execution()]
    for one in offered:
        queue.offer(one)
    assert queue.clear_held() == offered[1:]
    assert queue.clear_held() == []
    assert queue.active is offered[0]
