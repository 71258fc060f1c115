"""An idle may overtake its reply: they travel on two sockets. The queue waits for both."""

from __future__ import annotations

import msgspec

from kallichore.config import Limits
from kallichore.protocol.compose import request
from kallichore.protocol.events import (
    Answer,
    ClientRequested,
    Drain,
    Effect,
    ExpectReply,
    Finish,
    InfoRequested,
    KernelAnswered,
    ReplyOverdue,
    Send,
    Settled,
    StartAccepted,
)
from kallichore.protocol.execution import Origin
from kallichore.protocol.message import Channel, ClientMessage, KernelMessage
from kallichore.protocol.session_state import SessionState


def from_kernel(channel: Channel, kind: str, parent: str, content: object) -> KernelMessage:
    header = msgspec.json.encode({"msg_id": "k", "msg_type": kind})
    origin = msgspec.json.encode({"msg_id": parent, "msg_type": "execute_request"})
    body = msgspec.json.encode(content)
    detail = content.get("execution_state", "") if isinstance(content, dict) else ""
    return KernelMessage(
        channel, "k", kind, parent, "execute_request", header, origin, b"{}", body, [], detail
    )


def execute(msg_id: str) -> ClientMessage:
    return request(
        Channel.SHELL,
        "execute_request",
        {"code": "1", "stop_on_error": True},
        msg_id=msg_id,
        session="s",
        username="u",
        date="d",
    )


def idle(parent: str) -> KernelMessage:
    return from_kernel(Channel.IOPUB, "status", parent, {"execution_state": "idle"})


def reply(parent: str, status: str) -> KernelMessage:
    return from_kernel(Channel.SHELL, "execute_reply", parent, {"status": status})


def overtaken() -> SessionState:
    """A state in which request ``a`` is idle without a reply, and ``b`` is held behind it."""
    state = SessionState(Limits())
    for event in (StartAccepted(), InfoRequested("i"), KernelAnswered()):
        state.receive(event)
    for msg_id in ("a", "b"):
        state.receive(ClientRequested(execute(msg_id), Origin(0)))
    (drain,) = state.receive(idle("a"))
    assert isinstance(drain, Drain)
    settled = state.receive(Settled(drain.message))
    assert ExpectReply in map(type, settled)
    assert Send not in map(type, settled)
    return state


def settle(state: SessionState, message: KernelMessage) -> list[Effect]:
    (drain,) = state.receive(message)
    assert isinstance(drain, Drain)
    return state.receive(Settled(message))


def test_a_good_reply_lets_the_next_one_go() -> None:
    effects = settle(overtaken(), reply("a", "ok"))
    assert [one.message.msg_id for one in effects if isinstance(one, Send)] == ["b"]
    assert Finish in map(type, effects)


def test_a_reply_of_an_error_aborts_what_is_held() -> None:
    state = overtaken()
    effects = settle(state, reply("a", "error"))
    assert [one.message.msg_id for one in effects if isinstance(one, Answer)] == ["b"]
    assert Send not in map(type, effects)
    assert state.queue.active is None


def test_who_asked_after_the_idle_is_not_aborted() -> None:
    state = overtaken()
    state.receive(ClientRequested(execute("c"), Origin(0)))
    effects = settle(state, reply("a", "error"))
    assert [one.message.msg_id for one in effects if isinstance(one, Answer)] == ["b"]
    assert [one.message.msg_id for one in effects if isinstance(one, Send)] == ["c"]


def test_a_reply_that_never_comes_is_not_waited_for_for_ever() -> None:
    state = overtaken()
    assert state.queue.active is not None
    active = state.queue.active
    effects = state.receive(ReplyOverdue(active))
    assert [one.message.msg_id for one in effects if isinstance(one, Send)] == ["b"]
    assert state.receive(ReplyOverdue(active)) == []
