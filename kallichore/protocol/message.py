"""The two shapes of a Jupyter message inside the server: from the kernel, and from a client.

Both keep the four JSON parts as the bytes that arrived; only what decisions need is decoded.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

__all__ = ["Channel", "ClientMessage", "ExecuteContent", "KernelMessage"]


class Channel(StrEnum):
    """A Jupyter channel (messaging spec, "Introduction"), heartbeat aside."""

    SHELL = "shell"
    CONTROL = "control"
    STDIN = "stdin"
    IOPUB = "iopub"


class KernelMessage(Struct, frozen=True, gc=False):
    """A message of the kernel: signature verified, every part known to be a JSON object."""

    channel: Channel
    msg_id: str
    msg_type: str
    parent_id: str
    """`msg_id` of the parent header, empty if there is none."""
    parent_type: str | None
    header: bytes
    parent_header: bytes
    """JSON of the parent header; ``null`` if the kernel sent an empty one."""
    metadata: bytes
    content: bytes
    buffers: list[bytes]
    detail: str = ""
    """The one word of the content that decides: a stream's name, a status's execution state."""
    text: str = ""
    """A stream's text."""


class ClientMessage(Struct, frozen=True, gc=False):
    """A message for the kernel, its header complete."""

    channel: Channel
    msg_id: str
    msg_type: str
    header: bytes
    parent_header: bytes
    metadata: bytes
    content: bytes
    buffers: list[bytes]

    @property
    def size(self) -> int:
        """Bytes this message occupies, buffers included."""
        return (
            len(self.header)
            + len(self.parent_header)
            + len(self.metadata)
            + len(self.content)
            + sum(map(len, self.buffers))
        )


class ExecuteContent(Struct, frozen=True, gc=False):
    """What the server reads of an `execute_request`'s content (messaging spec, "Execute")."""

    code: str = ""
    silent: bool = False
    store_history: bool = True
    stop_on_error: bool = True
