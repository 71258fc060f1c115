"""The text frames of the channel: what a client reads and what it writes (CONTRACT 5.2, 5.3).

Outbound, the checked parts of a message are spliced, never rebuilt, and the result is a finished
WebSocket text frame (RFC 6455 section 5.2: FIN, opcode 1, unmasked), ready to be written.
"""

from __future__ import annotations

import json
from struct import Struct as Packer
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from pybase64 import b64decode, b64encode

from kallichore.protocol.compose import VERSION
from kallichore.protocol.lax import lenient, without_lone_surrogates
from kallichore.protocol.message import Channel, ClientMessage, ExecuteContent
from kallichore.protocol.wire import Malformed, check_object

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kallichore.protocol.message import KernelMessage

__all__ = [
    "Unusable",
    "decode",
    "decode_execute",
    "encode",
    "kernel_event",
    "raw_kernel_event",
    "request_json",
    "text_frame",
    "with_seq",
]


class Unusable(Exception):
    """A client's text frame that is not a message; its text says what is wrong."""


# Outbound --------------------------------------------------------------------------------------

_SHORT: Final = 126
_MEDIUM: Final = 65536
_pack_medium = Packer("!BBH").pack
_pack_long = Packer("!BBQ").pack
_TEXT: Final = 0x81
_HEADER: Final = b'{"kind":"jupyter","header":'
_PARENT: Final = b',"parent_header":'
_CONTENT: Final = {channel: b',"channel":"%b","content":' % channel.encode() for channel in Channel}
_METADATA: Final = b',"metadata":'
_NO_BUFFERS: Final = (b',"buffers":[]}',)
_FIXED: Final = len(_HEADER) + len(_PARENT) + len(_METADATA)


def _frame_header(length: int) -> bytes:
    if length < _SHORT:
        return bytes((_TEXT, length))
    if length < _MEDIUM:
        return _pack_medium(_TEXT, 126, length)
    return _pack_long(_TEXT, 127, length)


def text_frame(payload: bytes) -> bytes:
    """Put the WebSocket header before a finished text."""
    return _frame_header(len(payload)) + payload


def encode(message: KernelMessage) -> bytes:
    """Splice a kernel's message into one WebSocket text frame."""
    between = _CONTENT[message.channel]
    header, parent = message.header, message.parent_header
    content, metadata = message.content, message.metadata
    tail = _buffers(message.buffers)
    length = _FIXED + len(between) + len(header) + len(parent) + len(content) + len(metadata)
    length += sum(map(len, tail))
    return b"".join(
        (
            _frame_header(length),
            _HEADER,
            header,
            _PARENT,
            parent,
            between,
            content,
            _METADATA,
            metadata,
            *tail,
        )
    )


def _buffers(buffers: list[bytes]) -> Sequence[bytes]:
    """Give the last part in pieces: they may be big, and are copied but once, into the frame."""
    if not buffers:
        return _NO_BUFFERS
    pieces: list[bytes] = []
    for buffer in buffers:
        pieces += (b'","', b64encode(buffer))
    pieces[0] = b',"buffers":["'
    return [*pieces, b'"]}']


def kernel_event(key: str, value: object) -> bytes:
    """Give the frame of ``{"kind":"kernel", key: value}``.

    A lone surrogate in it (there are paths with them) becomes an escape.
    """
    try:
        return raw_kernel_event(key, msgspec.json.encode(value))
    except UnicodeEncodeError:
        return raw_kernel_event(key, json.dumps(msgspec.to_builtins(value)).encode())


def raw_kernel_event(key: str, value: bytes) -> bytes:
    """Give the frame of a kernel event whose value is JSON already."""
    return text_frame(b'{"kind":"kernel","%b":%b}' % (key.encode(), value))


def with_seq(frame: bytes, seq: int) -> bytes:
    """Number a finished frame for a client that resumes (CONTRACT 5.5)."""
    marker = frame[1]
    start = 2 if marker < _SHORT else 4 if marker == _SHORT else 10
    return text_frame(b'{"seq":%d,' % seq + frame[start + 1 :])


# Inbound ---------------------------------------------------------------------------------------


class _Header(Struct, gc=False):
    msg_id: str
    msg_type: str
    # The kernel is the judge of these; we only look whether they are there.
    session: msgspec.Raw | UnsetType = UNSET
    username: msgspec.Raw | UnsetType = UNSET
    date: msgspec.Raw | UnsetType = UNSET
    version: msgspec.Raw | UnsetType = UNSET


