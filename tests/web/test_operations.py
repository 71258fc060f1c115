"""Every operation over the wire, with the rules that all of them share (CONTRACT 2.1, 2.2)."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from quart_trio import QuartTrio

from kallichore.errors import (
    ConnectFailed,
    ExecutionTimeout,
    InterruptFailed,
    NoConnectionInfo,
    NoProcess,
    ProcessExited,
    RestartFailed,
    ServerStopping,
    SessionNotReady,
    SessionRunning,
    SocketPathTooLong,
    StartupFailed,
)
from kallichore.web.operations import OPERATIONS, Operation
from tests.contract.check import check_routes
from tests.contract.document import load
from tests.web.fakes import CONNECTION, KERNEL_INFO, NEW_SESSION
from tests.web.wire import request

if TYPE_CHECKING:
    from tests.web.conftest import Front

WITHOUT_TOKEN: dict[str, str | None] = {"Authorization": None}
BODIES: dict[str, Any] = {
    "new-session": NEW_SESSION,
    "adopt-session": {name: getattr(CONNECTION, name) for name in CONNECTION.__struct_fields__},
    "execute-code": {"code": "1"},
    "set-server-configuration": {"idle_shutdown_hours": 2},
}


def path_of(operation: Operation[Any], session_id: str = "one") -> str:
    return operation.path.replace("{session_id}", session_id)


def body_of(operation: Operation[Any]) -> bytes | None:
    body = BODIES.get(operation.operation_id)
    return None if body is None else json.dumps(body).encode()


def named(operation_id: str) -> Operation[Any]:
    return next(o for o in OPERATIONS if o.operation_id == operation_id)


every_operation = pytest.mark.parametrize(
    "operation", OPERATIONS, ids=[operation.operation_id for operation in OPERATIONS]
)
operations_on_sessions = pytest.mark.parametrize(
    "operation",
    [o for o in OPERATIONS if "{session_id}" in o.path],
    ids=[o.operation_id for o in OPERATIONS if "{session_id}" in o.path],
)
operations_with_bodies = pytest.mark.parametrize(
    "operation",
    [o for o in OPERATIONS if o.body is not None],
    ids=[o.operation_id for o in OPERATIONS if o.body is not None],
)


def test_the_operations_are_those_of_the_document() -> None:
    assert list(check_routes(load(), OPERATIONS)) == []


@pytest.mark.parametrize(
    "operation",
    [o for o in OPERATIONS if o.operation_id != "get-metrics"],  # its numbers are no fake's
    ids=[o.operation_id for o in OPERATIONS if o.operation_id != "get-metrics"],
)
async def test_each_operation_answers_as_the_document_says(
    unix: Front, operation: Operation[Any]
) -> None:
    answer = await unix.ask(operation.method, path_of(operation), body_of(operation))
    assert answer.check(operation.operation_id).status == 200


@pytest.mark.parametrize(
    ("operation_id", "body", "value"),
    [
        ("new-session", None, {"session_id": "new"}),
        ("delete-session", None, None),
        ("start-session", None, json.loads(KERNEL_INFO)),
        ("restart-session", None, None),
        ("kill-session", None, None),
        ("interrupt-session", None, None),
        ("adopt-session", None, json.loads(KERNEL_INFO)),
        ("client-heartbeat", b'{"process_id": 17}', None),
        ("set-server-configuration", None, None),
        ("shutdown-server", None, None),
    ],
)
async def test_what_an_operation_says(
    front: Front, operation_id: str, body: bytes | None, value: object
) -> None:
    operation = named(operation_id)
    answer = await front.ask(operation.method, path_of(operation), body or body_of(operation))
    assert answer.json == value
    if value is None:
        assert answer.body == b"null"


async def test_the_kernels_own_words_are_passed_on_untouched(front: Front) -> None:
    assert (await front.ask("POST", "/sessions/one/start")).body == KERNEL_INFO


async def test_sessions_are_listed_in_the_order_of_their_creation(front: Front) -> None:
    for session_id in ("two", "a", "three"):
        front.supervisor.add(session_id)
    listed = (await front.ask("GET", "/sessions")).check("list-sessions").json
    assert [session["session_id"] for session in listed["sessions"]] == ["one", "two", "a", "three"]
    assert listed["total"] == 4


async def test_the_supervisor_hears_what_was_asked(front: Front) -> None:
    await front.ask("POST", "/client_heartbeat", b'{"process_id": 17}')
    await front.ask("POST", "/client_heartbeat", b"{}")
    await front.ask("POST", "/client_heartbeat")
    await front.ask("POST", "/server_configuration", b'{"idle_shutdown_hours": 3}')
    await front.ask("POST", "/shutdown")
    await front.ask("POST", "/sessions/one/restart", b'{"working_directory": "/tmp"}')
    await front.ask("POST", "/sessions/one/restart")
    assert front.supervisor.heartbeats == [17, None, None]
    assert front.supervisor.settings.idle_shutdown_hours == 3
    assert len(front.supervisor.stops) == 1
    assert front.session.calls == [
        "restart RestartSession(working_directory='/tmp', env=None)",
        "restart None",
    ]


# What all of them share.


@every_operation
async def test_only_the_status_is_open(front: Front, operation: Operation[Any]) -> None:
    wrong: dict[str, str | None] = {"Authorization": "Bearer wrong"}
    for headers in (WITHOUT_TOKEN, wrong):
        answer = await front.ask(
            operation.method, path_of(operation), body_of(operation), dict(headers)
        )
        if operation.operation_id == "server-status":
            assert answer.check("server-status").status == 200
        else:
            assert answer.check(operation.operation_id).status == 401
            assert answer.body == b""
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "content-type" not in answer.headers
    assert front.session.calls == []


@operations_on_sessions
async def test_an_unknown_session_is_an_empty_404(front: Front, operation: Operation[Any]) -> None:
    for session_id in ("two", "%FF", "%2E%2E"):
        answer = await front.ask(
            operation.method, path_of(operation, session_id), body_of(operation)
        )
        assert answer.check(operation.operation_id).status == 404
        assert answer.body == b""
        assert "content-type" not in answer.headers


@operations_with_bodies
@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b'"x"', b"[" * 100_000])
async def test_a_body_that_does_not_fit_is_a_400_in_words(
    front: Front, operation: Operation[Any], body: bytes
) -> None:
    answer = await front.ask(operation.method, path_of(operation), body)
    assert answer.check(operation.operation_id).status == 400
    assert answer.json["code"] == "bad_request"
    assert front.session.calls == []


@operations_with_bodies
async def test_first_the_token_then_the_body_then_the_session_then_the_state(
    front: Front, operation: Operation[Any]
) -> None:
    front.session.error = SessionRunning("one")
    method = operation.method

    async def status(session_id: str, body: bytes | None, token: str | None) -> int:
        headers = {"Authorization": token}
        answer = await front.ask(method, path_of(operation, session_id), body, headers)
        return answer.status

    good, body = "Bearer a-token-of-the-tests", body_of(operation)
    assert await status("two", b"{", None) == 401
    assert await status("two", b"{", good) == 400
    if "{session_id}" in operation.path:
        assert await status("two", body, good) == 404
        failed = 500 if operation.operation_id == "adopt-session" else 400
        assert await status("one", body, good) == failed


async def test_missing_fields_are_named(front: Front) -> None:
    answer = await front.ask("PUT", "/sessions", json.dumps({**NEW_SESSION, "argv": 3}).encode())
    assert "argv" in answer.error
    answer = await front.ask("POST", "/sessions/one/execute", b"{}")
    assert "code" in answer.error
    assert (await front.ask("POST", "/sessions/one/execute")).check("execute-code").status == 400


async def test_a_body_needs_no_content_type_and_may_claim_any(front: Front) -> None:
    for content_type in (None, "text/plain", "multipart/form-data; boundary=x", "nonsense"):
        answer = await front.ask(
            "POST", "/sessions/one/execute", b'{"code": "1"}', {"Content-Type": content_type}
        )
        assert answer.check("execute-code").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/sessions/",
        "/sessions//one",
        "/sessions/one/nothing",
        "/sessions/a/b/start",
        "//",
        "//status",
        "///sessions",
    ],
)
async def test_an_unknown_path_is_a_404_in_words_for_those_who_have_the_token(
    front: Front, path: str
) -> None:
    answer = await front.ask("GET", path)
    assert answer.check().status == 404
    assert answer.json == {"code": "not_found", "message": f"There is nothing at {path}"}
    assert (await front.ask("GET", path, headers=dict(WITHOUT_TOKEN))).status == 401


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/status", "GET, HEAD"),
        ("PATCH", "/sessions", "GET, HEAD, PUT"),
        ("GET", "/sessions/one/start", "POST"),
        ("OPTIONS", "/sessions", "GET, HEAD, PUT"),
        ("TRACE", "/shutdown", "POST"),
        ("BREW", "/sessions/one", "DELETE, GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    front: Front, method: str, path: str, allowed: str
) -> None:
    answer = await front.ask(method, path)
    assert answer.check().status == 405
    assert answer.json["code"] == "method_not_allowed"
    assert answer.headers["allow"] == allowed
    assert (await front.ask(method, path, headers=dict(WITHOUT_TOKEN))).status == 401


async def test_head_is_get_without_the_body(front: Front) -> None:
    wire = await front.connect()
    for path, status in (("/status", 200), ("/sessions", 200), ("/nothing", 404)):
        answer = await wire.ask(request("HEAD", path))
        assert answer.status == status
        assert answer.body == b""
        assert int(answer.headers["content-length"]) > 0
    open_to_all = await wire.ask(request("HEAD", "/status", headers=dict(WITHOUT_TOKEN)))
    assert open_to_all.status == 200


@pytest.mark.parametrize("path", ["/status", "/sessions", "/nothing"])
async def test_the_span_is_the_callers_or_a_fresh_one(front: Front, path: str) -> None:
    given = await front.ask("GET", path, headers={"X-Span-ID": "caf\xe9 7"})
    assert given.headers["x-span-id"] == "caf\xc3\xa9 7"
    fresh = {(await front.ask("GET", path)).headers["x-span-id"] for _ in range(2)}
    assert len({uuid.UUID(one) for one in fresh}) == 2
    refused = await front.ask("GET", "/sessions", headers={"X-Span-ID": "8", **WITHOUT_TOKEN})
    assert refused.headers["x-span-id"] == "8"


async def test_only_loopback_is_a_host_on_tcp(tcp: Front) -> None:
    answer = await tcp.ask("GET", "/status", headers={"Host": "example.org"})
    assert answer.check("server-status").status == 403
    answer = await tcp.ask("GET", "http://example.org/status")
    assert answer.check("server-status").status == 403
    assert (await tcp.ask("GET", "http://127.0.0.1/status")).status == 200


@pytest.mark.parametrize("host", ["example.org", "", "a b", "[", "x:y:z", "\xff", "a/b"])
async def test_any_host_will_do_on_a_unix_socket(unix: Front, host: str) -> None:
    answer = await unix.ask("GET", "/sessions", headers={"Host": host})
    assert answer.check("list-sessions").status == 200


async def test_web_pages_from_elsewhere_may_ask_nothing(front: Front) -> None:
    for path in ("/status", "/sessions"):
        answer = await front.ask("GET", path, headers={"Origin": "https://example.org"})
        assert answer.check("server-status").status == 403
        assert answer.json["code"] == "forbidden"
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert (await front.ask("GET", "/status", headers={"Origin": "http://localhost:3000"})).status


# Errors.


@pytest.mark.parametrize(
    ("operation_id", "error", "status", "code"),
    [
        ("delete-session", SessionRunning("one"), 400, "KS-2"),
        ("kill-session", NoProcess("one"), 400, "KS-12"),
        ("interrupt-session", InterruptFailed("one", "no"), 400, "KS-10"),
        ("adopt-session", ConnectFailed("no"), 500, "KS-6"),
        ("connection-info", NoConnectionInfo("one", "no"), 500, "KS-18"),
        ("channels-upgrade", SocketPathTooLong("/x", 104), 400, "socket_path_too_long"),
        ("execute-code", SessionNotReady("one", "no"), 400, "session_not_ready"),
        ("execute-code", ExecutionTimeout(1), 408, "timeout"),
        ("start-session", ServerStopping(), 503, "server_stopping"),
        ("get-session", RuntimeError("secret"), 500, "internal_error"),
        ("kill-session", ExceptionGroup("", [RuntimeError("secret")]), 500, "internal_error"),
    ],
)
async def test_errors_have_their_codes(
    unix: Front, operation_id: str, error: Exception, status: int, code: str
) -> None:
    unix.session.error = error
    operation = named(operation_id)
    answer = await unix.ask(operation.method, path_of(operation), body_of(operation))
    assert answer.check(operation_id).status == status
    assert answer.json["code"] == code
    assert b"secret" not in answer.body
    assert (await unix.ask("GET", "/status")).status == 200


@pytest.mark.parametrize("operation_id", ["start-session", "restart-session"])
async def test_a_failed_start_says_what_the_process_left(front: Front, operation_id: str) -> None:
    front.session.error = StartupFailed(ProcessExited("exit status: 3"), 3, "Traceback")
    answer = await front.ask("POST", path_of(named(operation_id)))
    assert answer.check(operation_id).status == 500
    assert answer.json == {
        "exit_code": 3,
        "output": "Traceback",
        "error": {"code": "KS-8", "message": "The process exited abnormally (exit status: 3)"},
    }


@pytest.mark.parametrize(
    "error", [RuntimeError("secret"), RestartFailed("another one is going on")]
)
async def test_every_failure_of_a_start_has_the_same_shape(front: Front, error: Exception) -> None:
    front.session.error = error
    for operation_id in ("start-session", "restart-session"):
        answer = await front.ask("POST", path_of(named(operation_id)))
        assert answer.check(operation_id).status == 500
        assert answer.json["error"]["code"] in {"internal_error", "KS-13"}


async def test_an_unexpected_error_is_logged(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    front.supervisor.error = RuntimeError("a fault of ours")
    assert (await front.ask("GET", "/status")).check("server-status").status == 500
    assert "a fault of ours" in caplog.text


# Session ids.


@pytest.mark.parametrize(
    ("encoded", "session_id"),
    [
        ("a%2Fb", "a/b"),
        ("%22%27%20%3Cx%3E", "\"' <x>"),
        ("%F0%9F%90%8D", "🐍"),
        ("100%25", "100%"),
        ("%2E%2E%2F", "../"),
        ("a;b=c", "a;b=c"),
        ("%3F", "?"),
        ("x" * 255, "x" * 255),
    ],
)
async def test_session_ids_may_hold_anything(front: Front, encoded: str, session_id: str) -> None:
    front.supervisor.add(session_id)
    got = await front.ask("GET", f"/sessions/{encoded}")
    assert got.check("get-session").json["session_id"] == session_id
    assert (await front.ask("POST", f"/sessions/{encoded}/start")).status == 200
    assert (await front.ask("DELETE", f"/sessions/{encoded}")).status == 200
    assert session_id not in front.supervisor.sessions


def test_quart_is_what_answers() -> None:
    """The pinned framework: its name appears here so that replacing it is a decision."""
    assert QuartTrio.__module__ == "quart_trio.app"
