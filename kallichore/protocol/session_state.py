"""What a session knows and decides. Events in, effects out; no I/O, no clock, no randomness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from kallichore.models import Status
from kallichore.protocol import lifecycle
from kallichore.protocol.early_requests import EarlyRequests
from kallichore.protocol.envelope import decode_execute
from kallichore.protocol.events import (
    AdoptionFailed,
    Announce,
    Answer,
    ChangeStatus,
    ClientRequested,
    Deliver,
    Drain,
    Effect,
    Event,
    ExecutionWithdrawn,
    ExpectReply,
    Finish,
    HearStatus,
    HeartbeatBack,
    HeartbeatLost,
    IdleOverdue,
    InfoRequested,
    KernelAnswered,
    LocateKernel,
    QueueCleared,
    Refuse,
    ReplyOverdue,
    RunEnded,
    Send,
    SendFailed,
    Settled,
    StartAccepted,
    TakeInfo,
)
from kallichore.protocol.execution import Execution
from kallichore.protocol.execution_queue import ExecutionQueue, Place
from kallichore.protocol.lax import renamed_stream
from kallichore.protocol.lifecycle import Cause
from kallichore.protocol.message import Channel, KernelMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from kallichore.config import Limits

__all__ = ["SessionState"]

Effects = list[Effect]
IOPUB: Final = Channel.IOPUB
_OPEN_EXECUTIONS: Final = 16
"""Executions whose idle came without a reply that are still watched for one."""
_STREAMS: Final = frozenset({"stdout", "stderr"})


class SessionState:
    """The decisions of one session, over all its runs."""

    def __init__(self, limits: Limits) -> None:
        """Begin uninitialized."""
        self.status = Status.UNINITIALIZED
        self.queue = ExecutionQueue(limits.held_executions)
        self._limits = limits
        self._early = EarlyRequests(limits)
        self._open: dict[str, Execution] = {}
        self._forget_run()
        self._handlers: dict[type, object] = {
            KernelMessage: self._kernel_message,
            ClientRequested: self._client_requested,
            SendFailed: self._send_failed,
            Settled: self._settled,
            InfoRequested: self._info_requested,
            KernelAnswered: self._kernel_answered,
            StartAccepted: self._start_accepted,
            AdoptionFailed: self._adoption_failed,
            ExecutionWithdrawn: self._execution_withdrawn,
            ReplyOverdue: lambda event: self._go_on_after(event.execution),
            IdleOverdue: self._idle_overdue,
            QueueCleared: self._queue_cleared,
            HeartbeatLost: lambda _: self._move(Cause.HEARTBEAT_LOST, "lost heartbeat"),
            HeartbeatBack: self._heartbeat_back,
            RunEnded: self._run_ended,
        }
        self._iopub: dict[str, Callable[[KernelMessage], Effects]] = {
            "status": self._iopub_status,
            "stream": self._iopub_stream,
            "iopub_welcome": lambda _: [],  # JEP 65: it tells us that our subscription is known
        }

    def _forget_run(self) -> None:
        self._own: set[str] = set()  # ids of our own kernel_info requests to this run
        self._question: str | None = None  # the one of them that asks whether an idle is lost
        self._doubted: Execution | None = None  # what was active when it went out
        self._settling = False  # between InfoRequested and KernelAnswered
        self._heard: str | None = None  # the last execution state, our own traffic aside
        self._heard_any = False
        self._in_hand: KernelMessage | None = None
        self._draining = False

    def receive(self, event: Event) -> Effects:
        """Take an event; give what is to be done, in order."""
        return self._handlers[type(event)](event)  # type: ignore[operator, no-any-return]

    # -- lifecycle ------------------------------------------------------------------------------

    def _move(self, cause: Cause, reason: str | None) -> Effects:
        status = lifecycle.after(self.status, cause)
        if status is self.status:
            return []
        self.status = status
        return [ChangeStatus(status, reason)]

    def _start_accepted(self, _event: StartAccepted) -> Effects:
        self._forget_run()
        return self._move(Cause.START_ACCEPTED, "start API called")

    def _info_requested(self, event: InfoRequested) -> Effects:
        self._forget_run()  # a run asks once, first of all; an earlier try may have been heard
        self._settling = True
        self._own.add(event.msg_id)
        return []

    def _adoption_failed(self, _event: AdoptionFailed) -> Effects:
        self._forget_run()
        return []

    def _kernel_answered(self, _event: KernelAnswered) -> Effects:
        self._settling = False
        if self._heard == "busy" and self.status is not Status.STARTING:
            effects = self._move(Cause.ANSWERED_BUSY, None)
        elif self._heard_any:
            effects = self._move(Cause.ANSWERED_IDLE, "kernel_info_request")
        else:
            effects = self._move(Cause.ANSWERED, "kernel ready")
        for request in self._early.take():
            effects += self._to_kernel(request)
        # The client hears who is held before the kernel gets anything: a send may fail.
        return sorted(effects, key=lambda effect: type(effect) is Send)

    def _run_ended(self, event: RunEnded) -> Effects:
        effects: Effects = []
        held = self.queue.clear_held()
        self.queue.advance()
        for execution in [*self._open.values(), *held]:
            effects += self._answer(execution, "aborted", "the kernel is gone")
        for request in self._early.take():
            effects += self._refuse_gone(request)
        self._forget_run()
        changed = self._move(Cause.GONE, event.reason)
        return [*effects, *changed, Announce("exited", event.exit_code)] if changed else effects

    def _heartbeat_back(self, _event: HeartbeatBack) -> Effects:
        cause = Cause.BACK_BUSY if self._heard == "busy" else Cause.BACK_IDLE
        return self._move(cause, "heartbeat detected after offline")

    # -- from the kernel ------------------------------------------------------------------------

    def _kernel_message(self, message: KernelMessage) -> Effects:
        if message.parent_id in self._own:
            return self._own_traffic(message)
        if message.channel is not IOPUB:
            if message.msg_type == "execute_reply" and message.parent_id in self._open:
                return self._reply_arrived(message)
            return [Deliver(message)]
        if message.parent_id in self._open:
            self._open[message.parent_id].observe(message)
        handler = self._iopub.get(message.msg_type)
        return [Deliver(message)] if handler is None else handler(message)

    def _own_traffic(self, message: KernelMessage) -> Effects:
        """Hide the answers to our own kernel_info requests; learn from them."""
        if message.msg_type == "kernel_info_reply":
            return [TakeInfo(message.content)] if self._settling else []
        if message.channel is IOPUB and message.msg_type == "status":
            self._heard_any = True
            if self._settling:
                return [HearStatus()]
            if message.detail == "idle" and message.parent_id == self._question:
                return self._question_answered()
            if message.detail == "idle" and self.status is Status.READY and self._heard is None:
                return self._move(Cause.IDLE, message.parent_type)
        return []

    @property
    def idle_is_due(self) -> bool:
        """Whether an idle is awaited, and nothing else: it might be lost."""
        active = self.queue.active
        return self.status is Status.BUSY if active is None else active.reply is not None

    def _idle_overdue(self, event: IdleOverdue) -> Effects:
        if not self.idle_is_due:
            return []
        self._question, self._doubted = event.question.msg_id, self.queue.active
        self._own.add(event.question.msg_id)
        return [Send(event.question)]

    def _question_answered(self) -> Effects:
        """The kernel is idle after the question, hence after all that it got before."""
        execution, self._question, self._doubted = self._doubted, None, None
        if self.queue.active is not execution:
            return []  # its idle came after all
        self._heard = "idle"
        effects = self._move(Cause.IDLE, "kernel_info_request")
        if execution is not None:
            effects += [*self._answer(execution, "ok", "its idle is lost"), LocateKernel()]
            effects += self._send_next()
        return effects

    def _iopub_stream(self, message: KernelMessage) -> Effects:
        if message.detail in _STREAMS:
            return [Deliver(message)]
        content = renamed_stream(message.content)
        return [Deliver(msgspec.structs.replace(message, content=content))]

    def _iopub_status(self, message: KernelMessage) -> Effects:
        state = message.detail
        if state not in {"busy", "idle"}:
            return [Deliver(message)] if state == "starting" else []
        execution = self._open.get(message.parent_id)
        if execution is None or execution.idle:
            return self._status_seen(state, message)
        if state == "busy":
            execution.busy = True
            return self._status_seen(state, message)
        effects: Effects = []
        if self._in_hand is not None and self._in_hand.parent_id == execution.msg_id:
            effects = self._reply_seen(self._in_hand)
        elif execution.reply is None and not self._draining:
            self._draining = True
            return [Drain(execution.message.channel, message)]
        return effects + self._idle_seen(execution, message)

    def _status_seen(self, state: str, message: KernelMessage) -> Effects:
        self._heard, self._heard_any = state, True
        if self._settling:
            return [Deliver(message), HearStatus()]
        cause = Cause.BUSY if state == "busy" else Cause.IDLE
        return [*self._move(cause, message.parent_type), Deliver(message)]

    def _idle_seen(self, execution: Execution, message: KernelMessage) -> Effects:
        execution.idle = True
        effects = self._status_seen("idle", message)
        effects.append(LocateKernel())
        if execution.reply is not None:
            return effects + self._close(execution) + self._go_on_after(execution)
        # An error in its reply is the end of what is held, so that is waited for.
        return [*effects, *self._bound_open(), ExpectReply(execution)]

    def _go_on_after(self, execution: Execution) -> Effects:
        return self._send_next() if self.queue.active is execution else []

    def _reply_arrived(self, message: KernelMessage) -> Effects:
        """Let what the kernel published before its reply reach the client before it."""
        if self._draining:
            return self._reply_seen(message)
        self._draining, self._in_hand = True, message
        return [Drain(IOPUB, message)]

    def _settled(self, event: Settled) -> Effects:
        self._draining = False
        message = event.message
        if message is self._in_hand:
            return self._reply_seen(message)
        execution = self._open.get(message.parent_id)
        if message.channel is IOPUB and execution is not None:
            return self._idle_seen(execution, message)
        return self._status_seen("idle", message) if message.channel is IOPUB else []

    def _reply_seen(self, message: KernelMessage) -> Effects:
        if message is self._in_hand:
            self._in_hand = None
        effects: Effects = [Deliver(message)]
        execution = self._open.get(message.parent_id)
        if execution is None:
            return effects
        execution.replied(message.content)
        if execution.finished:
            effects += self._close(execution)
        failed = execution.reply is not None and execution.reply.status == "error"
        if failed and execution.request.stop_on_error and not execution.withdrawn:
            effects += self._abort_held("an earlier execution failed", active_failed=True)
        return effects + self._go_on_after(execution) if execution.idle else effects

    def _close(self, execution: Execution) -> Effects:
        self._open.pop(execution.msg_id, None)
        return [Finish(execution)]

    def _bound_open(self) -> Effects:
        if len(self._open) <= _OPEN_EXECUTIONS:
            return []
        oldest = next(iter(self._open.values()))
        return self._answer(oldest, "error", "the kernel has not replied")

    def _send_next(self) -> Effects:
        following = self.queue.advance()
        return [] if following is None else self._run(following)

    def _run(self, execution: Execution) -> Effects:
        execution.ran = True
        namesake = self._open.pop(execution.msg_id, None)
        self._open[execution.msg_id] = execution
        ended: Effects = [] if namesake is None else [Finish(namesake)]
        return [*ended, Send(execution.message)]

    # -- from clients ---------------------------------------------------------------------------

    def _client_requested(self, event: ClientRequested) -> Effects:
        if self.status is Status.EXITED:
            return self._refuse_gone(event)
        if self.status not in {Status.UNINITIALIZED, Status.STARTING}:
            return self._to_kernel(event)
        if self._early.add(event):
            return []
        return self._refuse(event, "too many messages wait for the kernel to start")

    def _to_kernel(self, event: ClientRequested) -> Effects:
        message = event.message
        if message.msg_type != "execute_request":
            return [Send(message)]
        execution = self._execution(event)
        place = self.queue.offer(execution)
        if place is Place.ACTIVE:
            return self._run(execution)
        if place is Place.HELD:
            return [Announce("executionQueued", message.msg_id)]
        why = f"{self._limits.held_executions} requests wait already"
        return self._answer(execution, "error", why)

    def _execution(self, event: ClientRequested) -> Execution:
        """Make the record of an execution; the one of ``/execute`` was made by its requester."""
        return event.execution or Execution(
            event.message,
            decode_execute(event.message.content),
            event.origin,
            history_bytes=self._limits.history_text_bytes,
            output_bytes=self._limits.execute_output_bytes,
        )

    def _refuse(self, event: ClientRequested, why: str, status: str = "error") -> Effects:
        """Answer a request that cannot be sent; anything else is only reported."""
        message = event.message
        if message.msg_type != "execute_request":
            return [Refuse(f"The {message.msg_type} was dropped: {why}")]
        return self._answer(self._execution(event), status, why)

    def _refuse_gone(self, event: ClientRequested) -> Effects:
        return self._refuse(event, "the kernel has exited", "aborted")

    def _send_failed(self, event: SendFailed) -> Effects:
        why = "the kernel does not read, and too much waits already"
        message = event.message
        if message.msg_type != "execute_request":
            return [Refuse(f"The {message.msg_type} was dropped: {why}")]
        effects: Effects = []
        execution = self._open.get(message.msg_id)
        if execution is not None and execution is self.queue.active:
            effects = self._answer(execution, "error", why) + self._abort_held(why)
            self.queue.advance()
        return effects

    # -- clearing the queue ---------------------------------------------------------------------

    def _queue_cleared(self, _event: QueueCleared) -> Effects:
        why = "the queue was cleared"
        effects = self._abort_held(why)
        for request in self._early.take_executions():
            effects += self._refuse(request, why, "aborted")
        return effects

    def _abort_held(self, why: str, *, active_failed: bool = False) -> Effects:
        held = self.queue.clear_held(active_failed=active_failed)
        return [effect for one in held for effect in self._answer(one, "aborted", why)]

    def _answer(self, execution: Execution, status: str, why: str) -> Effects:
        """End an execution that the kernel will not end, saying what the kernel has not said.

        Of what never ran only a requester of its own hears, and nobody remembers it.
        """
        if self._open.get(execution.msg_id) is execution:
            del self._open[execution.msg_id]
        busy = not (execution.busy or execution.idle or execution.reply)
        reply, idle = execution.reply is None, not execution.idle
        effects: Effects = [Answer(execution.message, status, why, busy, reply, idle)]
        if execution.ran or execution.origin.injected:
            effects.append(Finish(execution))
        return effects

    def _execution_withdrawn(self, event: ExecutionWithdrawn) -> Effects:
        execution = event.execution
        execution.withdrawn = True
        if self.queue.withdraw(execution):
            return [Answer(execution.message, "aborted", "the request was withdrawn")]
        return []
