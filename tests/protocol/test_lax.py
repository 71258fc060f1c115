"""JSON as peers really write it, made strict, and read as far as it goes."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from kallichore.protocol.lax import (
    JSON_ERRORS,
    lenient,
    renamed_stream,
    repair,
    without_lone_surrogates,
)
from tests.protocol.samples import pairs, strict

ANY_TEXT = st.text(st.characters(), max_size=20)
"""With lone surrogates."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(ANY_TEXT, VALUES, max_size=5)


def python_json(value: object, *, ascii_only: bool) -> bytes:
    """What a Python kernel may send for a value."""
    return json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


def without_constants(value: Any) -> Any:
    """The value with null for NaN and infinities."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [without_constants(item) for item in value]
    if isinstance(value, dict):
        return {key: without_constants(item) for key, item in value.items()}
    return value


# -- repairing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "repaired"),
    [
        (b'{"a": NaN}', b'{"a": null}'),
        (b'{"a": [Infinity, -Infinity,NaN]}', b'{"a": [null, null,null]}'),
        (b'{"NaN": "NaN -Infinity \\" NaN"}', b'{"NaN": "NaN -Infinity \\" NaN"}'),
        (b'{"a\\\\": NaN, "b": "\\\\"}', b'{"a\\\\": null, "b": "\\\\"}'),
        (b'{"a": "\xed\xa0\x80"}', b'{"a": "\\ud800"}'),
        (b'{"a": "\xed\xa0\xbd\xed\xb8\x80"}', b'{"a": "\\ud83d\\ude00"}'),
        (b'{"a": "\\udc80"}', b'{"a": "\\udc80"}'),
        (b'{"a": "\xff\xc3"}', '{"a": "��"}'.encode()),
        (b' {"b": 1.50, "a":1E400, "c":NaN}\r\n', b'{"b": 1.50, "a":1E400, "c":null}'),
        (b'{"a": NaN, "a": 1}', b'{"a": null, "a": 1}'),
        (b'{"a": %b, "b": NaN}' % (b"7" * 5000), b'{"a": %b, "b": null}' % (b"7" * 5000)),
    ],
    ids=lambda part: str(part[:24]),
)
def test_only_what_is_not_strict_changes(part: bytes, repaired: bytes) -> None:
    assert repair(part) == repaired
    assert repair(repaired) == repaired


@given(OBJECTS, st.booleans())
def test_whatever_python_writes_becomes_strict_and_says_the_same(
    value: dict[str, Any],
    ascii_only: bool,  # noqa: FBT001
) -> None:
    written = python_json(value, ascii_only=ascii_only)
    assert strict(repair(written)) == without_constants(json.loads(json.dumps(value)))


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_anything_else_is_refused_with_the_declared_errors(part: bytes) -> None:
    try:
        repaired = repair(part)
    except JSON_ERRORS:
        return
    assert isinstance(strict(repaired), dict)


@pytest.mark.parametrize(
    "part", [b"[NaN]", b"NaN", b"", b'{"a": nan}', b'{"a": --Infinity}', b'{"a": InfinityNaN}']
)
def test_what_even_python_refuses_stays_refused(part: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (json's and our own)
        repair(part)


def test_depth_is_bounded() -> None:
    with pytest.raises(RecursionError):
        repair(b'{"a":' * 100_000 + b"NaN" + b"}" * 100_000)


# -- surrogates ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r'"\ud800"', r'"\ufffd"'),
        (r'"\uDFFF\uD800"', r'"\ufffd\ufffd"'),
        (r'"\ud83d\ude00"', r'"\ud83d\ude00"'),
        (r'"\uD83D\uDE00\uDE00"', r'"\uD83D\uDE00\ufffd"'),
        (r'"\ud800\ud83d\ude00"', r'"\ufffd\ud83d\ude00"'),
        (r'"\\ud800"', r'"\\ud800"'),
        (r'"\\\ud800"', r'"\\\ufffd"'),
        (r'"\ud800\\udc00"', r'"\ufffd\\udc00"'),
        (r'"\u0041\"\n"', r'"\u0041\"\n"'),
        ('"plain"', '"plain"'),
    ],
)
def test_half_a_surrogate_pair_reads_as_the_replacement_character(written: str, read: str) -> None:
    assert without_lone_surrogates(written.encode()).decode() == read


@given(ANY_TEXT)
def test_all_text_can_be_encoded_after_that(text: str) -> None:
    read = json.loads(without_lone_surrogates(json.dumps(text).encode()))
    assert read == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert read.encode().decode() == read


# -- reading leniently ---------------------------------------------------------------------------


class Content(Struct, frozen=True):
    """Something to read."""

    text: str = "default"
    count: int = -1
    named: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict, name="data")


@pytest.mark.parametrize(
    ("content", "text", "count"),
    [
        (b'{"text": "a", "count": 2}', "a", 2),
        (b'{"text": null, "count": 2, "more": 3}', "default", 2),
        (b'{"text": "a", "count": "2"}', "a", -1),
        (b'{"text": "\\ud800a", "count": 2}', "�a", 2),
        (b'{"text": "a", "count": %b}' % (b"9" * 5000), "a", -1),
        (b"[]", "default", -1),
        (b"{", "default", -1),
        (b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "default", -1),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_field_of_another_shape_costs_only_itself(content: bytes, text: str, count: int) -> None:
    read = lenient(content, Content)
    assert (read.text, read.count) == (text, count)


def test_fields_are_found_by_their_names_in_json() -> None:
    named = lenient(b'{"text": 1, "data": {"a": [1.0]}}', Content).named
    assert {key: bytes(value) for key, value in named.items()} == {"a": b"[1.0]"}


# -- renaming a stream ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "renamed"),
    [
        (b'{"name":"log","text":"a"}', b'{"name":"stdout","text":"a"}'),
        (b'{ "text" : "a,b:c}" , "name" : "log" }', b'{ "text" : "a,b:c}" , "name" :"stdout"}'),
        (b'{"name":{"name":"log"},"x":[{"name":1}]}', b'{"name":"stdout","x":[{"name":1}]}'),
        (b'{"name":"a","name":"b"}', b'{"name":"stdout","name":"stdout"}'),
        (
            b'{"text":"name","x":"\\"name\\":"}',
            b'{"name":"stdout","text":"name","x":"\\"name\\":"}',
        ),
        (b'{"text":1E400,"name":null}', b'{"text":1E400,"name":"stdout"}'),
        (b'{"text":"\\ud800","name":5}', b'{"text":"\\ud800","name":"stdout"}'),
        (b"{}", b'{"name":"stdout"}'),
        (b"{ }", b'{"name":"stdout"}'),
    ],
)
def test_a_stream_gets_its_name_and_keeps_the_rest(content: bytes, renamed: bytes) -> None:
    assert renamed_stream(content) == renamed


def test_depth_is_no_matter_for_the_name() -> None:
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b',"name":"log"}'
    assert renamed_stream(deep).endswith(b',"name":"stdout"}')


@given(OBJECTS, st.none() | VALUES, st.sampled_from([None, 2]))
def test_only_the_name_of_a_stream_changes(
    value: dict[str, Any], name: object, indent: int | None
) -> None:
    content = value if name is None else value | {"name": name}
    renamed = renamed_stream(json.dumps(content, indent=indent).encode())
    before, after = pairs(json.dumps(content)), pairs(renamed)
    others = [member for member in before if member[0] != "name"]
    assert repr([member for member in after if member[0] != "name"]) == repr(others)
    assert [member for member in after if member[0] == "name"] == [("name", "stdout")]
