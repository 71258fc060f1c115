"""What is kept of one execution: whole and bounded for `/execute`, clipped for the history."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kallichore.models import ExecuteReply, ExecutionHistoryEntry
from kallichore.protocol.envelope import decode_execute
from kallichore.protocol.execution import ClippedText, Execution, Origin
from tests.protocol.samples import asked, parsed
from tests.protocol.test_lax import OBJECTS, python_json

AT = 1_763_840_000_000


def execution(
    *,
    code: str = "1",
    injected: bool = True,
    metadata: object = None,
    output_bytes: int = 10_000,
    history_bytes: int = 4096,
) -> Execution:
    message = msgspec.structs.replace(
        asked(code=code), metadata=json.dumps(metadata or {}).encode()
    )
    return Execution(
        message,
        decode_execute(message.content),
        Origin(AT, injected),
        history_bytes=history_bytes,
        output_bytes=output_bytes,
    )


def feed(one: Execution, *messages: tuple[str, Any]) -> Execution:
    for msg_type, content in messages:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        if msg_type == "execute_reply":
            one.replied(parsed(msg_type, raw).content)
        else:
            one.observe(parsed(msg_type, raw))
    return one


def answer(one: Execution) -> dict[str, Any]:
    text = msgspec.json.encode(one.result())
    msgspec.json.decode(text, type=ExecuteReply)
    found: dict[str, Any] = msgspec.json.decode(text)
    return found


def entry(one: Execution) -> dict[str, Any]:
    text = msgspec.json.encode(one.history_entry())
    msgspec.json.decode(text, type=ExecutionHistoryEntry)
    found: dict[str, Any] = msgspec.json.decode(text)
    return found


STREAM = ("stream", {"name": "stdout", "text": "a\n"})
OK = ("execute_reply", {"status": "ok", "execution_count": 3})
ERROR = {"ename": "ValueError", "evalue": "bad", "traceback": ["line 1", "line 2"]}
FAILED = ("execute_reply", {"status": "error", "execution_count": 4, **ERROR})


# -- when it is over -----------------------------------------------------------------------------


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("messages", [[], [OK]])
def test_an_execution_is_finished_by_its_reply_and_its_idle(
    idle: bool,  # noqa: FBT001
    messages: list[tuple[str, Any]],
) -> None:
    one = feed(execution(), *messages)
    one.idle = idle
    assert one.finished == (idle and bool(messages))


# -- for the caller of /execute ------------------------------------------------------------------


def test_the_caller_gets_the_outputs_in_order() -> None:
    one = feed(
        execution(),
        STREAM,
        ("stream", {"name": "stdout", "text": "b\n"}),
        ("stream", {"name": "stderr", "text": "c"}),
        ("execute_input", {"code": "1", "execution_count": 3}),
        ("display_data", {"data": {"text/plain": "d"}, "metadata": {"m": 1.50}}),
        ("update_display_data", {"data": {"text/plain": "e"}}),
        ("execute_result", {"data": {"text/plain": "3", "application/json": {"a": [1, 2]}}}),
        OK,
    )
    assert answer(one) == {
        "status": "ok",
        "execution_count": 3,
        "output": [
            {"type": "stream", "stream_name": "stdout", "text": "a\nb\n"},
            {"type": "stream", "stream_name": "stderr", "text": "c"},
            {"type": "display_data", "data": {"text/plain": "d"}, "metadata": {"m": 1.50}},
            {"type": "display_data", "data": {"text/plain": "e"}, "metadata": {}},
        ],
        "data": {"text/plain": "3", "application/json": '{"a": [1, 2]}'},
    }


def test_the_caller_gets_an_error_as_output_and_as_outcome() -> None:
    told = answer(feed(execution(), STREAM, ("error", ERROR), FAILED))
    assert told["output"][1] == {
        "type": "error",
        "error_name": "ValueError",
        "error_message": "bad",
        "error_traceback": ["line 1", "line 2"],
    }
    assert (told["status"], told["execution_count"]) == ("error", 4)
    assert (told["error_name"], told["error_message"]) == ("ValueError", "bad")
    assert told["error_traceback"] == ["line 1", "line 2"]


@pytest.mark.parametrize("messages", [[], [("execute_reply", {"status": "aborted"})]])
def test_what_was_aborted_is_an_error_with_a_name(messages: list[tuple[str, Any]]) -> None:
    told = answer(feed(execution(), *messages))
    assert (told["status"], told["error_name"]) == ("error", "Aborted")
    assert told["error_message"] == "The execution was aborted"
    assert told["execution_count"] == 0


def test_an_error_without_words_stays_without() -> None:
    told = answer(feed(execution(), ("execute_reply", {"status": "error"})))
    assert (told["status"], told["error_name"], told["error_message"]) == ("error", "", "")


@pytest.mark.parametrize(
    "odd",
    [{"traceback": None}, {"ename": 5}, {"execution_count": "x"}, {"traceback": ["a", 5]}],
)
def test_an_error_with_an_odd_field_is_an_error_all_the_same(odd: dict[str, object]) -> None:
    told = answer(feed(execution(), ("execute_reply", {"status": "error", **ERROR, **odd})))
    assert told["status"] == "error"
    assert told["error_message"] == "bad"


def test_a_stream_of_another_name_goes_on_as_stdout() -> None:
    one = feed(execution(), ("stream", {"name": "log", "text": "a"}), STREAM)
    assert answer(one)["output"] == [{"type": "stream", "stream_name": "stdout", "text": "aa\n"}]


def test_outputs_beyond_the_bound_are_left_out_and_nothing_follows_them() -> None:
    big = ("display_data", {"data": {"text/plain": "x" * 300}})
    one = execution(output_bytes=200)
    feed(one, STREAM, big, STREAM, ("error", ERROR), ("execute_result", big[1]), FAILED)
    told = answer(one)
    assert told["output"] == [{"type": "stream", "stream_name": "stdout", "text": "a\n"}]
    assert "data" not in told
    assert told["error_name"] == "ValueError"


def test_a_client_s_own_execution_keeps_no_outputs_for_anybody() -> None:
    told = answer(feed(execution(injected=False), STREAM, ("execute_result", {"data": {"a": "b"}})))
    assert told["output"] == []


@pytest.mark.parametrize(
    "value",
    ["9" * 5000, "1e999", "[" * 500 + "]" * 500, '{"a": 1.10}', "null", "true", '[ "\\u00e9" ]'],
    ids=lambda value: value[:12],
)
def test_data_that_is_no_text_is_told_as_the_json_it_is(value: str) -> None:
    one = feed(execution(), ("execute_result", b'{"data": {"a": %b}}' % value.encode()), OK)
    assert one.result().data == {"a": value}


def test_text_with_half_a_surrogate_pair_is_kept() -> None:
    one = feed(
        execution(),
        ("stream", b'{"name": "stdout", "text": "a\\udc80b"}'),
        ("execute_result", b'{"data": {"text/plain": "\\ud800", "b": {"c": "\\ud800"}}}'),
        OK,
    )
    told = answer(one)
    assert told["output"][0]["text"] == "a�b"
    assert told["data"] == {"text/plain": "�", "b": '{"c": "\\ufffd"}'}
    assert entry(one)["output"] == "a�b�"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["stream", "display_data", "execute_result", "error", "execute_reply"]),
            OBJECTS
            | st.fixed_dictionaries({"data": OBJECTS, "metadata": OBJECTS})
            | st.fixed_dictionaries({"name": st.text(), "text": st.text(st.characters())})
            | st.fixed_dictionaries(
                {"status": st.sampled_from(["ok", "error"]), "ename": st.text()}
            ),
        ),
        max_size=6,
    )
)
def test_no_content_whatever_keeps_it_from_an_answer(messages: list[tuple[str, Any]]) -> None:
    one = execution()
    for msg_type, content in messages:
        feed(one, (msg_type, python_json(content, ascii_only=True)))
    assert answer(one)["status"] in {"ok", "error"}
    assert entry(one)["timestamp"] == AT


# -- for the history -----------------------------------------------------------------------------


def test_the_history_remembers_input_output_and_when() -> None:
    one = execution(code="print(1)", injected=False)
    feed(one, STREAM, ("execute_result", {"data": {"text/plain": "3", "text/html": "<b>"}}), OK)
    assert entry(one) == {
        "input": "print(1)",
        "output": "a\n3",
        "timestamp": AT,
        "truncated": False,
    }


@pytest.mark.parametrize("messages", [[("error", ERROR), FAILED], [FAILED], [("error", ERROR)]])
def test_the_history_remembers_an_error(messages: list[tuple[str, Any]]) -> None:
    remembered = entry(feed(execution(), *messages))
    assert remembered["error"] == {
        "name": "ValueError",
        "message": "bad",
        "traceback": ["line 1", "line 2"],
    }


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"attribution": {"source": "agent", "agent_name": "bot"}}, ("agent", "bot")),
        ({"attribution": {"source": "agent"}}, ("agent", None)),
        ({"attribution": {"source": 5, "agent_name": "bot"}}, (None, None)),
        ({"attribution": None}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_the_history_remembers_who_asked(
    metadata: object, expected: tuple[str | None, str | None]
) -> None:
    remembered = entry(execution(metadata=metadata))
    assert (remembered.get("source"), remembered.get("agent")) == expected


@pytest.mark.parametrize("part", ["input", "output", "name", "message", "traceback"])
def test_the_history_clips_each_part_by_itself(part: str) -> None:
    big = "x" * 1000
    error = {
        "ename": big if part == "name" else "E",
        "evalue": big if part == "message" else "v",
        "traceback": [big if part == "traceback" else "t", "u"],
    }
    one = execution(code=big if part == "input" else "c", history_bytes=100)
    text = big if part == "output" else "o"
    feed(one, ("stream", {"name": "stdout", "text": text}), ("error", error))
    remembered = entry(one)
    assert remembered["truncated"] is True
    clipped = remembered | remembered["error"]
    kept = clipped[part] if part != "traceback" else clipped[part][0]
    assert "bytes omitted" in kept
    assert len(kept) < 200
    whole = {"input": "c", "output": "o", "name": "E", "message": "v", "traceback": ["t", "u"]}
    others = {name: text for name, text in whole.items() if name != part}
    assert {name: clipped[name] for name in others} == others


# -- clipping ------------------------------------------------------------------------------------


def test_clipped_text_keeps_the_first_and_the_last_half() -> None:
    clipped = ClippedText(10)
    for piece in ("0123", "456789abc", "", "def"):
        clipped.add(piece)
    assert clipped.clipped
    assert clipped.text() == "01234\n[... 6 bytes omitted ...]\nbcdef"


def test_text_up_to_the_limit_is_whole() -> None:
    clipped = ClippedText(10)
    clipped.add("01234")
    clipped.add("56789")
    assert not clipped.clipped
    assert clipped.text() == "0123456789"


def test_text_is_clipped_between_characters() -> None:
    clipped = ClippedText(10)
    clipped.add("€" * 10)
    assert clipped.text() == "€\n[... 24 bytes omitted ...]\n€"


@given(st.lists(st.text(max_size=30), max_size=20), st.integers(1, 40))
def test_clipping_piece_by_piece_is_clipping_the_whole(pieces: list[str], limit: int) -> None:
    by_pieces, at_once = ClippedText(limit), ClippedText(limit)
    for piece in pieces:
        by_pieces.add(piece)
    whole = "".join(pieces)
    at_once.add(whole)
    assert by_pieces.text() == at_once.text()
    assert by_pieces.clipped == (len(whole.encode()) > limit)
    if by_pieces.clipped:
        first, _, rest = by_pieces.text().partition("\n[... ")
        omitted, _, last = rest.partition(" bytes omitted ...]\n")
        assert whole.startswith(first)
        assert whole.endswith(last)
        assert len(first.encode()) + int(omitted) + len(last.encode()) == len(whole.encode())
    else:
        assert by_pieces.text() == whole


def test_a_long_text_in_small_pieces_costs_little_memory() -> None:
    clipped = ClippedText(100)
    for _ in range(10_000):
        clipped.add("0123456789")
    assert len(clipped._head) + len(clipped._tail) <= 100 + 400 + 10
    assert clipped.text().endswith("0123456789")