_MOST_BUFFERS: Final = 10_000


class _Frame(Struct, gc=False):
    header: msgspec.Raw
    channel: str
    content: msgspec.Raw = msgspec.Raw(b"{}")
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    parent_header: msgspec.Raw = msgspec.Raw(b"{}")
    buffers: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=_MOST_BUFFERS)] | None = None


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_header = msgspec.json.Decoder(_Header).decode
_decode_bytes = msgspec.json.Decoder(bytes).decode
_QUOTE: Final = ord('"')
_CHANNELS: Final = {str(channel): channel for channel in Channel if channel is not Channel.IOPUB}


def decode(
    text: str | bytearray, *, session_id: str, username: str, now: Callable[[], str]
) -> ClientMessage:
    """Read a client's text frame, which may be UTF-8 bytes.

    Header fields the client gives stay as they are; `session`, `username`, `date` and `version`
    are filled in from the arguments when they are missing. ``now`` gives an RFC 3339 instant and
    is only asked then. Half a surrogate pair, which JavaScript strings may hold, reads as U+FFFD.

    Raises:
        Unusable: It is not a message, or names a channel clients do not write to.
    """
    try:
        frame = _decode_frame(text)
        head = _decode_header(frame.header)
        content = check_object(bytes(frame.content))
        metadata = _object_or_null(frame.metadata)
        parent = _object_or_null(frame.parent_header)
        header = check_object(bytes(frame.header))
        buffers = [_buffer(raw, place) for place, raw in enumerate(frame.buffers or ())]
    except RecursionError:
        raise Unusable("The frame's JSON is nested too deeply") from None
    except (ValueError, Malformed) as error:
        data = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
        whole = without_lone_surrogates(data)
        if whole != data:
            return decode(whole.decode(), session_id=session_id, username=username, now=now)
        raise Unusable(f"The frame is not a Jupyter message: {error}") from None
    channel = _CHANNELS.get(frame.channel)
    if channel is None or (head.msg_type == "execute_request" and channel is Channel.STDIN):
        raise Unusable(f'A {head.msg_type} cannot be sent on the channel "{frame.channel}"')
    if not head.msg_id:
        raise Unusable("The frame is not a Jupyter message: its msg_id is empty")
    if UNSET in (head.session, head.username, head.date, head.version):
        header = _filled(header, head, session_id, username, now())
    return ClientMessage(
        channel,
        head.msg_id,
        head.msg_type,
        header,
        parent,
        metadata,
        content,
        buffers,
    )


def _buffer(raw: msgspec.Raw, place: int) -> bytes:
    """Decode a string of base64, ten times faster than msgspec, which is the judge of the rest."""
    text = memoryview(raw)
    if text[0] == _QUOTE:
        try:
            return b64decode(text[1:-1], validate=True)
        except ValueError:
            pass
    try:
        return _decode_bytes(raw)
    except msgspec.ValidationError as error:
        raise Malformed(f"{error} - at `$.buffers[{place}]`") from None


def _object_or_null(part: msgspec.Raw) -> bytes:
    text = bytes(part)  # a Raw never equals bytes
    return b"{}" if text == b"null" else check_object(text)


def _filled(header: bytes, head: _Header, session_id: str, username: str, date: str) -> bytes:
    """Add what is missing behind the given fields, which stay as they are."""
    missing = {
        name: value
        for name, given, value in (
            ("username", head.username, username),
            ("session", head.session, session_id),
            ("date", head.date, date),
            ("version", head.version, VERSION),
        )
        if given is UNSET
    }
    return b"%b,%b" % (header[:-1], msgspec.json.encode(missing)[1:])


def decode_execute(content: bytes) -> ExecuteContent:
    """Read an `execute_request`'s content; what is not as specified in it reads as its default.

    The kernel gets the content as the client wrote it and is the judge of it.
    """
    return lenient(content, ExecuteContent)


def request_json(message: ClientMessage) -> bytes:
    """Give a held or active request as a whole message (CONTRACT 2.2, `execution_queue`)."""
    return b'{"header":%b,"parent_header":%b,"channel":"%b","content":%b,"metadata":%b,%b' % (
        message.header,
        message.parent_header,
        message.channel.encode(),
        message.content,
        message.metadata,
        b"".join(_buffers(message.buffers))[1:],
    )
