"""The checker: this project is in step, and each way of being out of step is noticed."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import msgspec
import pytest

from kallichore import models
from kallichore.client import Client
from kallichore.web.operations import OPERATIONS
from tests.contract import check
from tests.contract.check import CLIENT_METHODS, check_client, check_routes
from tests.contract.document import load
from tests.contract.shapes import check_models

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = load()
MODELS = {name: getattr(models, name) for name in models.__all__}


@dataclass(frozen=True)
class FakeRoute:
    """A row of the server's table."""

    operation_id: str = "shutdown-server"
    method: str = "POST"
    path: str = "/shutdown"
    body: type | None = None
    body_is_optional: bool = False
    is_open: bool = False


# --- this project ------------------------------------------------------------------------------


def test_the_models_are_in_step() -> None:
    assert list(check_models(DOCUMENT, MODELS)) == []


def test_the_routes_are_in_step() -> None:
    assert list(check_routes(DOCUMENT, OPERATIONS)) == []


def test_the_client_is_in_step() -> None:
    assert list(check_client(DOCUMENT, Client)) == []


def test_the_command_says_that_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main() == 0
    assert capsys.readouterr().out == "kallichore.json, models, routes and client are in step.\n"


# --- models that are not -----------------------------------------------------------------------


def differences(name: str, model: object) -> list[str]:
    return list(check_models(DOCUMENT, MODELS | {name: model}))


class Heartbeat(msgspec.Struct, omit_defaults=True):
    """Another range, and a field more."""

    process_id: Annotated[int, msgspec.Meta(ge=1, le=99)] | None = None
    since: int | None = None


class Action(msgspec.Struct):
    """Another type, another pattern, and a field that may be left out."""

    action: str
    name: Annotated[str, msgspec.Meta(pattern="^x$", min_length=1)]
    value: Annotated[str, msgspec.Meta(pattern=r"^[^\u0000]*$")] | None = None


class Mode(StrEnum):
    """A word less."""

    CONSOLE = "console"
    NOTEBOOK = "notebook"


class Queue(msgspec.Struct, omit_defaults=True):
    """Other types."""

    length: Annotated[int, msgspec.Meta(ge=0)]
    pending: list[str]
    active: bytes = b""


class Code(msgspec.Struct, omit_defaults=True):
    """Another default, and no range."""

    code: str
    silent: bool = True
    store_history: bool = True
    stop_on_error: bool = True
    timeout_seconds: float | None = None


@pytest.mark.parametrize(
    ("name", "model", "lines"),
    [
        (
            "ClientHeartbeat",
            Heartbeat,
            [
                (
                    "ClientHeartbeat.process_id: maximum is 2147483647 in the document and 99 "
                    "in the model"
                ),
                "ClientHeartbeat.since: is in the model and not in the document",
                (
                    "ClientHeartbeat.since: may be null in requests, but the document does not say "
                    "nullable"
                ),
            ],
        ),
        (
            "VarAction",
            Action,
            [
                "VarAction.action: schema is VarActionType in the document and None in the model",
                "VarAction.action: type is None in the document and string in the model",
                "VarAction.name: minLength is None in the document and 1 in the model",
                r"VarAction.name: pattern is ^[^=\u0000]+$ in the document and ^x$ in the model",
                "VarAction.value: is required in the document only",
            ],
        ),
        (
            "SessionMode",
            Mode,
            [
                (
                    "SessionMode: enum is ['console', 'notebook', 'background'] in the document "
                    "and ['console', 'notebook'] in the model"
                ),
            ],
        ),
        (
            "ExecutionQueue",
            Queue,
            [
                (
                    "ExecutionQueue.active: type is object in the document and BytesType, which no "
                    "schema can say in the model"
                ),
                "ExecutionQueue.active: values is True in the document and None in the model",
                "ExecutionQueue.pending[]: type is object in the document and string in the model",
                "ExecutionQueue.pending[]: values is True in the document and None in the model",
                "ExecutionQueue.active: default is None in the document and b'' in ours",
            ],
        ),
        (
            "ExecuteRequest",
            Code,
            [
                (
                    "ExecuteRequest.timeout_seconds: exclusiveMinimum is True in the document and "
                    "None in the model"
                ),
                (
                    "ExecuteRequest.timeout_seconds: maximum is 31536000 in the document and None "
                    "in the model"
                ),
                (
                    "ExecuteRequest.timeout_seconds: minimum is 0 in the document and None in the "
                    "model"
                ),
                "ExecuteRequest.silent: default is False in the document and True in ours",
            ],
        ),
    ],
)
def test_a_model_that_says_something_else_is_noticed(
    name: str, model: object, lines: list[str]
) -> None:
    assert differences(name, model) == lines


