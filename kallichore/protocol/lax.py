"""JSON as peers really write it: made strict for others, and read by us as far as it goes.

Python kernels write NaN, infinities and lone surrogates, and some kernels broken UTF-8; browsers
write lone surrogates too. Nothing of that may cost a message (CONTRACT 5.3). All of this is the
slow path: a message of strict JSON never comes here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["JSON_ERRORS", "lenient", "renamed_stream", "repair", "without_lone_surrogates"]

S = TypeVar("S", bound=Struct)

JSON_ERRORS: Final = (ValueError, RecursionError)
"""All that msgspec and json raise; their own errors are ValueErrors."""
_SPACE: Final = " \t\r\n"
_STRING: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_CONSTANTS: Final = re.compile(rf"{_STRING}|-?Infinity|NaN", re.DOTALL)
_TOKENS: Final = re.compile(rf'{_STRING}|[{{}}\[\]:,]|[^"{{}}\[\]:,]+'.encode(), re.DOTALL)
_SURROGATES: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair
    rb"|\\[^u]"  # another escape, such as a backslash before a `u`
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})",  # one alone
    re.DOTALL,
)
# Well-formedness is all that is asked of numbers: big ones are slow to make, or refused.
_check = json.JSONDecoder(parse_int=len, parse_float=len).decode


def repair(part: bytes) -> bytes:
    """Make strict what Python's lax JSON accepts: constants null, surrogates escapes.

    Everything else stays as it is written, white space around it aside.

    Raises:
        ValueError, RecursionError: It is not JSON, not an object, or nested too deeply.
    """
    text = _decode_text(part)
    if not isinstance(_check(text), dict):
        raise ValueError("a part that is not a JSON object")  # noqa: TRY004 (of the peer's JSON)
    strict = _CONSTANTS.sub(_null_for_constant, text)
    return strict.strip(_SPACE).encode("utf-8", "backslashreplace")


def _null_for_constant(match: re.Match[str]) -> str:
    token = match.group()
    return token if token.startswith('"') else "null"


def _decode_text(part: bytes) -> str:
    try:
        return part.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return part.decode("utf-8", "replace")


def without_lone_surrogates(part: bytes) -> bytes:
    """Put U+FFFD in place of escapes that are half a surrogate pair, as UTF-8 would have it."""
    return _SURROGATES.sub(_replacement, part)


def _replacement(match: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if match.group(1) else match.group()


def lenient(content: bytes, kind: type[S]) -> S:
    """Decode a content; fields that are not as specified have their defaults."""
    try:
        return msgspec.json.decode(content, type=kind)
    except JSON_ERRORS:
        return _salvaged(without_lone_surrogates(content), kind)


def _salvaged(content: bytes, kind: type[S]) -> S:
    try:
        given = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except JSON_ERRORS:
        return kind()
    usable: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        try:
            usable[field.name] = msgspec.json.decode(given[field.encode_name], type=field.type)
        except (KeyError, *JSON_ERRORS):
            continue
    return kind(**usable)


def renamed_stream(content: bytes) -> bytes:
    """Give a `stream` content under the name ``stdout``; the rest stays as it is written."""
    names = [(start, end) for key, start, end in _members(content) if key == b'"name"']
    if not names:
        rest = content[1:].lstrip(_SPACE.encode())
        return b'{"name":"stdout"' + (b"" if rest == b"}" else b",") + rest
    for start, end in reversed(names):
        content = content[:start] + b'"stdout"' + content[end:]
    return content


def _members(part: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Give the keys of a JSON object, as written, and where their values begin and end."""
    depth, key, start = 0, b"", 0
    for match in _TOKENS.finditer(part):
        token = match.group()
        if depth == 1 and token == b":":
            start = match.end()
        elif depth == 1 and token in {b",", b"}"}:
            if start:
                yield key, start, match.start()
            start = 0
        elif depth == 1 and not start and token.startswith(b'"'):
            key = token
        depth += (token in {b"{", b"["}) - (token in {b"}", b"]"})
