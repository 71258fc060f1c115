"""The frames of a channel as a client sees them: Jupyter messages and the supervisor's events.

`decode` makes one of these records of a text frame; `encode` makes the frame of a message for the
kernel (CONTRACT 5.2, 5.3). No I/O here.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from kallichore import models
from kallichore.client.errors import UnexpectedAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ClientDisconnected",
    "Event",
    "ExecutionQueued",
    "Exited",
    "FrameRefused",
    "HandshakeCompleted",
    "Header",
    "JupyterMessage",
    "Output",
    "Received",
    "UnknownEvent",
    "WorkingDirChanged",
    "decode",
    "encode",
    "new_message",
]

PROTOCOL_VERSION: Final = "5.3"


class Header(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A message's header; fields that the sender left out are empty.

    Only what decisions need has a type: kernels are free with the rest.
    """

    msg_id: str = ""
    msg_type: str = ""
    session: Any = ""
    username: Any = ""
    date: Any = ""
    version: Any = ""
    subshell_id: Any = None
    """The subshell that is to run the request (JEP 91)."""


class JupyterMessage(Struct, kw_only=True, frozen=True, tag_field="kind", tag="jupyter"):
    """A Jupyter message, from the kernel or for it."""

    header: Header
    channel: str
    content: dict[str, Any]
    parent_header: Header | None = None
    metadata: dict[str, Any] = {}
    buffers: list[bytes] = []
    seq: int | None = None
    """Its number in the session, on a channel that resumes."""

    @property
    def type(self) -> str:
        """The message type."""
        return self.header.msg_type

    @property
    def parent_id(self) -> str | None:
        """The id of the message that this one answers, or None."""
        return None if self.parent_header is None else self.parent_header.msg_id or None


class Output(Struct, frozen=True):
    """The kernel's process has written to its own stdout or stderr."""

    stream: models.StreamName
    text: str


class ExecutionQueued(Struct, frozen=True):
    """A request waits behind another one."""

    msg_id: str


class WorkingDirChanged(Struct, frozen=True):
    """The kernel's process works in another directory now."""

    path: str


class HandshakeCompleted(Struct, frozen=True):
    """The kernel has registered itself (JEP 66)."""

    session_id: str
    connection: models.ConnectionInfo


class ClientDisconnected(Struct, frozen=True):
    """Another client takes this channel; a close follows, and reconnecting is not wanted."""

    reason: str


class Exited(Struct, frozen=True):
    """The kernel's process is gone."""

    exit_code: int


class FrameRefused(Struct, frozen=True):
    """The server could not use a frame of ours."""

    error: models.Error


class UnknownEvent(Struct, frozen=True):
    """An event that this version of the client does not know."""

    members: dict[str, Any]


Event: TypeAlias = (
    models.StatusChange
    | Output
    | ExecutionQueued
    | models.ExecutionRequested
    | WorkingDirChanged
    | models.ResourceUsage
    | HandshakeCompleted
    | ClientDisconnected
    | Exited
    | models.Resumed
    | FrameRefused
    | UnknownEvent
)
Received: TypeAlias = JupyterMessage | Event

_EVENTS: Final[dict[str, Callable[[Any], Event]]] = {
    "status": lambda value: value,
    "output": lambda value: Output(*value),
    "execution_queued": ExecutionQueued,
    "execution_requested": lambda value: value,
    "working_dir_changed": WorkingDirChanged,
    "resource_usage": lambda value: value,
    "handshake_completed": lambda value: HandshakeCompleted(*value),
    "client_disconnected": ClientDisconnected,
    "exited": Exited,
    "resumed": lambda value: value,
    "error": FrameRefused,
}
_decoder: Final = msgspec.json.Decoder(JupyterMessage | models.KernelEvent)


def decode(text: str | bytes) -> tuple[Received, int | None]:
    """Make a record of a text frame, and give its sequence number if it has one.

    Raises:
        UnexpectedAnswer: if it is not a frame that the contract knows.
    """
    try:
        frame = _decoder.decode(text)
        if isinstance(frame, JupyterMessage):
            return frame, frame.seq
        return _event(frame, text), frame.seq
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise UnexpectedAnswer(f"The server sent a frame that is no message: {exc}.") from exc


def _event(frame: models.KernelEvent, text: str | bytes) -> Event:
    for name, make in _EVENTS.items():
        value = getattr(frame, name)
        if value is not None:
            return make(value)
    return UnknownEvent(msgspec.json.decode(text, type=dict[str, Any]))


def new_message(
    msg_type: str,
    content: dict[str, Any],
    *,
    channel: str = "shell",
    session: str = "",
    username: str = "",
    parent: Header | None = None,
    metadata: dict[str, Any] | None = None,
    buffers: list[bytes] | None = None,
) -> JupyterMessage:
    """Make a message for the kernel with a new id and the present time."""
    header = Header(
        msg_id=uuid.uuid4().hex,
        msg_type=msg_type,
        session=session,
        username=username,
        date=datetime.now(UTC).isoformat(),
        version=PROTOCOL_VERSION,
    )
    return JupyterMessage(
        header=header,
        channel=channel,
        content=content,
        parent_header=parent,
        metadata=metadata or {},
        buffers=buffers or [],
    )


def encode(message: JupyterMessage) -> str:
    """Make the text frame of a message for the kernel; empty header fields are left out.

    Raises:
        TypeError: if its content or metadata cannot be put into JSON.
    """
    return msgspec.json.encode(
        {
            "kind": "jupyter",
            "header": message.header,
            "parent_header": message.parent_header or {},
            "channel": message.channel,
            "content": message.content,
            "metadata": message.metadata,
            "buffers": message.buffers,
        }
    ).decode()
