"""The vocabulary of the core: what can happen to a session, and what is to be done about it.

Events are past participles and go into `SessionState.receive`; effects are imperatives and come
out of it, to be carried out in order. A `KernelMessage` is an event too.
"""

from __future__ import annotations

from msgspec import Struct

from kallichore.models import Status
from kallichore.protocol.execution import Execution, Origin
from kallichore.protocol.message import Channel, ClientMessage, KernelMessage

__all__ = [
    "AdoptionFailed",
    "Announce",
    "Answer",
    "ChangeStatus",
    "ClientRequested",
    "Deliver",
    "Drain",
    "Effect",
    "Event",
    "ExecutionWithdrawn",
    "ExpectReply",
    "Finish",
    "HearStatus",
    "HeartbeatBack",
    "HeartbeatLost",
    "IdleOverdue",
    "InfoRequested",
    "KernelAnswered",
    "LocateKernel",
    "QueueCleared",
    "Refuse",
    "ReplyOverdue",
    "RunEnded",
    "Send",
    "SendFailed",
    "Settled",
    "StartAccepted",
    "TakeInfo",
]

# Events ----------------------------------------------------------------------------------------


class StartAccepted(Struct, frozen=True):
    """A start or restart begins; the session is free for it."""


class InfoRequested(Struct, frozen=True):
    """The server's own `kernel_info_request` went out under this id."""

    msg_id: str


class KernelAnswered(Struct, frozen=True):
    """The kernel is known to answer, and iopub to be subscribed."""


class AdoptionFailed(Struct, frozen=True):
    """The kernel to adopt did not answer; the session stays as it was."""


class ClientRequested(Struct, frozen=True):
    """A client, or ``/execute``, wants this message sent."""

    message: ClientMessage
    origin: Origin
    execution: Execution | None = None
    """The requester's own record, if it keeps one (``/execute``)."""


class SendFailed(Struct, frozen=True):
    """The kernel takes no more messages: too much waits for it already."""

    message: ClientMessage


class ExecutionWithdrawn(Struct, frozen=True):
    """Nobody waits for this ``/execute`` any more."""

    execution: Execution


class ReplyOverdue(Struct, frozen=True):
    """The kernel has been idle for a while after this execution, and has sent no reply."""

    execution: Execution


class IdleOverdue(Struct, frozen=True):
    """`SessionState.idle_is_due`, and the kernel has been silent for a while.

    It may be lost: a kernel whose output outruns its socket drops messages.
    """

    question: ClientMessage
    """A `kernel_info_request` of ours; the idle after it comes behind the one that is due."""


class QueueCleared(Struct, frozen=True):
    """Interrupt, shutdown, kill: what is held is not wanted any more."""


class HeartbeatLost(Struct, frozen=True):
    """The kernel's heartbeat stayed unanswered."""


class HeartbeatBack(Struct, frozen=True):
    """The kernel's heartbeat is answered again."""


class RunEnded(Struct, frozen=True):
    """The kernel is gone, or never came."""

    exit_code: int
    """As reported to clients: -1 for a signal."""
    reason: str


class Settled(Struct, frozen=True):
    """What travelled beside this message on another socket has been seen first."""

    message: KernelMessage


Event = (
    KernelMessage
    | StartAccepted
    | InfoRequested
    | KernelAnswered
    | AdoptionFailed
    | ClientRequested
    | SendFailed
    | ExecutionWithdrawn
    | ReplyOverdue
    | IdleOverdue
    | QueueCleared
    | HeartbeatLost
    | HeartbeatBack
    | RunEnded
    | Settled
)

# Effects ---------------------------------------------------------------------------------------


class Deliver(Struct, frozen=True, gc=False):
    """Queue the kernel's message to the client."""

    message: KernelMessage


class Announce(Struct, frozen=True):
    """Queue a kernel event (CONTRACT 5.3) to the client."""

    key: str
    value: object


class ChangeStatus(Struct, frozen=True):
    """The session is in another state now; queue it to the client."""

    status: Status
    reason: str | None


class Send(Struct, frozen=True):
    """Send this to the kernel."""

    message: ClientMessage


class Answer(Struct, frozen=True):
    """Answer an `execute_request` in the kernel's place, as far as the kernel has not done so."""

    message: ClientMessage
    status: str
    """``aborted`` or ``error``; ``ok`` if the reply is there."""
    why: str
    busy: bool = True
    reply: bool = True
    idle: bool = True


class Finish(Struct, frozen=True):
    """An execution is over: remember it, and answer who waits for it."""

    execution: Execution


class ExpectReply(Struct, frozen=True):
    """The idle has overtaken the reply: give ``ReplyOverdue(execution)`` back in a while."""

    execution: Execution


class Refuse(Struct, frozen=True):
    """A client's message cannot be used; tell it why, if it takes such news."""

    why: str


class LocateKernel(Struct, frozen=True):
    """Read the kernel's working directory."""


class TakeInfo(Struct, frozen=True):
    """This is the content of the `kernel_info_reply` the server asked for."""

    content: bytes


class HearStatus(Struct, frozen=True):
    """While it was being asked the kernel has said a status: its iopub reaches us."""


class Drain(Struct, frozen=True):
    """Handle what waits on this socket now, then give ``Settled(message)`` back."""

    channel: Channel
    message: KernelMessage


Effect = (
    Deliver
    | Announce
    | ChangeStatus
    | Send
    | Answer
    | Finish
    | ExpectReply
    | Refuse
    | LocateKernel
    | TakeInfo
    | HearStatus
    | Drain
)
