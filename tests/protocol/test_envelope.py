"""Text frames to clients (CONTRACT 5.3): what is checked is spliced, and nothing breaks out."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kallichore.models import Status, StatusChange
from kallichore.protocol.envelope import (
    encode,
    kernel_event,
    raw_kernel_event,
    request_json,
    text_frame,
    with_seq,
)
from kallichore.protocol.message import Channel, KernelMessage
from kallichore.protocol.wire import WireError, parse
from tests.protocol.samples import (
    HEADER,
    PARENT,
    SIGNER,
    asked,
    pairs,
    parsed,
    signed,
    strict,
    text_of,
    texts,
)
from tests.protocol.test_lax import OBJECTS, python_json

KEYS = ["kind", "header", "parent_header", "channel", "content", "metadata", "buffers"]
SIZES = [0, 1, 60, 125, 126, 127, 65_535, 65_536, 70_000]


def read(message: KernelMessage) -> dict[str, Any]:
    """The one text frame of a message, as a client reads it; nothing may have broken out of it."""
    text = text_of(encode(message))
    strict(text)
    members = pairs(text)
    assert [key for key, _ in members] == KEYS
    envelope: dict[str, Any] = strict(text)
    assert envelope["kind"] == "jupyter"
    assert envelope["channel"] == message.channel
    return envelope


# -- golden frames: a change here is a change of the API -----------------------------------------


GOLDEN_STREAM = (
    b'\x81~\x01P{"kind":"jupyter","header":{"msg_id": "k-1", "msg_type": "stream", "session": "s", '
    b'"username": "k", "date": "2025-11-22T19:33:00.000000Z", "version": "5.3"},"parent_header":'
    b'{"msg_id": "c-1", "msg_type": "execute_request", "session": "c"},"channel":"iopub","content":'
    b'{"name": "stdout", "text": "1\\n"},"metadata":{},"buffers":["AAH/",""]}'
)
GOLDEN_STATUS = (
    b'{"kind":"jupyter","header":{"msg_id": "k-1", "msg_type": "status", "session": "s", '
    b'"username": "k", "date": "2025-11-22T19:33:00.000000Z", "version": "5.3"},"parent_header":'
    b'null,"channel":"iopub","content":{"execution_state":"starting"},"metadata":{},"buffers":[]}'
)
GOLDEN_EVENT = b'\x81G{"kind":"kernel","status":{"status":"busy","reason":"execute_request"}}'


def test_a_message_on_the_channel_looks_like_this() -> None:
    message = parsed(
        "stream", b'{"name": "stdout", "text": "1\\n"}', buffers=[b"\x00\x01\xff", b""]
    )
    assert encode(message) == GOLDEN_STREAM


def test_a_message_without_parent_and_buffers_looks_like_this() -> None:
    message = parsed("status", b'{"execution_state":"starting"}', parent=b"{}")
    assert encode(message) == b"\x81~\x01\x08" + GOLDEN_STATUS


def test_a_numbered_message_looks_like_this() -> None:
    message = parsed("status", b'{"execution_state":"starting"}', parent=b"{}")
    numbered = b'\x81~\x01\x11{"seq":17,' + GOLDEN_STATUS[1:]
    assert with_seq(encode(message), 17) == numbered


def test_a_kernel_event_looks_like_this() -> None:
    change = StatusChange(status=Status.BUSY, reason="execute_request")
    assert kernel_event("status", change) == GOLDEN_EVENT


# -- framing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_the_header_fits_every_length(size: int) -> None:
    assert text_of(text_frame(b"x" * size)) == "x" * size


@pytest.mark.parametrize("size", [*SIZES, 5_000_000])
def test_a_message_of_any_size_is_one_frame(size: int) -> None:
    content = json.dumps({"data": "x" * size}).encode()
    envelope = read(parsed(content=content))
    assert len(envelope["content"]["data"]) == size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seq", [1, 10**15])
def test_a_number_goes_before_everything_else(size: int, seq: int) -> None:
    frame = raw_kernel_event("x", b'"%b"' % (b"y" * size))
    numbered = pairs(text_of(with_seq(frame, seq)))
    assert numbered == [("seq", seq), ("kind", "kernel"), ("x", "y" * size)]


def test_frames_can_follow_each_other_in_one_write() -> None:
    written = encode(parsed()) + kernel_event("exited", 0) + encode(parsed())
    assert len(texts(written)) == 3


# -- nothing is changed --------------------------------------------------------------------------


def test_parts_reach_the_client_as_the_kernel_wrote_them() -> None:
    content = b'{"z": 123456789012345678901234567890, "a": 1.10E+5, "\\u00e9": "\\/\\ud83d\\ude00"}'
    metadata = b'{"b": 0.1000, "a": -0, "a": [ ]}'
    text = text_of(encode(parse(Channel.SHELL, signed(metadata=metadata, content=content), SIGNER)))
    assert (
        f'"header":{(HEADER % b"display_data").decode()},"parent_header":{PARENT.decode()},' in text
    )
    assert f'"content":{content.decode()},"metadata":{metadata.decode()},' in text


@pytest.mark.parametrize("channel", Channel)
def test_every_channel_of_the_kernel_is_named(channel: Channel) -> None:
    assert read(parsed(channel=channel))["channel"] == channel.value


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_buffers_are_base64(buffers: list[bytes]) -> None:
    envelope = read(parsed(buffers=buffers))
    assert [base64.b64decode(buffer, validate=True) for buffer in envelope["buffers"]] == buffers


@pytest.mark.parametrize(
    ("content", "meaning"),
    [
        (b'{"a": NaN, "b": [Infinity, -Infinity]}', {"a": None, "b": [None, None]}),
        (b'{"a": "NaN"}', {"a": "NaN"}),
        (b'{"a": "\\ud800"}', {"a": "\ud800"}),
        (b'{"a": "\xed\xb2\x80"}', {"a": "\udc80"}),
        (b'{"a": "\xff"}', {"a": "�"}),
    ],
)
def test_what_strict_json_lacks_is_made_readable(content: bytes, meaning: object) -> None:
    assert read(parsed(content=content))["content"] == meaning


# -- whatever a kernel sends ---------------------------------------------------------------------


BREAK_OUTS = [
    b'{},"channel":"shell"',
    b'{}}{"kind":"kernel"',
    b'{}},"x":{',
    b'{"a":"',
    b'{"a":1}//',
    b'{"a":1}\x00',
    b"{}\n{}",
]
FRAGMENTS = st.sampled_from(
    rb"""{ } [ ] " , : \ \u d800 NaN - Infinity 1 e9 . true null "a" """.split()
) | st.sampled_from(["\xe9".encode(), b"\xff", b"\xed\xa0\x80", b" "])
NOISE = st.lists(FRAGMENTS, max_size=12).map(b"".join) | st.binary(max_size=20)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """JSON as Python writes it, of which some bytes may have been replaced."""
    part = python_json(draw(OBJECTS), ascii_only=draw(st.booleans()))
    start = draw(st.integers(0, len(part)))
    end = draw(st.integers(start, min(len(part), start + 5)))
    return part[:start] + draw(st.just(b"") | NOISE) + part[end:]


