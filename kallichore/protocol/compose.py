"""Messages the server itself writes: requests to a kernel, and answers in a kernel's place.

Ids and instants come in as arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kallichore.protocol.message import Channel, ClientMessage, KernelMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from kallichore.protocol.events import Answer

__all__ = ["VERSION", "header", "in_the_kernels_place", "reply", "request"]

VERSION = "5.3"
"""The version of the messaging protocol that the server's own messages follow."""


def header(msg_type: str, *, msg_id: str, session: str, username: str, date: str) -> bytes:
    """Write a message header (messaging spec, "Message header")."""
    return msgspec.json.encode(
        {
            "msg_id": msg_id,
            "msg_type": msg_type,
            "session": session,
            "username": username,
            "date": date,
            "version": VERSION,
        }
    )


def request(
    channel: Channel,
    msg_type: str,
    content: object,
    *,
    msg_id: str,
    session: str,
    username: str,
    date: str,
    metadata: object = None,
) -> ClientMessage:
    """Write a request of the server to a kernel."""
    return ClientMessage(
        channel,
        msg_id,
        msg_type,
        header(msg_type, msg_id=msg_id, session=session, username=username, date=date),
        b"{}",
        msgspec.json.encode(metadata or {}),
        msgspec.json.encode(content),
        [],
    )


def reply(
    channel: Channel,
    msg_type: str,
    content: object,
    parent_header: bytes,
    *,
    msg_id: str,
    session: str,
    username: str,
    date: str,
) -> KernelMessage:
    """Write a message as a kernel would, for the client alone."""
    return KernelMessage(
        channel,
        msg_id,
        msg_type,
        "",
        None,
        header(msg_type, msg_id=msg_id, session=session, username=username, date=date),
        parent_header,
        b"{}",
        msgspec.json.encode(content),
        [],
    )


def in_the_kernels_place(
    answer: Answer, write: Callable[[Channel, str, object, bytes], KernelMessage]
) -> list[KernelMessage]:
    """Answer an `execute_request`: of busy, `execute_reply` and idle what has yet to be said.

    ``write`` makes a message of a channel, a type, a content and the parent header.
    """
    content: dict[str, object] = {"status": answer.status, "execution_count": 0}
    if answer.status == "error":
        content |= {"ename": "RequestRefused", "evalue": answer.why, "traceback": [answer.why]}
    parent = answer.message.header
    answered: list[KernelMessage] = []
    if answer.busy:
        answered.append(write(Channel.IOPUB, "status", {"execution_state": "busy"}, parent))
    if answer.reply:
        answered.append(write(answer.message.channel, "execute_reply", content, parent))
    if answer.idle:
        answered.append(write(Channel.IOPUB, "status", {"execution_state": "idle"}, parent))
    return answered
