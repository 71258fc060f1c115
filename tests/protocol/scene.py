"""A session's core on a stage: what is said to it, and what it wants done, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kallichore.config import Limits
from kallichore.protocol.envelope import decode_execute
from kallichore.protocol.events import (
    Announce,
    Answer,
    ChangeStatus,
    ClientRequested,
    Deliver,
    Drain,
    Effect,
    Event,
    ExpectReply,
    Finish,
    HearStatus,
    InfoRequested,
    KernelAnswered,
    LocateKernel,
    Refuse,
    RunEnded,
    Send,
    Settled,
    StartAccepted,
    TakeInfo,
)
from kallichore.protocol.execution import Execution, Origin
from kallichore.protocol.message import Channel, ClientMessage, KernelMessage
from kallichore.protocol.session_state import SessionState
from tests.protocol.samples import asked, parent_of, parsed

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OWN", "Scene", "in_words", "reply", "said", "status"]

OWN = "own-1"
"""The id of the server's own kernel_info request."""


def said(
    channel: Channel,
    msg_type: str,
    parent: str | None = None,
    content: bytes = b"{}",
    parent_type: str = "execute_request",
) -> KernelMessage:
    """A message of the kernel."""
    header = b"{}" if parent is None else parent_of(parent, parent_type)
    return parsed(msg_type, content, channel=channel, parent=header)


def status(
    state: str, parent: str | None = None, parent_type: str = "execute_request"
) -> KernelMessage:
    content = b'{"execution_state": "%b"}' % state.encode()
    return said(Channel.IOPUB, "status", parent, content, parent_type)


def reply(parent: str, state: str = "ok", channel: Channel = Channel.SHELL) -> KernelMessage:
    return said(channel, "execute_reply", parent, b'{"status": "%b"}' % state.encode())


def in_words(effect: Effect) -> str:  # noqa: C901, PLR0911, PLR0912 (one an effect)
    """Say what is to be done."""
    match effect:
        case Deliver(message):
            detail = f" {message.detail}" if message.detail else ""
            return f"deliver {message.msg_type}{detail} {message.parent_id or '-'}"
        case Announce("executionQueued", msg_id):
            return f"queued {msg_id}"
        case Announce(key, value):
            return f"{key} {value}"
        case ChangeStatus(to, reason):
            return f"-> {to} ({reason})"
        case Send(message):
            return f"send {message.msg_id}"
        case Answer(message, outcome, _, busy, replied, idle):
            parts = ["busy"] * busy + ["reply"] * replied + ["idle"] * idle
            return f"answer {message.msg_id} {outcome}: {' '.join(parts)}"
        case Finish(execution):
            return f"finish {execution.msg_id}"
        case ExpectReply(execution):
            return f"expect reply {execution.msg_id}"
        case Refuse(why):
            return f"refuse: {why}"
        case LocateKernel():
            return "locate"
        case TakeInfo(content):
            return f"info {content.decode()}"
        case HearStatus():
            return "status heard"
        case Drain(channel):
            return f"drain {channel}"


class Scene:
    """Carries out what the core asks for at once: draining; the rest is only written down."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.state = SessionState(self.limits)
        self.waiting: dict[Channel, list[KernelMessage]] = {channel: [] for channel in Channel}
        """What has arrived on a socket and has not been handled."""
        self._draining = False

    def effects(self, *events: Event) -> list[Effect]:
        """Everything that comes of events, drained messages included, in order."""
        done: list[Effect] = []
        for event in events:
            for effect in self.state.receive(event):
                done.append(effect)
                if isinstance(effect, Drain):
                    assert not self._draining  # or it could go on without end
                    self._draining = True
                    waiting, self.waiting[effect.channel] = self.waiting[effect.channel], []
                    done += self.effects(*waiting)
                    self._draining = False
                    done += self.effects(Settled(effect.message))
        return done

    def say(self, *events: Event) -> list[str]:
        """The same in words, without the draining itself."""
        return [in_words(one) for one in self.effects(*events) if not isinstance(one, Drain)]

    def ask(
        self,
        msg_id: str = "c-1",
        msg_type: str = "execute_request",
        *,
        channel: Channel = Channel.SHELL,
        **content: object,
    ) -> list[str]:
        """A client's request."""
        return self.say(self.request(msg_id, msg_type, channel=channel, **content))

    def request(
        self,
        msg_id: str = "c-1",
        msg_type: str = "execute_request",
        *,
        channel: Channel = Channel.SHELL,
        **content: object,
    ) -> ClientRequested:
        message = asked(msg_id, msg_type, channel=channel, **content)
        return ClientRequested(message, Origin(0))

    def injected(self, msg_id: str = "i-1") -> ClientRequested:
        """A request of ``/execute``."""
        message = asked(msg_id, code="1")
        execution = self.execution(message, injected=True)
        return ClientRequested(message, execution.origin, execution)

    def execution(self, message: ClientMessage, *, injected: bool = False) -> Execution:
        request = decode_execute(message.content)
        return Execution(message, request, Origin(0, injected), history_bytes=64, output_bytes=1000)

    def started(self, *, heard: bool = True) -> Scene:
        """Bring the session to life; without a status ``heard`` it is ready, else idle."""
        self.say(StartAccepted(), InfoRequested(OWN))
        if heard:
            self.say(status("busy", OWN), status("idle", OWN))
        self.say(KernelAnswered())
        return self

    def ended(self, code: int = 0, reason: str = "It is over") -> list[str]:
        return self.say(RunEnded(code, reason))

    def ids(self, executions: Iterable[Execution]) -> list[str]:
        return [execution.msg_id for execution in executions]

    @property
    def active(self) -> str | None:
        active = self.state.queue.active
        return None if active is None else active.msg_id

    @property
    def held(self) -> list[str]:
        return self.ids(self.state.queue.held)