PARTS = (
    damaged()
    | NOISE
    | st.sampled_from(BREAK_OUTS)
    | OBJECTS.map(lambda value: python_json(value, ascii_only=False))
)
IDS = st.sampled_from([b'"a"', b'"\\ud800"', b'"\xff"', b'"\\u0061"', b"null", b"1"])
HEADERS = st.builds(
    lambda msg_id, msg_type, more: b'{"msg_id":%b,"msg_type":%b,"x":%b}' % (msg_id, msg_type, more),
    IDS,
    st.sampled_from([b'"stream"', b'"status"', b'"execute_reply"', b'"\\ud800"']),
    PARTS,
)


@given(HEADERS | PARTS, HEADERS | PARTS, PARTS, PARTS)
@example(b'{"msg_id":"a","msg_type":"stream"}', b"null", b"{}", b'{"name":NaN}')
def test_whatever_a_kernel_sends_the_client_gets_one_valid_envelope_or_nothing(
    header: bytes, parent: bytes, metadata: bytes, content: bytes
) -> None:
    try:
        message = parse(Channel.IOPUB, signed(header, parent, metadata, content), SIGNER)
    except WireError:
        return
    envelope = read(message)
    assert isinstance(envelope["header"]["msg_id"], str)
    assert isinstance(envelope["parent_header"], dict | None)
    assert isinstance(envelope["content"], dict)
    assert isinstance(envelope["metadata"], dict)
    assert envelope["parent_header"] != {}
    for word in (message.msg_id, message.msg_type, message.parent_id, message.parent_type or ""):
        assert word.encode().decode() == word


@given(OBJECTS, OBJECTS, st.booleans())
def test_nothing_that_python_kernels_write_is_dropped(
    metadata: dict[str, Any],
    content: dict[str, Any],
    ascii_only: bool,  # noqa: FBT001
) -> None:
    frames = signed(
        metadata=python_json(metadata, ascii_only=ascii_only),
        content=python_json(content, ascii_only=ascii_only),
    )
    envelope = read(parse(Channel.IOPUB, frames, SIGNER))
    assert list(envelope["content"]) == list(json.loads(json.dumps(content)))


# -- kernel events and requests ------------------------------------------------------------------


def test_an_event_has_exactly_one_key_beside_its_kind() -> None:
    text = text_of(kernel_event("output", ("stdout", 'a"\n')))
    assert pairs(text) == [("kind", "kernel"), ("output", ["stdout", 'a"\n'])]


def test_a_path_that_is_no_text_is_told_all_the_same() -> None:
    text = text_of(kernel_event("workingDirChanged", "/here/\udcff"))
    assert strict(text) == {"kind": "kernel", "workingDirChanged": "/here/\udcff"}
    change = StatusChange(status=Status.BUSY, reason="\udcff")
    assert strict(text_of(kernel_event("status", change)))["status"]["reason"] == "\udcff"


@pytest.mark.parametrize("buffers", [[], [b"\x00"], [b"a", b""]])
def test_a_request_in_a_description_is_a_whole_message(buffers: list[bytes]) -> None:
    message = asked(code="1")
    message.buffers.extend(buffers)
    assert strict(request_json(message)) == {
        "header": {"msg_id": "c-1", "msg_type": "execute_request"},
        "parent_header": {},
        "channel": "shell",
        "content": {"code": "1"},
        "metadata": {},
        "buffers": [base64.b64encode(buffer).decode() for buffer in buffers],
    }
