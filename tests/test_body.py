"""Request bodies: every one becomes a model, or a sentence that names the field."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from kallichore import models
from kallichore.body import decode_body, decode_optional_body
from kallichore.errors import BadRequest

NEW: dict[str, Any] = {
    "session_id": "a",
    "display_name": "Python",
    "language": "python",
    "username": "ada",
    "input_prompt": ">>>",
    "continuation_prompt": "...",
    "argv": ["python", "-f", "{connection_file}"],
    "session_mode": "console",
    "working_directory": "",
    "env": [],
    "interrupt_mode": "signal",
    "startup_environment": "none",
}
ACTION = {"action": "append", "name": "PATH", "value": ":/opt"}
REQUESTS: dict[type[msgspec.Struct], dict[str, Any]] = {
    models.NewSession: NEW,
    models.RestartSession: {"working_directory": "~", "env": [ACTION]},
    models.ConnectionInfo: {
        **dict.fromkeys(
            ("control_port", "shell_port", "stdin_port", "hb_port", "iopub_port"), 4000
        ),
        "signature_scheme": "hmac-sha256",
        "key": "k",
        "transport": "tcp",
        "ip": "127.0.0.1",
    },
    models.ExecuteRequest: {"code": "1"},
    models.ClientHeartbeat: {"process_id": 1},
    models.ServerConfiguration: {"idle_shutdown_hours": -1, "log_level": "info"},
}


def refusal(body: object, cls: type[msgspec.Struct] = models.NewSession) -> str:
    """What the sender of this body is told."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(BadRequest) as caught:
        decode_body(cls, data)
    return caught.value.message


def new(**changes: object) -> dict[str, object]:
    return NEW | changes


def test_a_good_body_becomes_a_model() -> None:
    session = decode_body(models.NewSession, json.dumps(new(env=[ACTION])).encode())
    assert session.argv == ["python", "-f", "{connection_file}"]
    assert session.env == [
        models.VarAction(action=models.VarActionType.APPEND, name="PATH", value=":/opt")
    ]
    assert (session.connection_timeout, session.protocol_version) == (None, "5.3")


def test_unknown_fields_are_ignored() -> None:
    body = json.dumps(new(color=[{"of": "no consequence"}])).encode()
    assert decode_body(models.NewSession, body).session_id == "a"


@pytest.mark.parametrize("cls", REQUESTS, ids=lambda cls: cls.__name__)
def test_null_for_an_optional_field_is_the_same_as_leaving_it_out(
    cls: type[msgspec.Struct],
) -> None:
    fields = msgspec.structs.fields(cls)
    required = {f.name: REQUESTS[cls][f.name] for f in fields if f.required}
    nulls = dict.fromkeys(f.name for f in fields if not f.required)
    without = decode_body(cls, json.dumps(required).encode())
    assert decode_body(cls, json.dumps(required | nulls).encode()) == without


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (new(session_id=5), "got 5"),
        (new(session_id=""), "which this one is not"),
        (new(session_id="a\n"), "which this one is not"),
        (new(session_id="x" * 256), "which this one is not"),
    ],
)
def test_a_session_id_is_checked(body: object, message: str) -> None:
    expected = "`session_id`: expected a string of 1 to 255 characters without control characters"
    assert refusal(body) == f"{expected}, {message}"


def test_a_session_id_is_measured_in_bytes() -> None:
    body = json.dumps(new(session_id="é" * 127 + "x")).encode()
    assert decode_body(models.NewSession, body).session_id == "é" * 127 + "x"
    message = "`session_id`: expected at most 255 bytes of UTF-8, got 256"
    assert refusal(new(session_id="é" * 128)) == message


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "'\"`$(x)", "😀", "a" * 255, " "])
def test_a_session_id_may_be_odd(name: str) -> None:
    body = json.dumps(new(session_id=name)).encode()
    assert decode_body(models.NewSession, body).session_id == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"env": [ACTION, ACTION, ACTION | {"action": "x"}]},
            '`env[2].action`: expected one of replace, append, prepend, got "x"',
        ),
        (
            {"env": [{"action": "append", "name": "A"}]},
            "`env[0].value`: expected a string without NUL characters, but it is missing",
        ),
        (
            {"env": [ACTION | {"name": "A=B"}]},
            (
                "`env[0].name`: expected a string that is not empty and holds neither = nor NUL, "
                "which this one is not"
            ),
        ),
        (
            {"env": [ACTION | {"name": ""}]},
            (
                "`env[0].name`: expected a string that is not empty and holds neither = nor NUL, "
                "which this one is not"
            ),
        ),
        (
            {"env": [ACTION | {"value": "a\0secret"}]},
            "`env[0].value`: expected a string without NUL characters, which this one is not",
        ),
        ({"env": [7]}, "`env[0]`: expected an object, got 7"),
        ({"env": {"A": "secret"}}, "`env`: expected a list, got an object"),
        ({"env": None}, "`env`: expected a list, got null"),
        (
            {"argv": ["a", "b\0"]},
            "`argv[1]`: expected a string without NUL characters, which this one is not",
        ),
        (
            {"argv": [["a"]]},
            "`argv[0]`: expected a string without NUL characters, got a list",
        ),
        ({"argv": "ls -l"}, "`argv`: expected a list, got a string"),
        (
            {"working_directory": "/\0"},
            "`working_directory`: expected a string without NUL characters, which this one is not",
        ),
        (
            {"connection_timeout": 0},
            "`connection_timeout`: expected an integer from 1 to 86400, got 0",
        ),
        (
            {"connection_timeout": 10**30},
            f"`connection_timeout`: expected an integer from 1 to 86400, got 1{'0' * 30}",
        ),
        (
            {"connection_timeout": 1.5},
            "`connection_timeout`: expected an integer from 1 to 86400, got 1.5",
        ),
        (
            {"connection_timeout": "30"},
            "`connection_timeout`: expected an integer from 1 to 86400, got a string",
        ),
        ({"protocol_version": 5.3}, "`protocol_version`: expected a string, got 5.3"),
        (
            {"session_mode": "x" * 200},
            f'`session_mode`: expected one of console, notebook, background, got "{"x" * 79}…',
        ),
        (
            {"startup_environment": "command"},
            "`startup_environment_arg`: expected the command that `startup_environment` names",
        ),
        (
            {"startup_environment": "script", "startup_environment_arg": ""},
            "`startup_environment_arg`: expected the script that `startup_environment` names",
        ),
    ],
)
def test_the_message_names_the_field_and_what_was_expected(
    changes: dict[str, object], message: str
) -> None:
    assert refusal(new(**changes)) == message


