"""Request bodies: from bytes to a model, or to a `BadRequest` that says what to change.

The models hold the rules; this module only puts msgspec's verdicts into plain words. Messages show
a value of the caller's only where it can be no secret: a number, or a word outside a list of words.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final, TypeVar

import msgspec
from msgspec import inspect

from kallichore.errors import BadRequest
from kallichore.models.base import PATTERN_WORDS

__all__ = ["decode_body", "decode_optional_body"]

S = TypeVar("S", bound=msgspec.Struct)

JSON_SPACE: Final = b" \t\n\r"
SHOWN_CHARACTERS: Final = 80
NULL: Final = b"null"

PLACE: Final = re.compile(r"^(?P<verdict>.*?)(?: - at `\$?(?P<path>.*)`)?$", re.DOTALL)
STEP: Final = re.compile(r"\.(?P<name>\w+)|\[(?P<index>\d+)\]")
MISSING: Final = re.compile(r"^Object missing required field `(?P<name>.*)`$")
MALFORMED: Final = re.compile(r"^JSON is malformed: (?P<what>.*) \(byte (?P<byte>\d+)\)$")
HALF_PAIR: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")

Path = tuple[str | int, ...]


def decode_optional_body(cls: type[S], data: bytes) -> S | None:
    """As `decode_body`, but no body, or ``null``, is None.

    Raises:
        BadRequest: if there is a body that does not fit.
    """
    if data.strip(JSON_SPACE) in {b"", NULL}:
        return None
    return decode_body(cls, data)


def decode_body(cls: type[S], data: bytes) -> S:
    """Read a request's body as ``cls``.

    Unknown fields are ignored, and null for an optional field is the same as leaving it out.

    Raises:
        BadRequest: if it does not fit; the message names the field and what was expected.
    """
    if not data.strip(JSON_SPACE):
        raise BadRequest(_no_body(cls))
    try:
        str(data, "utf-8")
        return _decode(cls, data)
    except UnicodeDecodeError as exc:
        msg = f"The request's body is not UTF-8: byte {exc.start} begins no character"
        raise BadRequest(msg) from None
    except RecursionError:
        msg = "The request's body is nested too deeply"
        raise BadRequest(msg) from None
    except msgspec.DecodeError as exc:
        raise BadRequest(_not_json(str(exc), data)) from None


def _decode(cls: type[S], data: bytes) -> S:
    """Decode, and once more without nulls if the first try fails: few clients send any."""
    decoder: msgspec.json.Decoder[S] = _decoder(cls)
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as exc:
        verdict, rest = str(exc), _without_nulls(cls, data)
    if rest is not None:
        data = rest
        try:
            return decoder.decode(data)
        except msgspec.ValidationError as exc:
            verdict = str(exc)
    raise BadRequest(_explain(cls, verdict, data))


@cache
def _decoder(cls: type[S]) -> msgspec.json.Decoder[S]:
    return msgspec.json.Decoder(cls)


def _without_nulls(cls: type[msgspec.Struct], data: bytes) -> bytes | None:
    """The object without those of its optional fields that are null; None if nothing changes."""
    try:
        members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return None
    optional = {field.encode_name for field in msgspec.structs.fields(cls) if not field.required}
    kept = {
        name: value
        for name, value in members.items()
        if name not in optional or bytes(value) != NULL
    }
    return None if len(kept) == len(members) else msgspec.json.encode(kept)


def _no_body(cls: type[msgspec.Struct]) -> str:
    required = [field.encode_name for field in msgspec.structs.fields(cls) if field.required]
    fields = f" with {', '.join(required)}" if required else ""
    return f"The request needs a JSON body: an object{fields}"


def _not_json(verdict: str, data: bytes) -> str:
    if found := MALFORMED.match(verdict):
        why = f"{found['what']} at byte {found['byte']}"
    elif HALF_PAIR.search(data):
        why = "a string holds half of a surrogate pair, which is no character"
    else:
        why = "it ends too early"
    return f"The request's body is not JSON: {why}"


def _explain(cls: type[msgspec.Struct], verdict: str, data: bytes) -> str:
    """Msgspec's verdict on ``data`` as a sentence; a model's own is one already."""
    if verdict.startswith("`"):
        return verdict
    found = PLACE.match(verdict)
    assert found is not None  # noqa: S101  # the pattern matches any text
    path: Path = tuple(
        step["name"] or int(step["index"]) for step in STEP.finditer(found["path"] or "")
    )
    missing = MISSING.match(found["verdict"])
    if missing:
        path = (*path, missing["name"])
    expected = _at(inspect.type_info(cls), path)
    but = "but it is missing" if missing else _but(expected, _value(data, path))
    return f"{_spelled(path)}: expected {_described(expected)}, {but}"


def _at(kind: inspect.Type, path: Path) -> inspect.Type:
    """The type that the model has at a path; what may be null counts as what else it may be."""
    kind = _not_null(kind)
    if not path:
        return kind
    step, rest = path[0], path[1:]
    if isinstance(kind, inspect.StructType):
        return _at(next(f.type for f in kind.fields if f.encode_name == step), rest)
    return _at(kind.item_type, rest) if isinstance(kind, inspect.ListType) else kind


def _not_null(kind: inspect.Type) -> inspect.Type:
    if isinstance(kind, inspect.UnionType):
        return next(t for t in kind.types if not isinstance(t, inspect.NoneType))
    return kind


def _value(data: bytes, path: Path) -> bytes:
    """The JSON text at a path."""
    for step in path:
        if isinstance(step, str):
            data = bytes(msgspec.json.decode(data, type=dict[str, msgspec.Raw])[step])
        else:
            data = bytes(msgspec.json.decode(data, type=list[msgspec.Raw])[step])
    return data.strip(JSON_SPACE)


def _spelled(path: Path) -> str:
    """A path as people write it: `env[2].action`."""
    if not path:
        return "The request's body"
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in path]
    return f"`{''.join(steps).removeprefix('.')}`"


def _but(expected: inspect.Type, value: bytes) -> str:
    """What was there instead: itself if it can be no secret, or else what kind of thing it is."""
    kind = {b'"': "a string", b"[": "a list", b"{": "an object"}.get(value[:1])
    if kind == "a string" and isinstance(expected, inspect.StrType):
        return "which this one is not"
    if kind is not None and not (kind == "a string" and isinstance(expected, inspect.EnumType)):
        return f"got {kind}"
    text = value.decode()
    return f"got {text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + '…'}"


def _described(kind: inspect.Type) -> str:
    """What the model wants, in words."""
    words = "something else"
    match kind:
        case inspect.StructType():
            words = "an object"
        case inspect.ListType():
            words = "a list"
        case inspect.EnumType(cls=cls):
            words = f"one of {', '.join(str(member.value) for member in cls)}"
        case inspect.BoolType():
            words = "true or false"
        case inspect.StrType(min_length=low, max_length=high, pattern=pattern):
            size = "" if low is None and high is None else f" of {low} to {high} characters"
            words = f"a string{size}{PATTERN_WORDS[pattern]}"
        case inspect.IntType(ge=low, le=high):
            words = f"an integer from {low} to {high}"
        case inspect.FloatType(gt=low, le=high):
            words = f"a number over {low} and up to {high}"
        case _:
            pass
    return words
