"""Text frames from clients (CONTRACT 5.2): what the kernel gets of them, and what is no use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kallichore.protocol.envelope import Unusable, decode, decode_execute
from kallichore.protocol.lax import without_lone_surrogates
from kallichore.protocol.message import Channel, ClientMessage, ExecuteContent
from tests.protocol.samples import pairs, strict
from tests.protocol.test_lax import OBJECTS

HEADER = {
    "msg_id": "c-1",
    "msg_type": "execute_request",
    "session": "mine",
    "username": "me",
    "date": "yesterday",
    "version": "5.4",
}
NOW = "2025-11-22T19:33:00Z"


def read(text: str) -> ClientMessage:
    return decode(text, session_id="session one", username="user", now=lambda: NOW)


def frame(**parts: Any) -> str:
    """A frame as a client writes it; a part of None is left out."""
    whole = {"header": HEADER, "channel": "shell", "content": {"code": "1"}} | parts
    return json.dumps({name: part for name, part in whole.items() if part is not None})


def header_without(*names: str) -> dict[str, str]:
    return {name: value for name, value in HEADER.items() if name not in names}


# -- what reaches the kernel ---------------------------------------------------------------------


def test_a_whole_message_reaches_the_kernel_byte_by_byte() -> None:
    header = (
        '{"version":"5.4","msg_id":"\\u0063-1" , "more":1.50,"msg_type":"comm_msg",'
        '"session":"m","username":"\\/","date":"d"}'
    )
    content, metadata, parent = '{"b": 1E400, "a":[ ]}', '{"x":12345678901234567890}', '{"é":1}'
    message = read(
        f'{{"kind":"jupyter","content":{content},"header":{header},"metadata": {metadata} ,'
        f'"parent_header":{parent},"channel":"shell","buffers":["AAH/",""],"seq":5}}'
    )
    assert (message.channel, message.msg_id, message.msg_type) == (Channel.SHELL, "c-1", "comm_msg")
    assert message.header == header.encode()
    assert message.content == content.encode()
    assert message.metadata == metadata.encode()
    assert message.parent_header == parent.encode()
    assert message.buffers == [b"\x00\x01\xff", b""]


@pytest.mark.parametrize("channel", ["shell", "control"])
def test_requests_to_execute_go_to_shell_and_control(channel: str) -> None:
    assert read(frame(channel=channel)).channel == channel


def test_an_answer_to_input_goes_to_stdin() -> None:
    header = HEADER | {"msg_type": "input_reply"}
    assert read(frame(header=header, channel="stdin")).channel is Channel.STDIN


@pytest.mark.parametrize("part", ["parent_header", "metadata", "buffers"])
@pytest.mark.parametrize("written", [None, "null", "empty"])
def test_empty_parts_are_as_good_as_none(part: str, written: str | None) -> None:
    empty = "[]" if part == "buffers" else "{}"
    text = frame()
    if written is not None:
        text = f'{text[:-1]},"{part}":{written.replace("empty", empty)}}}'
    message = read(text)
    assert (message.parent_header, message.metadata, message.buffers) == (b"{}", b"{}", [])


def test_a_frame_without_content_has_an_empty_one() -> None:
    assert read(frame(content=None)).content == b"{}"


def test_missing_header_fields_are_filled_in_behind_those_given() -> None:
    header = header_without("session", "username", "date", "version")
    message = read(frame(header=header))
    assert pairs(message.header) == [
        ("msg_id", "c-1"),
        ("msg_type", "execute_request"),
        ("username", "user"),
        ("session", "session one"),
        ("date", NOW),
        ("version", "5.3"),
    ]


@pytest.mark.parametrize("name", ["session", "username", "date", "version"])
def test_each_missing_field_is_filled_in_and_the_others_stay(name: str) -> None:
    written = json.dumps(header_without(name)).encode()
    message = read(frame(header=header_without(name)))
    assert message.header.startswith(written[:-1])
    filled = {"session": "session one", "username": "user", "date": NOW, "version": "5.3"}
    assert strict(message.header) == HEADER | {name: filled[name]}


@pytest.mark.parametrize("value", [None, 5, ["list"], {"a": 1}])
def test_header_fields_of_another_type_are_the_kernels_to_judge(value: object) -> None:
    header = HEADER | {"date": value, "username": value}
    assert strict(read(frame(header=header)).header) == header


def test_the_time_is_asked_for_only_when_it_is_missing() -> None:
    def never() -> str:
        raise AssertionError

    assert decode(frame(), session_id="s", username="u", now=never).msg_id == "c-1"


@pytest.mark.parametrize(
    ("code", "kernel_reads"),
    [
        ("print('\ud800')", "print('�')"),
        ("\udc00\ud800", "��"),
        ("'\U0001f600' \ud800 '\\ud800'", "'\U0001f600' � '\\ud800'"),
    ],
)
def test_half_a_surrogate_pair_does_not_cost_the_message(code: str, kernel_reads: str) -> None:
    """JavaScript strings may hold them, and `JSON.stringify` writes them as escapes."""
    message = read(frame(content={"code": code}))
    assert strict(message.content) == {"code": kernel_reads}
    assert decode_execute(message.content).code == kernel_reads


def test_half_a_surrogate_pair_may_be_anywhere() -> None:
    header = HEADER | {"msg_id": "\ud800", "username": "\udc00"}
    message = read(frame(header=header, metadata={"\ud800": 1}))
    assert message.msg_id == "�"
    assert strict(message.header)["username"] == "�"
    assert strict(message.metadata) == {"�": 1}


# -- what is no use ------------------------------------------------------------------------------


USELESS = {
    "nothing": ("", "truncated"),
    "no header at all": ("{}", "header"),
    "a list": ("[]", "Expected `object`"),
    "no JSON": ("nonsense", "malformed"),
    "something behind it": (frame() + "x", "malformed"),
    "half of it": (frame()[:-1], "truncated"),
    "NaN": (frame().replace('"1"', "NaN"), "malformed"),
    "half of it and of a surrogate pair": (frame().replace('"1"', '"\\ud800"')[:-1], "truncated"),
    "without header": (frame(header=None), "header"),
    "empty header": (frame(header={}), "msg_id"),
    "header of another type": (frame(header=[]), "Expected `object`"),
    "without type": (frame(header=header_without("msg_type")), "msg_type"),
    "id of another type": (frame(header=HEADER | {"msg_id": 5}), "msg_id"),
    "empty id": (frame(header=HEADER | {"msg_id": ""}), "msg_id is empty"),
    "without channel": (frame(channel=None), "channel"),
    "channel of another type": (frame(channel=5), "channel"),
    "iopub": (frame(channel="iopub"), 'on the channel "iopub"'),
    "heartbeat": (frame(channel="heartbeat"), 'on the channel "heartbeat"'),
    "execution on stdin": (
        frame(channel="stdin"),
        'execute_request cannot be sent on the channel "stdin"',
    ),
    "content of a list": (frame(content=[]), "not a JSON object"),
    "content of a string": (frame(content="{}"), "not a JSON object"),
    "metadata of a number": (frame(metadata=5), "not a JSON object"),
    "parent of a list": (frame(parent_header=[]), "not a JSON object"),
    "buffers of an object": (frame(buffers={}), "buffers"),
    "buffer of a number": (frame(buffers=[5]), "buffers"),
    "base64 without padding": (frame(buffers=["YQ"]), "base64"),
    "buffers without end": (frame(buffers=[""] * 10_001), "10000"),
    "no base64": (frame(buffers=["!!!!"]), "base64"),
    "base64 with a newline": (frame(buffers=["YQ==\n"]), "base64"),
    "deep content": (
        frame(content={"a": 1}).replace("1}", "[" * 100_000 + "]" * 100_000 + "}"),
        "deep",
    ),
    "deep and not closed": ('{"header":' + "[" * 100_000, "deep"),
    "deep all over": ('{"a":' * 100_000 + "1" + "}" * 100_000, "deep"),
}


@pytest.mark.parametrize("what", USELESS)
def test_a_frame_of_no_use_is_refused_with_a_reason(what: str) -> None:
    text, why = USELESS[what]
    with pytest.raises(Unusable, match=why):
        read(text)


def test_buffers_may_be_written_with_escapes() -> None:
    """Some JSON encoders escape every slash."""
    text = frame(buffers=["////", "AAAA"]).replace("////", r"\/\u002f\/\/")
    assert read(text).buffers == [b"\xff\xff\xff", bytes(3)]


def test_a_content_of_null_is_not_an_object() -> None:
    with pytest.raises(Unusable, match="not a JSON object"):
        read(frame().replace('{"code": "1"}', "null"))


@given(st.text(max_size=60))
def test_no_text_whatever_raises_anything_else(text: str) -> None:
    with pytest.raises(Unusable):
        read(text)


JSON_VALUES = OBJECTS | st.none() | st.integers() | st.text() | st.lists(st.text(), max_size=3)


@given(
    st.dictionaries(
        st.sampled_from(["header", "channel", "content", "metadata", "parent_header", "buffers"]),
        JSON_VALUES | st.sampled_from(["shell", "stdin"]) | st.just(HEADER),
    )
)
def test_no_json_whatever_raises_anything_else(parts: dict[str, object]) -> None:
    try:
        message = read(json.dumps(parts))
    except Unusable:
        return
    for part in (message.header, message.parent_header, message.metadata, message.content):
        assert isinstance(strict(part), dict)


@given(OBJECTS, OBJECTS, OBJECTS)
def test_what_a_client_may_say_arrives(
    header: dict[str, Any], content: dict[str, Any], metadata: dict[str, Any]
) -> None:
    text = frame(header=header | HEADER, content=content, metadata=metadata)
    assume("NaN" not in text and "Infinity" not in text)
    message = read(text)
    parts = {"header": message.header, "content": message.content, "metadata": message.metadata}
    read_by_kernel = {name: strict(part) for name, part in parts.items()}
    said = strict(without_lone_surrogates(text.encode()))
    assert said == read_by_kernel | {"channel": "shell"}


# -- what the server reads of a request ----------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "read_as"),
    [
        (b'{"code":"1","silent":true}', ExecuteContent("1", silent=True)),
        (b'{"code":"1","store_history":false}', ExecuteContent("1", store_history=False)),
        (b'{"code":"1","stop_on_error":false}', ExecuteContent("1", stop_on_error=False)),
        (
            b'{"code":"1","silent":"no","stop_on_error":false}',
            ExecuteContent("1", stop_on_error=False),
        ),
        (b'{"code":5,"silent":true}', ExecuteContent("", silent=True)),
        (b"{}", ExecuteContent()),
    ],
)
def test_a_request_is_read_as_far_as_it_is_as_specified(
    content: bytes, read_as: ExecuteContent
) -> None:
    assert decode_execute(content) == read_as