def test_a_model_that_is_missing_is_noticed() -> None:
    fewer = {name: model for name, model in MODELS.items() if name != "Error"}
    lines = ["Error: the document has it, but kallichore.models does not"]
    assert list(check_models(DOCUMENT, fewer)) == lines


def test_a_model_that_nobody_described_is_noticed() -> None:
    lines = ["Extra: kallichore.models has it, but the document does not"]
    assert differences("Extra", Heartbeat) == lines


def test_null_that_no_model_allows_is_noticed() -> None:
    document = deepcopy(DOCUMENT)
    document["components"]["schemas"]["VarAction"]["properties"]["name"]["nullable"] = True
    lines = ["VarAction.name: may be null in the document, which no model allows here"]
    assert list(check_models(document, MODELS)) == lines


def test_a_field_that_only_the_document_has_is_noticed() -> None:
    document = deepcopy(DOCUMENT)
    document["components"]["schemas"]["Error"]["properties"]["hint"] = {"type": "string"}
    lines = ["Error.hint: is in the document and not in the model"]
    assert list(check_models(document, MODELS)) == lines


def test_a_type_that_no_schema_can_say_is_noticed() -> None:
    class Naive(msgspec.Struct):
        code: str
        message: datetime
        details: str | None = None

    assert differences("Error", Naive) == [
        (
            "Error.message: type is string in the document and DateTimeType, which no schema can "
            "say in the model"
        )
    ]


# --- routes and client methods that are not ----------------------------------------------------


def routes(*changed: FakeRoute) -> Iterator[str]:
    document = deepcopy(DOCUMENT)
    document["paths"] = {"/shutdown": document["paths"]["/shutdown"]}
    return check_routes(document, changed)


RIGHT = FakeRoute()


@pytest.mark.parametrize(
    ("changed", "lines"),
    [
        ([RIGHT], []),
        ([], ["shutdown-server: no route POST /shutdown"]),
        (
            [RIGHT, replace(RIGHT, operation_id="restart-server", path="/restart")],
            ["restart-server: POST /restart is served, but the document does not have it"],
        ),
        (
            [replace(RIGHT, method="PUT")],
            [
                "shutdown-server: no route POST /shutdown",
                "shutdown-server: PUT /shutdown is served, but the document does not have it",
            ],
        ),
        (
            [replace(RIGHT, body=models.ClientHeartbeat)],
            [
                (
                    "shutdown-server: its body is none in the document and required "
                    "ClientHeartbeat in the server"
                )
            ],
        ),
        (
            [replace(RIGHT, is_open=True)],
            ["shutdown-server: document and server disagree on whether it needs a token"],
        ),
    ],
    ids=range(6),
)
def test_a_route_that_is_out_of_step_is_noticed(changed: list[FakeRoute], lines: list[str]) -> None:
    assert list(routes(*changed)) == lines


def test_a_client_without_a_method_is_noticed() -> None:
    class Half:
        """Has all methods but one."""

    for method in CLIENT_METHODS.values():
        setattr(Half, method, lambda: None)
    del Half.kill_session  # type: ignore[attr-defined]
    lines = ["kill-session: kallichore.client.Client has no method kill_session"]
    assert list(check_client(DOCUMENT, Half)) == lines


def test_an_operation_that_the_checker_does_not_know_is_noticed() -> None:
    document = deepcopy(DOCUMENT)
    document["paths"]["/shutdown"]["post"]["operationId"] = "stop-server"
    assert list(check_client(document, Client)) == [
        "stop-server: tests/contract/check.py does not say which client method it is",
        "shutdown-server: tests/contract/check.py has it, but the document does not",
    ]


# --- the command -------------------------------------------------------------------------------


def test_the_command_prints_what_is_out_of_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = deepcopy(DOCUMENT)
    document["paths"]["/shutdown"]["put"] = document["paths"]["/shutdown"].pop("post")
    monkeypatch.setattr(check, "load", lambda: document)
    assert check.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert "shutdown-server: no route PUT /shutdown" in lines
    assert "shutdown-server: POST /shutdown is served, but the document does not have it" in lines


def test_the_command_goes_on_without_a_part_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "kallichore.web.operations", None)
    assert check.main() == 1
    assert capsys.readouterr().out.startswith("kallichore.web.operations cannot be imported: ")
