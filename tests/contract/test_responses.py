"""`check_response`: answers as documented pass, and others fail with the reason."""

from __future__ import annotations

import json

import pytest

from tests.contract.document import JSON, load, operations, resolve
from tests.contract.responses import check_response, response_problems

DOCUMENT = load()
STATUS = DOCUMENT["paths"]["/status"]["get"]["responses"]["200"]["content"][JSON]["example"]
ERROR = {"code": "not_found", "message": "There is nothing at /x"}


def documented() -> list[tuple[str, int, str, bytes]]:
    """Every example of every answer, with its content type."""
    found: list[tuple[str, int, str, bytes]] = []
    for operation in operations(DOCUMENT):
        for status, response in operation.node["responses"].items():
            for kind, media in resolve(DOCUMENT, response).get("content", {}).items():
                examples = [e["value"] for e in media.get("examples", {}).values()]
                if "example" in media:
                    examples.append(media["example"])
                bodies = [json.dumps(v) if kind == JSON else v for v in examples]
                found += [
                    (operation.operation_id, int(status), kind, body.encode()) for body in bodies
                ]
    return found


def test_every_example_of_the_document_is_a_good_answer() -> None:
    assert len(documented()) > 100
    for name, status, kind, body in documented():
        check_response(name, status, kind, body)


@pytest.mark.parametrize(
    ("name", "status", "content_type", "body"),
    [
        ("server-status", 200, "application/json; charset=utf-8", json.dumps(STATUS).encode()),
        ("get-session", 404, None, b""),
        ("get-session", 401, None, b""),
        ("channels-upgrade", 101, None, b""),
        ("shutdown-server", 200, JSON, b"null"),
        (None, 404, JSON, json.dumps(ERROR).encode()),
        (None, 405, JSON, json.dumps(ERROR).encode()),
        (None, 401, None, b""),
    ],
    ids=range(8),
)
def test_a_documented_answer_passes(
    name: str | None, status: int, content_type: str | None, body: bytes
) -> None:
    check_response(name, status, content_type, body)


@pytest.mark.parametrize(
    ("name", "status", "content_type", "body", "problem"),
    [
        ("server-status", 418, JSON, b"null", "the document has no 418 for server-status"),
        (None, 200, JSON, b"null", "the document has no 200 for None"),
        ("get-session", 404, JSON, b"{}", "the body should be empty, and is b'{}'"),
        (None, 401, JSON, b"{}", "the body should be empty, and is b'{}'"),
        (
            "server-status",
            200,
            "text/html",
            b"",
            "the content type should be one of application/json, and is text/html",
        ),
        (
            "server-status",
            200,
            None,
            b"",
            "the content type should be one of application/json, and is None",
        ),
        ("server-status", 200, JSON, b"", "the body should be JSON, and is b''"),
        ("server-status", 200, JSON, b"NaN", "the body should be JSON, and is b'NaN'"),
        ("server-status", 200, JSON, b'"\xff"', "the body should be JSON, and is "),
        ("server-status", 200, JSON, b"null", "None for not nullable"),
        ("shutdown-server", 200, JSON, b" null", "the body should be the four bytes null"),
        ("shutdown-server", 200, JSON, b"{}", "the body should be null"),
        (
            "server-status",
            200,
            JSON,
            json.dumps(STATUS | {"sessions": -1}).encode(),
            "sessions: -1 is less than the minimum of 0",
        ),
        (
            "server-status",
            200,
            JSON,
            json.dumps(STATUS | {"secret": 1}).encode(),
            "Additional properties are not allowed ('secret' was unexpected)",
        ),
        (
            "delete-session",
            400,
            JSON,
            json.dumps(ERROR | {"details": None}).encode(),
            "details: None",
        ),
    ],
    ids=range(15),
)
def test_another_answer_fails_and_says_why(
    name: str | None, status: int, content_type: str | None, body: bytes, problem: str
) -> None:
    problems = response_problems(name, status, content_type, body)
    assert problems[0].startswith(problem)
    with pytest.raises(AssertionError) as caught:
        check_response(name, status, content_type, body)
    assert problem in str(caught.value)


def test_an_operation_that_does_not_exist_cannot_be_checked() -> None:
    with pytest.raises(AssertionError, match="no operation make-tea"):
        check_response("make-tea", 200, JSON, b"null")