def test_a_missing_field_is_named() -> None:
    body = {name: value for name, value in NEW.items() if name != "display_name"}
    assert refusal(body) == "`display_name`: expected a string, but it is missing"


@pytest.mark.parametrize(
    ("cls", "body", "message"),
    [
        (
            models.ExecuteRequest,
            {"code": "1", "silent": 0},
            "`silent`: expected true or false, got 0",
        ),
        (
            models.ExecuteRequest,
            {"code": "1", "timeout_seconds": 0, "silent": None},
            "`timeout_seconds`: expected a number over 0 and up to 31536000, got 0",
        ),
        (
            models.ServerConfiguration,
            {"resource_sample_interval_ms": -1},
            "`resource_sample_interval_ms`: expected an integer from 0 to 2147483647, got -1",
        ),
        (
            models.ServerConfiguration,
            {"log_level": "info\n"},
            (
                "`log_level`: expected a string that is one of trace, debug, info, warn, error, "
                "which this one is not"
            ),
        ),
        (
            models.ConnectionInfo,
            REQUESTS[models.ConnectionInfo] | {"hb_port": 65536},
            "`hb_port`: expected an integer from 1 to 65535, got 65536",
        ),
        (
            models.RestartSession,
            {"env": [{"action": 5}]},
            "`env[0].action`: expected one of replace, append, prepend, got 5",
        ),
    ],
)
def test_every_request_is_checked_for_types_and_ranges(
    cls: type[msgspec.Struct], body: object, message: str
) -> None:
    assert refusal(body, cls) == message


@pytest.mark.parametrize("data", [b"", b" \r\n\t"])
def test_a_body_that_is_missing_is_asked_for(data: bytes) -> None:
    assert refusal(data, models.ExecuteRequest) == (
        "The request needs a JSON body: an object with code"
    )
    assert refusal(data, models.ServerConfiguration) == ("The request needs a JSON body: an object")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"hello", "is not JSON: invalid character at byte 0"),
        (b'{"session_id": "a"', "is not JSON: it ends too early"),
        (b'{"session_id": "a"} x', "is not JSON: invalid"),
        (b"\xef\xbb\xbf{}", "is not JSON: invalid character at byte 0"),
        (b'{"session_id": NaN}', "is not JSON: invalid character at byte 15"),
        (b'{"session_id": "\\ud800"}', "is not JSON: a string holds half of a surrogate pair"),
        (b'{"other": "\xff"}', "is not UTF-8: byte 11 begins no character"),
        (b'{"other": ' + b"[" * 100_000, "is nested too deeply"),
        (b'{"other":' * 100_000, "is nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, ": expected an object, got a list"),
        (b"[]", ": expected an object, got a list"),
        (b"null", ": expected an object, got null"),
        (b'"{}"', ": expected an object, got a string"),
    ],
    ids=range(13),
)
def test_what_is_no_json_object_is_refused(data: bytes, why: str) -> None:
    message = refusal(data)
    if data.endswith(b"} x"):
        assert message.startswith("The request's body")
    else:
        assert message.startswith(f"The request's body {why}".replace(" :", ":"))


def test_rubbish_behind_a_first_mistake_is_a_clean_refusal() -> None:
    for rest in (b"oops", b"[" * 100_000, b'"\\ud800'):
        assert refusal(b'{"session_id": 5, "x": ' + rest)


@pytest.mark.parametrize("data", [b"", b"  ", b"null", b" null\n"])
def test_an_optional_body_may_be_left_out(data: bytes) -> None:
    assert decode_optional_body(models.RestartSession, data) is None


def test_an_optional_body_that_is_there_is_checked() -> None:
    assert decode_optional_body(models.ClientHeartbeat, b'{"process_id": 5}') == (
        models.ClientHeartbeat(process_id=5)
    )
    with pytest.raises(BadRequest):
        decode_optional_body(models.ClientHeartbeat, b"5")


def test_a_model_with_other_types_is_explained_as_far_as_may_be() -> None:
    class Odd(msgspec.Struct):
        when: datetime
        table: dict[str, dict[str, int]] = {}

    assert refusal({"when": "now"}, Odd) == "`when`: expected something else, got a string"
    body = {"when": "2025-03-01T00:00:00Z", "table": {"a": 5}}
    assert refusal(body, Odd) == "`table`: expected something else, got an object"


def test_every_number_in_a_request_has_a_range() -> None:
    """Their refusals say it, and no number surprises what is behind."""
    for cls in REQUESTS:
        fields = inspect.type_info(cls).fields  # type: ignore[attr-defined]
        for kind in [k for f in fields for k in getattr(f.type, "types", (f.type,))]:
            if isinstance(kind, inspect.IntType):
                assert None not in {kind.ge, kind.le}
            if isinstance(kind, inspect.FloatType):
                assert None not in {kind.gt, kind.le}
