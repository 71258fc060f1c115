"""What is said in a session: the one road between kernel and client, and who is at its two ends.

The core decides (`SessionState`), this carries it out: messages and events become frames in the
outbox, requests go to the run. It outlives runs and clients.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import trio

from kallichore.errors import BadRequest
from kallichore.frontend import Frontend
from kallichore.kernel.run import own_request
from kallichore.models import Resumed, Status, StatusChange
from kallichore.nurseries import Activity
from kallichore.outbox import MemoryBudget, Outbox
from kallichore.protocol import envelope
from kallichore.protocol.compose import in_the_kernels_place, reply
from kallichore.protocol.events import (
    Announce,
    Answer,
    ChangeStatus,
    ClientRequested,
    Deliver,
    Drain,
    ExpectReply,
    Finish,
    HearStatus,
    HeartbeatBack,
    HeartbeatLost,
    IdleOverdue,
    InfoRequested,
    KernelAnswered,
    LocateKernel,
    Refuse,
    ReplyOverdue,
    Send,
    SendFailed,
    Settled,
    TakeInfo,
)
from kallichore.protocol.execution import Execution, Origin
from kallichore.protocol.message import Channel, KernelMessage
from kallichore.protocol.session_state import SessionState
from kallichore.protocol.wire import BadSignature, Signer, WireError, parse
from kallichore.stamps import new_id, now_ms, now_text
from kallichore.tally import Counters

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kallichore.config import Deadlines, Limits
    from kallichore.frontend import Peer
    from kallichore.kernel.run import KernelRun
    from kallichore.models import ConnectionInfo, ExecutionHistoryEntry
    from kallichore.protocol.events import Effect, Event
    from kallichore.spool import Dropped
    from kallichore.traffic import Traffic

__all__ = ["Conversation"]

log = logging.getLogger(__name__)
_EVICTED = "Another client is connecting to this session."


class Conversation:
    """One session's talk, over all its runs and clients."""

    def __init__(
        self,
        session_id: str,
        username: str,
        limits: Limits,
        deadlines: Deadlines,
        budget: MemoryBudget,
        traffic: Traffic,
        spool_directory: Path,
        locate: Callable[[], None],
        noticed: Callable[[], None],
    ) -> None:
        """Begin with neither a kernel nor a client.

        ``locate`` reads the working directory; ``noticed`` hears when a client has connected or
        left, and when the session is starting, idle or exited.
        """
        self._noticed = noticed
        self._session_id = session_id
        self._username = username
        self._limits = limits
        self._deadlines = deadlines
        self._locate = locate
        self._takeover = trio.Lock()
        self.state = SessionState(limits)
        self.outbox = Outbox(limits, budget, traffic, spool_directory, self._dropped_notice)
        self.frontend: Frontend | None = None
        self.run: KernelRun | None = None
        self.kernel_info = b"{}"
        self.history: deque[ExecutionHistoryEntry] = deque(maxlen=limits.history_entries)
        self.counters = Counters()
        self.status_since = trio.current_time()
        self.status_changed = Activity()
        self._waiters: dict[int, trio.Event] = {}
        self._overtaken: Execution | None = None
        self._overtaking = trio.Event()
        self._heard = 0
        self._doubt_at = math.inf
        self._carriers: dict[type, object] = {
            Deliver: self._deliver,
            Send: self._send,
            Announce: lambda effect: self.announce(effect.key, effect.value),
            ChangeStatus: self._change_status,
            Answer: self._answer,
            Finish: self._finish,
            ExpectReply: self._expect_reply,
            Drain: self._drain,
            LocateKernel: lambda _: self._locate(),
            TakeInfo: self._take_info,
            HearStatus: lambda _: self._hear_status(),
            Refuse: lambda effect: self._refuse(effect.why),
        }

    # -- from the kernel (a `RunHost`) ----------------------------------------------------------

    def from_kernel(self, channel: Channel, batch: list[list[bytes]], signer: Signer) -> None:
        """Take a batch of messages all the way to the outbox. The road: nothing here waits."""
        receive, append, encode = self.state.receive, self.outbox.append, envelope.encode
        self.counters.messages_from_kernel += len(batch)
        self.outbox.begin_batch()
        try:
            for frames in batch:
                try:
                    message = parse(channel, frames, signer)
                except WireError as error:
                    self._bad_message(channel, error)
                    continue
                for effect in receive(message):
                    if type(effect) is Deliver:
                        delivered = effect.message
                        frame = encode(delivered)
                        self.counters.bytes_to_client += len(frame)
                        append(frame, droppable=delivered.msg_type == "stream")
                    else:
                        self._carry_out(effect)
        finally:
            self.outbox.end_batch()

    def _bad_message(self, channel: Channel, error: WireError) -> None:
        if isinstance(error, BadSignature):
            self.counters.bad_signatures += 1
            first = self.counters.bad_signatures == 1
        else:
            self.counters.malformed += 1
            first = self.counters.malformed == 1
        log.log(
            logging.WARNING if first else logging.DEBUG,
            "a message of the kernel on %s was dropped: %s",
            channel,
            error,
        )

    def output(self, stream: str, text: str) -> None:
        """See `RunHost`."""
        frame = envelope.kernel_event("output", (stream, text))
        self.outbox.append(frame, droppable=True)

    def registered(self, connection: ConnectionInfo) -> None:
        """See `RunHost`."""
        self.announce("handshakeCompleted", (self._session_id, connection))

    def info_requested(self, msg_id: str) -> None:
        """See `RunHost`."""
        self.receive(InfoRequested(msg_id))

    def kernel_answered(self) -> None:
        """See `RunHost`."""
        self.receive(KernelAnswered())

    def heartbeat(self) -> None:
        """See `RunHost`. Now and then is often enough to look for an idle that is lost."""
        now, heard = trio.current_time(), self.counters.messages_from_kernel
        if heard != self._heard:
            self._heard, self._doubt_at = heard, now + self._deadlines.idle_seconds
        elif now >= self._doubt_at and self.state.idle_is_due:
            self._doubt_at = math.inf  # once in a silence: it may be at work for hours
            log.info("the kernel is silent, and has not said that it is idle: it is asked")
            self.receive(IdleOverdue(own_request(Channel.SHELL, "kernel_info_request", {})))

    def heartbeat_lost(self) -> None:
        """See `RunHost`."""
        self.receive(HeartbeatLost())

    def heartbeat_back(self) -> None:
        """See `RunHost`."""
        self.receive(HeartbeatBack())

    # -- from clients ---------------------------------------------------------------------------

    def from_client(self, text: str | bytearray) -> None:
        """Take a client's text frame to the kernel, or to the queue."""
        try:
            message = envelope.decode(
                text, session_id=self._session_id, username=self._username, now=now_text
            )
        except envelope.Unusable as error:
            self.counters.unusable_frames += 1
            log.warning("a frame of the client was dropped: %s", error)
            self._refuse(str(error))
            return
        self.receive(ClientRequested(message, Origin(now_ms())))

    def _refuse(self, why: str) -> None:
        """Tell a client that resumes; others know nothing of such news."""
        if self.frontend is not None and self.frontend.resuming:
            self.announce("error", BadRequest(why).to_model())

    # -- deciding and doing ---------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        """Let the core decide, and carry out what it says."""
        for effect in self.state.receive(event):
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        self._carriers[type(effect)](effect)  # type: ignore[operator]

    def _send(self, effect: Send) -> None:
        message = effect.message
        self.counters.messages_to_kernel += 1
        self.counters.bytes_to_kernel += message.size
        if self.run is None or not self.run.send(message):
            self.receive(SendFailed(message))
        elif message.msg_type == "shutdown_request":
            self.run.requested = True

    def _answer(self, effect: Answer) -> None:
        """Answer an `execute_request` in the kernel's place."""
        if effect.status == "ok":
            log.warning("the kernel's idle after execution %s is lost", effect.message.msg_id)
        write = partial(self._write, session=self._session_id)
        for answer in in_the_kernels_place(effect, write):
            self._deliver(Deliver(answer))

    def _drain(self, effect: Drain) -> None:
        if self.run is not None:
            self.run.drain(effect.channel)
        self.receive(Settled(effect.message))

    def _take_info(self, effect: TakeInfo) -> None:
        self.kernel_info = effect.content
        if self.run is not None:
            self.run.info_received()

    def _hear_status(self) -> None:
        if self.run is not None:
            self.run.status_heard()

    def _deliver(self, effect: Deliver) -> None:
        message = effect.message
        self.outbox.append(envelope.encode(message), droppable=message.msg_type == "stream")

    def announce(self, key: str, value: object) -> None:
        """Queue a kernel event (CONTRACT 5.3) to the client."""
        self.outbox.append(envelope.kernel_event(key, value))

    def _change_status(self, effect: ChangeStatus) -> None:
        status, reason = effect.status, effect.reason
        # Busy and idle come with every execution: they are on the road, where nothing is logged.
        level = logging.DEBUG if status in {Status.BUSY, Status.IDLE} else logging.INFO
        known = {"session_id": self._session_id, "reason": reason}
        log.log(level, "the session is %s", status, extra=known)
        self.announce("status", StatusChange(status=status, reason=reason))
        self.status_since = trio.current_time()
        self.status_changed.note()
        if status in {Status.STARTING, Status.IDLE, Status.EXITED}:
            self._noticed()

    def _write(
        self, channel: Channel, msg_type: str, content: object, parent: bytes, *, session: str
    ) -> KernelMessage:
        return reply(
            channel,
            msg_type,
            content,
            parent,
            msg_id=new_id(),
            session=session,
            username=self._username,
            date=now_text(),
        )

    def _dropped_notice(self, dropped: Dropped) -> bytes:
        text = (
            f"\n[Kallichore: {dropped.frames} pieces of output ({dropped.size} bytes) were dropped "
            "here, because too much was waiting to be read]\n"
        )
        content = {"name": "stderr", "text": text}
        message = self._write(Channel.IOPUB, "stream", content, b"null", session=self._session_id)
        return envelope.encode(message)

    # -- executions -----------------------------------------------------------------------------

    def _finish(self, effect: Finish) -> None:
        execution = effect.execution
        self.outbox.hurry()
        if execution.ran and not execution.request.silent:
            self.history.append(execution.history_entry())
        waiter = self._waiters.pop(id(execution), None)
        if waiter is not None:
            waiter.set()

    def _expect_reply(self, effect: ExpectReply) -> None:
        self._overtaken = effect.execution
        self._overtaking.set()

    async def watch_replies(self) -> None:
        """Give up on a reply that does not follow its idle, again and again, until cancelled."""
        while True:
            await self._overtaking.wait()
            self._overtaking = trio.Event()
            overtaken = self._overtaken
            await trio.sleep(self._deadlines.reply_seconds)
            if overtaken is not None:
                self.receive(ReplyOverdue(overtaken))

    def inject(self, execution: Execution) -> trio.Event:
        """Send a request of the server's own; the event is set when it is over."""
        over = self._waiters[id(execution)] = trio.Event()
        self.receive(ClientRequested(execution.message, execution.origin, execution))
        return over

    def forget(self, execution: Execution) -> None:
        """Nobody waits for the end of this one any more."""
        self._waiters.pop(id(execution), None)

    # -- clients --------------------------------------------------------------------------------

    async def attach(self, peer: Peer, after: int | None) -> None:
        """Serve a client until it is gone; the newest evicts the one before (CONTRACT 5.1).

        ``after`` is the number of the last frame that a resuming client has. Cancelling says
        farewell within `Deadlines.close_seconds`.
        """
        frontend = Frontend(
            peer,
            self.outbox,
            self.from_client,
            self._limits,
            self._deadlines,
            None if after is None else envelope.with_seq,
        )
        try:
            async with self._takeover:
                if self.frontend is not None:
                    event = envelope.kernel_event("clientDisconnected", _EVICTED)
                    self.frontend.dismiss(1000, _EVICTED, event, flush=False)
                    await self.frontend.released.wait()
                first = self._begin(after)
                self.frontend = frontend
            self._noticed()
            await frontend.run(first)
        finally:
            peer.abort()
            frontend.released.set()
            # In a takeover the next one takes its place, so that there is always one.
            present = self.frontend
            if present is not None and present.released.is_set() and not self._takeover.locked():
                self.frontend = None
            self._noticed()

    def _begin(self, after: int | None) -> bytes:
        oldest = self.outbox.begin(after)
        if after is None or oldest is None:
            return b""
        gap = envelope.kernel_event("resumed", Resumed(after=after, oldest=oldest))
        return envelope.with_seq(gap, after)
