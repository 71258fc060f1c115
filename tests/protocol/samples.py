"""Messages to test with, and readers stricter than any client: wsproto and strict JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from kallichore.protocol.message import Channel, ClientMessage, KernelMessage
from kallichore.protocol.wire import Signer, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY = "0123456789abcdef0123456789abcdef"
SIGNER = Signer(KEY)
HEADER = (
    b'{"msg_id": "k-1", "msg_type": "%b", "session": "s", "username": "k", '
    b'"date": "2025-11-22T19:33:00.000000Z", "version": "5.3"}'
)
PARENT = b'{"msg_id": "c-1", "msg_type": "execute_request", "session": "c"}'


def signed(
    header: bytes = HEADER % b"display_data",
    parent: bytes = PARENT,
    metadata: bytes = b"{}",
    content: bytes = b"{}",
    *,
    identities: Sequence[bytes] = (b"kernel.topic",),
    buffers: Sequence[bytes] = (),
    signature: bytes | None = None,
) -> list[bytes]:
    """The frames of a message as a kernel sends it, rightly signed unless told otherwise."""
    if signature is None:
        signature = SIGNER.sign(header + parent + metadata + content)
    return [*identities, b"<IDS|MSG>", signature, header, parent, metadata, content, *buffers]


def parsed(
    msg_type: str = "display_data",
    content: bytes = b"{}",
    *,
    parent: bytes = PARENT,
    channel: Channel = Channel.IOPUB,
    **more: Any,
) -> KernelMessage:
    """A message that came from a kernel, through the real parser."""
    header = HEADER % msg_type.encode()
    return parse(channel, signed(header, parent, content=content, **more), SIGNER)


def parent_of(msg_id: str, msg_type: str = "execute_request") -> bytes:
    return json.dumps({"msg_id": msg_id, "msg_type": msg_type}).encode()


def asked(
    msg_id: str = "c-1",
    msg_type: str = "execute_request",
    *,
    channel: Channel = Channel.SHELL,
    **content: object,
) -> ClientMessage:
    """A message for the kernel; an `execute_request` unless told otherwise."""
    return ClientMessage(
        channel,
        msg_id,
        msg_type,
        json.dumps({"msg_id": msg_id, "msg_type": msg_type}).encode(),
        b"{}",
        b"{}",
        json.dumps(content).encode(),
        [],
    )


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def strict(text: str | bytes) -> Any:
    """Parse JSON as a browser does: no NaN, no infinities, no BOM, whole, valid UTF-8."""
    decoded = text if isinstance(text, str) else text.decode("utf-8")
    return json.loads(decoded, parse_constant=_no_constant)


def texts(frames: bytes) -> list[str]:
    """What a client's WebSocket library reads; it must be whole, unfragmented text messages."""
    connection = Connection(ConnectionType.CLIENT)
    connection.receive_data(frames)
    read: list[str] = []
    for event in connection.events():
        assert isinstance(event, TextMessage)
        assert event.message_finished
        read.append(event.data)
    return read


def text_of(frame: bytes) -> str:
    """The text of exactly one frame."""
    (text,) = texts(frame)
    return text


def pairs(text: str | bytes) -> list[tuple[str, Any]]:
    """The members of a JSON object, in order, repeated keys included."""
    found: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    return found
