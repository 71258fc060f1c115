"""Messages the server itself writes."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from kallichore.protocol.compose import in_the_kernels_place, reply, request
from kallichore.protocol.envelope import encode
from kallichore.protocol.events import Answer
from kallichore.protocol.message import Channel, KernelMessage
from tests.protocol.samples import asked, pairs, strict, text_of

STAMPS: Any = {"msg_id": "s-1", "session": "s", "username": "u", "date": "2025-11-22T19:33:00Z"}


def test_a_request_is_a_whole_message() -> None:
    message = request(Channel.CONTROL, "interrupt_request", {}, **STAMPS)
    assert (message.channel, message.msg_id) == (Channel.CONTROL, "s-1")
    assert pairs(message.header) == [
        ("msg_id", "s-1"),
        ("msg_type", "interrupt_request"),
        ("session", "s"),
        ("username", "u"),
        ("date", "2025-11-22T19:33:00Z"),
        ("version", "5.3"),
    ]
    assert (message.parent_header, message.metadata, message.content) == (b"{}", b"{}", b"{}")
    assert message.buffers == []


def test_a_request_may_carry_metadata() -> None:
    message = request(Channel.SHELL, "execute_request", {"code": "1"}, metadata={"a": 1}, **STAMPS)
    assert (message.metadata, message.content) == (b'{"a":1}', b'{"code":"1"}')


def answers(answer: Answer) -> list[KernelMessage]:
    return in_the_kernels_place(answer, partial(reply, **STAMPS))


@pytest.mark.parametrize("channel", [Channel.SHELL, Channel.CONTROL])
def test_an_aborted_request_is_answered_as_a_kernel_would(channel: Channel) -> None:
    message = asked(channel=channel)
    frames = [strict(text_of(encode(one))) for one in answers(Answer(message, "aborted", "why"))]
    assert [(frame["channel"], frame["header"]["msg_type"]) for frame in frames] == [
        ("iopub", "status"),
        (channel.value, "execute_reply"),
        ("iopub", "status"),
    ]
    assert [frame["content"] for frame in frames] == [
        {"execution_state": "busy"},
        {"status": "aborted", "execution_count": 0},
        {"execution_state": "idle"},
    ]
    assert {frame["parent_header"]["msg_id"] for frame in frames} == {"c-1"}


def test_a_refused_request_is_answered_with_an_error_that_says_why() -> None:
    (error,) = answers(Answer(asked(), "error", "too many", busy=False, idle=False))
    assert strict(error.content) == {
        "status": "error",
        "execution_count": 0,
        "ename": "RequestRefused",
        "evalue": "too many",
        "traceback": ["too many"],
    }


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("replied", [False, True])
@pytest.mark.parametrize("idle", [False, True])
def test_only_what_the_kernel_has_not_said_is_said(busy: bool, replied: bool, idle: bool) -> None:  # noqa: FBT001
    said = answers(Answer(asked(), "aborted", "why", busy, replied, idle))
    expected = ["status"] * busy + ["execute_reply"] * replied + ["status"] * idle
    assert [message.msg_type for message in said] == expected
