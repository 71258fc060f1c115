"""Signed ZeroMQ frames to messages and back (CONTRACT 6)."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kallichore.protocol.message import Channel
from kallichore.protocol.wire import (
    BadSignature,
    Malformed,
    Signer,
    WireError,
    check_object,
    parse,
    serialize,
)
from tests.protocol.samples import HEADER, KEY, PARENT, SIGNER, asked, signed

BUFFERS = [b"", b"\x00\xff", b"<IDS|MSG>"]


def message_of(frames: list[bytes], signer: Signer = SIGNER) -> list[object]:
    message = parse(Channel.IOPUB, frames, signer)
    return [message.msg_id, message.msg_type, message.parent_id, message.parent_type]


# -- what comes from a kernel --------------------------------------------------------------------


def test_a_message_keeps_its_parts_byte_by_byte() -> None:
    metadata, content = (
        b'{ "z": 1,\n"a": 2 }',
        b'{"data":{"text/plain":"\xc3\xa9 \\u00e9"},"a":1.0}',
    )
    frames = signed(metadata=metadata, content=content, buffers=BUFFERS)
    message = parse(Channel.IOPUB, frames, SIGNER)
    assert message.channel is Channel.IOPUB
    assert (message.msg_id, message.msg_type) == ("k-1", "display_data")
    assert (message.parent_id, message.parent_type) == ("c-1", "execute_request")
    assert message.header == HEADER % b"display_data"
    assert message.parent_header == PARENT
    assert (message.metadata, message.content) == (metadata, content)
    assert message.buffers == BUFFERS
    assert message.detail == ""


@pytest.mark.parametrize("identities", [[], [b"topic"], [b"", b"two", b"three"]])
def test_any_number_of_identities_goes_before_the_delimiter(identities: list[bytes]) -> None:
    assert message_of(signed(identities=identities))[0] == "k-1"


@pytest.mark.parametrize("parent", [b"{}", b"null", b" { } ", b"\n null\t"])
def test_an_empty_parent_header_becomes_null(parent: bytes) -> None:
    message = parse(Channel.SHELL, signed(parent=parent), SIGNER)
    assert (message.parent_header, message.parent_id, message.parent_type) == (b"null", "", None)


@pytest.mark.parametrize(
    ("parent", "origin"),
    [
        (b'{"session": "s"}', ["", None]),
        (b'{"msg_id": ""}', ["", None]),
        (b'{"msg_id": null, "msg_type": "x"}', ["", "x"]),
        (b'{"msg_id": "c-1", "msg_type": 5}', ["c-1", None]),
        (b'{"msg_id": "c-1"}', ["c-1", None]),
    ],
)
def test_a_parent_header_of_another_shape_is_passed_on_all_the_same(
    parent: bytes, origin: list[str | None]
) -> None:
    message = parse(Channel.IOPUB, signed(parent=parent), SIGNER)
    assert message.parent_header == parent
    assert [message.parent_id, message.parent_type] == origin


def test_the_last_of_repeated_keys_counts_as_it_does_for_clients() -> None:
    header = b'{"msg_id": "first", "msg_id": "last", "msg_type": "x", "msg_type": "stream"}'
    content = b'{"name": "odd", "name": "stderr"}'
    message = parse(Channel.IOPUB, signed(header, content=content), SIGNER)
    assert (message.msg_id, message.msg_type, message.detail) == ("last", "stream", "stderr")
    assert (message.header, message.content) == (header, content)


@pytest.mark.parametrize(
    ("msg_type", "content", "detail"),
    [
        ("stream", b'{"name": "stderr", "text": "a"}', "stderr"),
        ("stream", b'{"text": "a"}', ""),
        ("stream", b'{"name": 5}', ""),
        ("stream", b'{"name": "stdout", "text": "\\udc80"}', "stdout"),
        ("status", b'{"execution_state": "busy"}', "busy"),
        ("status", b'{"execution_state": null}', ""),
        ("status", b'{"execution_state": "idle", "since": NaN}', "idle"),
        ("status", b"{}", ""),
        ("execute_result", b'{"name": "stderr"}', ""),
        ("execute_result", b'{"name": NaN}', ""),
    ],
)
def test_one_word_of_a_content_is_read_along(msg_type: str, content: bytes, detail: str) -> None:
    frames = signed(HEADER % msg_type.encode(), content=content)
    assert parse(Channel.IOPUB, frames, SIGNER).detail == detail


def test_white_space_around_a_part_goes() -> None:
    message = parse(Channel.IOPUB, signed(metadata=b" {}\n", content=b'\t{"a": 1}'), SIGNER)
    assert (message.metadata, message.content) == (b"{}", b'{"a": 1}')


# -- signatures ----------------------------------------------------------------------------------


def test_the_signature_is_the_one_of_the_specification() -> None:
    expected = hmac.new(KEY.encode(), b"abcd", hashlib.sha256).hexdigest()
    assert SIGNER.sign(b"abcd") == expected.encode()
    assert SIGNER.verify(b"abcd", expected.encode())


@pytest.mark.parametrize("length", [1, 32, 63, 64, 65, 200])
def test_a_key_of_any_length_signs_as_in_the_standard_library(length: int) -> None:
    key = (KEY * 20)[:length]
    for signed_bytes in (b"", b"abcd", b"a" * 10_000):
        expected = hmac.new(key.encode(), signed_bytes, hashlib.sha256).hexdigest()
        assert Signer(key).sign(signed_bytes) == expected.encode()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'{"name": "stdout", "text": "a\\n\\u00e9"}', "a\n\u00e9"),
        (b'{"name": "stdout"}', ""),
        (b'{"name": "stdout", "text": 5}', ""),
        (b'{"name": 5, "text": "a"}', "a"),
        (b'{"name": "stdout", "text": "a\\ud800"}', "a\ufffd"),
    ],
)
def test_the_text_of_a_stream_is_read_along(content: bytes, text: str) -> None:
    frames = signed(HEADER % b"stream", content=content)
    message = parse(Channel.IOPUB, frames, SIGNER)
    assert (message.text, message.content) == (text, content)


def test_signing_leaves_no_trace_for_the_next_one() -> None:
    assert SIGNER.sign(b"a") == SIGNER.sign(b"a") != SIGNER.sign(b"b")


@pytest.mark.parametrize(
    ("signature", "why"),
    [
        (b"", "unsigned"),
        (b"0" * 64, "wrong signature"),
        (SIGNER.sign(b"something else"), "wrong signature"),
        (b"\xff\x00", "wrong signature"),
    ],
)
def test_unsigned_and_wrongly_signed_messages_are_refused(signature: bytes, why: str) -> None:
    with pytest.raises(BadSignature, match=why):
        message_of(signed(signature=signature))


def test_a_signature_in_upper_case_is_wrong() -> None:
    frames = signed()
    frames[2] = frames[2].upper()
    with pytest.raises(BadSignature):
        message_of(frames)


@pytest.mark.parametrize("part", range(3, 7))
def test_a_changed_part_no_longer_fits_its_signature(part: int) -> None:
    frames = signed()
    frames[part] += b" "
    with pytest.raises(BadSignature):
        message_of(frames)


def test_buffers_are_not_signed() -> None:
    assert message_of([*signed(), b"added"])[0] == "k-1"


def test_an_empty_key_switches_signing_off() -> None:
    unsigned = Signer("")
    assert unsigned.sign(b"anything") == b""
    assert message_of(signed(signature=b""), unsigned)[0] == "k-1"
    assert message_of(signed(signature=b"whatever"), unsigned)[0] == "k-1"


# -- what is no message --------------------------------------------------------------------------


def test_a_message_without_a_delimiter_is_malformed() -> None:
    frames = [frame for frame in signed() if frame != b"<IDS|MSG>"]
    with pytest.raises(Malformed, match="delimiter"):
        message_of(frames)


@pytest.mark.parametrize("count", range(7))
def test_too_few_frames_are_malformed(count: int) -> None:
    with pytest.raises(Malformed):
        message_of(signed()[:count])


@pytest.mark.parametrize(
    "header",
    [b"", b"{}", b"[]", b"null", b'{"msg_id": "a"}', b'{"msg_id": 1, "msg_type": "a"}', b"\xff"],
)
def test_a_header_without_id_and_type_is_malformed(header: bytes) -> None:
    with pytest.raises(Malformed):
        message_of(signed(header))


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"{}"',
        b"5",
        b"{",
        b'{"a"}',
        b"{} {}",
        b'{},"channel":"shell"',
        b'{}},"kind":"kernel"',
        b'{"a": 01}',
        b'{"a": "\x01"}',
        b'{"a": "\\x"}',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"\x00",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda part: str(part[:20]),
)
@pytest.mark.parametrize("name", ["metadata", "content"])
@pytest.mark.parametrize("msg_type", [b"display_data", b"stream"])
def test_a_part_that_is_no_json_object_is_malformed(
    part: bytes, name: str, msg_type: bytes
) -> None:
    parts = {"metadata": b"{}", "content": b"{}"} | {name: part}
    with pytest.raises(Malformed):
        message_of(signed(HEADER % msg_type, **parts))  # type: ignore[arg-type]


def test_an_object_is_told_from_other_json_by_its_first_character() -> None:
    assert check_object(b" {}\r\n") == b"{}"
    with pytest.raises(Malformed):
        check_object(b"  ")


@given(st.lists(st.binary(max_size=30), max_size=9))
def test_no_frames_whatever_raise_anything_else(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        parse(Channel.SHELL, frames, SIGNER)


@given(st.lists(st.binary(max_size=30) | st.just(b"{}"), min_size=4, max_size=6))
def test_no_rightly_signed_parts_raise_anything_else(parts: list[bytes]) -> None:
    header, parent, metadata, content, *buffers = parts
    with pytest.raises(Malformed):
        message_of(signed(header, parent, metadata, content, buffers=buffers))


# -- what goes to a kernel -----------------------------------------------------------------------


def test_a_request_goes_to_the_kernel_as_the_client_wrote_it() -> None:
    message = asked(code="1")
    frames = serialize(message, SIGNER)
    assert frames == [
        b"<IDS|MSG>",
        SIGNER.sign(message.header + b"{}{}" + message.content),
        message.header,
        b"{}",
        b"{}",
        message.content,
    ]


@given(st.binary(max_size=20), st.lists(st.binary(max_size=20), max_size=3))
def test_what_is_written_can_be_read_again(code: bytes, buffers: list[bytes]) -> None:
    message = asked(code=code.hex())
    message.buffers.extend(buffers)
    read = parse(message.channel, serialize(message, SIGNER), SIGNER)
    assert (read.header, read.content, read.buffers) == (
        message.header,
        message.content,
        message.buffers,
    )
    assert message.size == sum(map(len, serialize(message, SIGNER)[2:]))
    assert json.loads(read.content)["code"] == code.hex()
