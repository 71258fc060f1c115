"""Sessions in which anything happens in any order: what must be true is true all the same."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from kallichore.config import Limits
from kallichore.models import Status
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
    HeartbeatBack,
    HeartbeatLost,
    IdleOverdue,
    InfoRequested,
    KernelAnswered,
    QueueCleared,
    ReplyOverdue,
    RunEnded,
    Send,
    SendFailed,
    Settled,
    StartAccepted,
)
from kallichore.protocol.lifecycle import MAY_BE_STARTED
from kallichore.protocol.message import Channel, ClientMessage, KernelMessage
from tests.protocol.samples import asked
from tests.protocol.scene import Scene, reply, said, status

LIMITS = Limits(held_executions=3, client_messages_waiting=4)
CHANNELS = st.sampled_from([Channel.SHELL, Channel.CONTROL])


@dataclass
class Work:
    """What a kernel has yet to say about one request."""

    message: ClientMessage
    busy: bool = False
    replied: bool = False
    idle: bool = False


class RandomSession(RuleBasedStateMachine):
    """A core, a kernel that follows the protocol in its own time, and somebody who watches."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(LIMITS)
        self.core = self.scene.state
        self.count = 0
        self.own = ""
        self.questions: set[str] = set()
        self.lost: set[str] = set()
        # The kernel: what it was sent, and what travels back on each socket.
        self.starting = self.alive = self.deaf = False
        self.inbox: deque[Work] = deque()
        self.transit: dict[Channel, deque[KernelMessage]] = {one: deque() for one in Channel}
        self.expected: list[ExpectReply] = []
        # What was asked, and what came of it.
        self.asked: dict[str, ClientRequested] = {}
        self.withdrawn: set[str] = set()
        self.ran: set[str] = set()
        self.unfinished: set[str] = set()
        self.replies: Counter[str] = Counter()
        self.idles: Counter[str] = Counter()
        self.finishes: Counter[str] = Counter()
        self.told = Status.UNINITIALIZED
        self.exits_due = 0

    # -- carrying out and watching --------------------------------------------------------------

    def do(self, event: Event) -> None:
        for effect in self.core.receive(event):
            self._watch(effect)
            if isinstance(effect, Send):
                self._sent(effect.message)
            elif isinstance(effect, Drain):
                transit = self.transit[effect.channel]
                while transit:
                    self.do(transit.popleft())
                self.do(Settled(effect.message))
        assert self.told is self.core.status
        assert self.exits_due == 0

    def _sent(self, message: ClientMessage) -> None:
        assert self.alive
        assert message.msg_id not in self.ran
        self.ran.add(message.msg_id)
        if message.msg_id in self.questions:
            self.inbox.append(Work(message))
        elif self.deaf:
            self.unfinished.discard(message.msg_id)
            self.do(SendFailed(message))
        elif message.msg_type == "execute_request":
            self.unfinished.add(message.msg_id)
            assert len(self.unfinished) == 1  # never two at work
            self.inbox.append(Work(message))

    def _watch(self, effect: Effect) -> None:
        match effect:
            case ChangeStatus(to):
                assert to is not self.told
                assert (to is Status.EXITED) <= (self.starting or self.alive)
                self.told = to
                self.exits_due += to is Status.EXITED
            case Announce("exited"):
                assert self.told is Status.EXITED
                self.exits_due -= 1
            case Answer(message, outcome, _, _, replied, idle):
                assert (outcome == "ok") <= (message.msg_id in self.lost)
                self.unfinished -= self.lost & {message.msg_id}
                assert replied or idle
                self.replies[message.msg_id] += replied
                self.idles[message.msg_id] += idle
            case Deliver(message):
                self._delivered(message)
            case Finish(execution):
                self.finishes[execution.msg_id] += 1
            case ExpectReply():
                self.expected.append(effect)
            case _:
                pass

    def _delivered(self, message: KernelMessage) -> None:
        assert message.parent_id not in {self.own, *self.questions}
        self.replies[message.parent_id] += message.msg_type == "execute_reply"
        if message.detail in {"busy", "idle"} and self.alive and self.told is not Status.OFFLINE:
            assert self.told == message.detail  # the change was told first
        if message.detail == "idle":
            self.idles[message.parent_id] += 1
            self.unfinished.discard(message.parent_id)

    # -- lives ----------------------------------------------------------------------------------

    @initialize(alive=st.sampled_from([True, True, True, False]))
    def begin(self, alive: bool) -> None:  # noqa: FBT001
        """Most sessions begin with a kernel, and work for it."""
        if alive:
            self.start(adopted=False)
            self.answers()
            self.ask(Channel.SHELL, stop=True, count=2)

    @precondition(lambda self: self.core.status in MAY_BE_STARTED and not self.starting)
    @rule(adopted=st.booleans())
    def start(self, adopted: bool) -> None:  # noqa: FBT001
        self.starting, self.deaf = True, False
        if not adopted:
            self.do(StartAccepted())
        self.count += 1
        self.own = f"own-{self.count}"
        self.do(InfoRequested(self.own))
        before = self.core.status
        for state in ("busy", "idle"):
            self.do(status(state, self.own))
        assert self.core.status is before

    @precondition(lambda self: self.starting)
    @rule()
    def answers(self) -> None:
        self.starting, self.alive = False, True
        self.do(KernelAnswered())

    @precondition(lambda self: self.starting and self.core.status in MAY_BE_STARTED)
    @rule()
    def adoption_fails(self) -> None:
        self.starting = False
        self.do(AdoptionFailed())

    @precondition(lambda self: self.alive or self.core.status is Status.STARTING)
    @rule(code=st.integers(-1, 3))
    def ends(self, code: int) -> None:
        self.inbox.clear()
        for transit in self.transit.values():
            transit.clear()
        self.do(RunEnded(code, "a reason"))
        self.starting = self.alive = False
        self.unfinished.clear()
        assert (self.core.queue.active, len(self.core.queue.held)) == (None, 0)

    @precondition(lambda self: self.alive)
    @rule(back=st.booleans())
    def heartbeat(self, back: bool) -> None:  # noqa: FBT001
        self.do(HeartbeatBack() if back else HeartbeatLost())

    # -- requests -------------------------------------------------------------------------------

    @rule(channel=CHANNELS, stop=st.booleans(), count=st.sampled_from([1, 1, 2, 5]))
    def ask(self, channel: Channel, stop: bool, count: int) -> None:  # noqa: FBT001
        for _ in range(count):
            self.count += 1
            msg_id = f"c-{self.count}"
            self.asked[msg_id] = self.scene.request(msg_id, channel=channel, stop_on_error=stop)
            self.do(self.asked[msg_id])

    @rule(channel=CHANNELS)
    def ask_something_else(self, channel: Channel) -> None:
        self.count += 1
        self.do(self.scene.request(f"x-{self.count}", "comm_msg", channel=channel))

    @rule()
    def inject(self) -> None:
        self.count += 1
        msg_id = f"i-{self.count}"
        self.asked[msg_id] = self.scene.injected(msg_id)
        self.do(self.asked[msg_id])

    @precondition(lambda self: any(one.origin.injected for one in self.core.queue.held))
    @rule()
    def withdraw(self) -> None:
        held = next(one for one in self.core.queue.held if one.origin.injected)
        self.withdrawn.add(held.msg_id)
        self.do(ExecutionWithdrawn(held))

    @precondition(lambda self: self.alive or self.core.status is Status.STARTING)
    @rule()
    def clear(self) -> None:
        self.do(QueueCleared())
        assert not self.core.queue.held

    @precondition(lambda self: self.alive)
    @rule(deaf=st.booleans())
    def stop_reading(self, deaf: bool) -> None:  # noqa: FBT001
        self.deaf = deaf

    # -- the kernel -----------------------------------------------------------------------------

    @precondition(lambda self: self.inbox)
    @rule(step=st.sampled_from(["busy", "output", "ok", "error", "idle", "all"]))
    def work(self, step: str) -> None:
        """Say something about the oldest request that is not done."""
        work = self.inbox[0]
        if step == "all":
            for each in ("busy", "output", "error" if self.count % 3 == 0 else "ok", "idle"):
                self._say(work, each)
        else:
            self._say(work, step)
        if work.replied and work.idle:
            self.inbox.popleft()

    def _say(self, work: Work, step: str) -> None:
        message, iopub = work.message, self.transit[Channel.IOPUB]
        if step == "busy" and not (work.busy or work.idle):
            work.busy = True
            iopub.append(status("busy", message.msg_id))
        elif step == "output" and not work.idle:
            iopub.append(said(Channel.IOPUB, "stream", message.msg_id, b'{"name": "stdout"}'))
        elif step in {"ok", "error"} and not work.replied:
            work.replied = True
            self.transit[message.channel].append(reply(message.msg_id, step, message.channel))
        elif step == "idle" and not work.idle:
            work.idle = True
            iopub.append(status("idle", message.msg_id))

    @precondition(lambda self: self.inbox and not self.inbox[0].idle)
    @rule()
    def lose_an_idle(self) -> None:
        """A message that a socket had no room for."""
        work = self.inbox[0]
        for step in ("busy", "ok"):
            self._say(work, step)
        work.idle = True
        self.lost.add(work.message.msg_id)
        self.inbox.popleft()

    @precondition(lambda self: self.alive)
    @rule()
    def ask_the_kernel(self) -> None:
        self.count += 1
        self.questions.add(f"q-{self.count}")
        self.do(IdleOverdue(asked(f"q-{self.count}", "kernel_info_request")))

    @precondition(lambda self: self.alive or self.starting)
    @rule(
        state=st.sampled_from(["busy", "idle", "starting", "odd"]),
        parent=st.sampled_from(["", "x"]),
    )
    def speak_of_others(self, state: str, parent: str) -> None:
        self.transit[Channel.IOPUB].append(status(state, parent or None))

    @precondition(lambda self: any(self.transit.values()))
    @rule(channel=st.sampled_from(Channel), count=st.integers(1, 3))
    def arrive(self, channel: Channel, count: int) -> None:
        """Messages leave a socket one by one, and each may drain another socket."""
        for _ in range(min(count, len(self.transit[channel]))):
            if self.transit[channel]:
                self.do(self.transit[channel].popleft())

    @precondition(lambda self: self.expected)
    @rule()
    def reply_is_overdue(self) -> None:
        self.do(ReplyOverdue(self.expected.pop(0).execution))

    # -- the reckoning --------------------------------------------------------------------------

    def teardown(self) -> None:
        self._let_the_kernel_finish()
        if self.core.status is Status.UNINITIALIZED and not self.starting:
            self.start(adopted=False)
        if self.starting and self.core.status in MAY_BE_STARTED:
            self.answers()
        if self.core.status is not Status.EXITED:
            self.ends(0)
        for msg_id, request in self.asked.items():
            assert (msg_id, self.replies[msg_id]) == (msg_id, 1)
            assert (msg_id, self.idles[msg_id]) == (msg_id, 1)
            due = msg_id in self.ran or request.origin.injected
            assert self.finishes[msg_id] == (due and msg_id not in self.withdrawn)
        assert not self.core._open
        assert not self.core._early

    def _let_the_kernel_finish(self) -> None:
        while self.alive and (
            self.inbox or any(self.transit.values()) or self.expected or self.core.idle_is_due
        ):
            if not self.inbox:
                self.ask_the_kernel()
            if self.inbox:
                self.work("all")
            for channel in Channel:
                self.arrive(channel, len(self.transit[channel]))
            if self.expected:
                self.reply_is_overdue()


TestRandomSessions = RandomSession.TestCase
TestRandomSessions.settings = settings(
    max_examples=4 * settings().max_examples, stateful_step_count=40
)
