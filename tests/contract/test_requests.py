"""Request bodies of any kind: accepted exactly if the document allows them."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import inspect

from kallichore import models
from kallichore.body import decode_body
from kallichore.errors import BadRequest
from kallichore.models import base
from tests.contract.document import load, mismatches

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

DOCUMENT = load()
REQUESTS: list[type[msgspec.Struct]] = [
    models.ClientHeartbeat,
    models.ConnectionInfo,
    models.ExecuteRequest,
    models.NewSession,
    models.RestartSession,
    models.ServerConfiguration,
]

STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
GOOD_STRINGS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="="), min_size=1, max_size=8
)
WORDS = st.sampled_from(["append", "info", "console", "signal", "command", "\0", "=", "a\n", "é"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-100, 100).map(lambda number: number + 0.5)
    | STRINGS
    | WORDS
)
ACTION = ("action", "name", "value")
ANY = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(STRINGS, inner, max_size=3)
        | st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(ACTION, inner)), max_size=2)
    ),
    max_leaves=8,
)


@cache
def fitting(cls: type[msgspec.Struct]) -> SearchStrategy[dict[str, Any]]:
    """Bodies that a model accepts, or nearly all of them."""
    fields = msgspec.structs.fields(cls)
    kinds = {f.encode_name: f.type for f in inspect.type_info(cls).fields}  # type: ignore[attr-defined]
    required = {f.encode_name: _values(kinds[f.encode_name]) for f in fields if f.required}
    optional = {f.encode_name: _values(kinds[f.encode_name]) for f in fields if not f.required}
    return st.fixed_dictionaries(required, optional=optional)


def _values(kind: inspect.Type) -> SearchStrategy[Any]:
    match kind:
        case inspect.StructType(cls=cls):
            return fitting(cls)
        case inspect.ListType(item_type=item):
            return st.lists(_values(item), max_size=3)
        case inspect.UnionType(types=types):
            return st.one_of([_values(member) for member in types])
        case _:
            return _scalars(kind)


def _scalars(kind: inspect.Type) -> SearchStrategy[Any]:
    drawn: SearchStrategy[Any] = GOOD_STRINGS
    match kind:
        case inspect.NoneType():
            drawn = st.none()
        case inspect.EnumType(cls=cls):
            drawn = st.sampled_from([member.value for member in cls])
        case inspect.BoolType():
            drawn = st.booleans()
        case inspect.IntType(ge=low, le=high):
            drawn = st.integers(low, high)
        case inspect.FloatType(le=high):
            drawn = st.floats(0, high, exclude_min=True)
        case inspect.StrType(pattern=base.LOG_LEVEL):
            drawn = st.sampled_from(["trace", "debug", "info", "warn", "error"])
        case _:
            pass
    return drawn


@st.composite
def nearly(draw: st.DrawFn, cls: type[msgspec.Struct]) -> dict[str, Any]:
    """Bodies with up to two fields that may be wrong, and perhaps one missing."""
    body: dict[str, Any] = draw(fitting(cls))
    names = [field.name for field in msgspec.structs.fields(cls)]
    body |= draw(st.dictionaries(st.sampled_from(names), ANY, max_size=2))
    for name in draw(st.sets(st.sampled_from(names), max_size=1)):
        body.pop(name, None)
    return body


def outcome(cls: type[msgspec.Struct], body: bytes) -> msgspec.Struct | str:
    """The model, or what the sender is told."""
    try:
        return decode_body(cls, body)
    except BadRequest as refused:
        return refused.message


def test_all_requests_of_the_document_are_here() -> None:
    text = json.dumps(DOCUMENT["paths"])
    for cls in REQUESTS:
        assert f'"#/components/schemas/{cls.__name__}"' in text


@given(st.sampled_from(REQUESTS), st.binary())
def test_any_bytes_are_decoded_or_refused(cls: type[msgspec.Struct], data: bytes) -> None:
    assert outcome(cls, data)


@given(st.sampled_from(REQUESTS), ANY)
def test_any_json_is_decoded_or_refused(cls: type[msgspec.Struct], value: object) -> None:
    assert outcome(cls, json.dumps(value).encode())


@given(st.data())
def test_a_body_is_accepted_exactly_if_the_document_allows_it(data: st.DataObject) -> None:
    """But for two rules that a schema cannot say: bytes of an id, and arguments of steps."""
    cls = data.draw(st.sampled_from(REQUESTS))
    body = data.draw(nearly(cls))
    assume(body.get("startup_environment") not in ("command", "script"))
    assume(len(str(body.get("session_id")).encode()) <= 255)
    schema = DOCUMENT["components"]["schemas"][cls.__name__]
    wrong = list(mismatches(DOCUMENT, schema, body))
    result = outcome(cls, json.dumps(body).encode())
    assert isinstance(result, str if wrong else cls), (wrong, result)
    assert not wrong or str(result).startswith("`")


@given(st.data())
def test_what_was_accepted_comes_back_the_same(data: st.DataObject) -> None:
    cls = data.draw(st.sampled_from(REQUESTS))
    body = data.draw(fitting(cls))
    model = outcome(cls, json.dumps(body).encode())
    assume(not isinstance(model, str))
    assert decode_body(cls, msgspec.json.encode(model)) == model
