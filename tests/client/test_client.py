"""Operations: what is sent, what is made of the answers, and every way to fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from kallichore import models
from kallichore.client import (
    Client,
    RequestFailed,
    ServerGone,
    SessionUnknown,
    StartFailed,
    TokenRefused,
    UnexpectedAnswer,
    build_session,
    open_client,
)
from kallichore.client.kernelspec import Kernelspec
from tests.client.fake_server import HANG_UP
from tests.client.samples import CONNECTION, SESSION, STATUS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client.fake_server import FakeServer

ROOT = Path(__file__).parent.parent.parent
CONFIGURATION = models.ServerConfiguration(idle_shutdown_hours=2)
HISTORY: dict[str, Any] = {"input": "1", "output": "1", "timestamp": 5, "truncated": False}
REPLY = {"status": "ok", "execution_count": 1, "output": []}
NEW = build_session(Kernelspec(argv=["x"], language="r"), "one")

OPERATIONS: list[tuple[str, str, Any, Callable[[Client], Awaitable[object]], Any, Any]] = [
    ("GET", "/status", STATUS, lambda c: c.server_status(), "version", "1.2.3"),
    (
        "GET",
        "/sessions",
        {"total": 1, "sessions": [SESSION]},
        lambda c: c.list_sessions(),
        "total",
        1,
    ),
    ("PUT", "/sessions", {"session_id": "one"}, lambda c: c.new_session(NEW), None, "one"),
    ("GET", "/sessions/one", SESSION, lambda c: c.get_session("one"), "status", "idle"),
    ("DELETE", "/sessions/one", None, lambda c: c.delete_session("one"), None, None),
    (
        "POST",
        "/sessions/one/start",
        {"banner": "b"},
        lambda c: c.start_session("one"),
        None,
        {"banner": "b"},
    ),
    ("POST", "/sessions/one/restart", None, lambda c: c.restart_session("one"), None, None),
    ("POST", "/sessions/one/kill", None, lambda c: c.kill_session("one"), None, None),
    ("POST", "/sessions/one/interrupt", None, lambda c: c.interrupt_session("one"), None, None),
    (
        "PUT",
        "/sessions/one/adopt",
        {"banner": "b"},
        lambda c: c.adopt_session("one", models.ConnectionInfo(**CONNECTION)),
        None,
        {"banner": "b"},
    ),
    (
        "GET",
        "/sessions/one/connection_info",
        CONNECTION,
        lambda c: c.connection_info("one"),
        "key",
        "k",
    ),
    ("GET", "/sessions/one/channels", "/s", lambda c: c.channels_upgrade("one"), None, "/s"),
    (
        "POST",
        "/sessions/one/execute",
        REPLY,
        lambda c: c.execute_code("one", models.ExecuteRequest(code="1")),
        "execution_count",
        1,
    ),
    (
        "GET",
        "/sessions/one/history",
        [HISTORY],
        lambda c: c.get_session_history("one"),
        None,
        [models.ExecutionHistoryEntry(**HISTORY)],
    ),
    ("POST", "/client_heartbeat", None, lambda c: c.client_heartbeat(7), None, None),
    (
        "GET",
        "/server_configuration",
        {"idle_shutdown_hours": 2},
        lambda c: c.get_server_configuration(),
        None,
        CONFIGURATION,
    ),
    (
        "POST",
        "/server_configuration",
        None,
        lambda c: c.set_server_configuration(CONFIGURATION),
        None,
        None,
    ),
    ("POST", "/shutdown", None, lambda c: c.shutdown_server(), None, None),
]


@pytest.mark.parametrize(
    ("method", "path", "answer", "call", "member", "expected"),
    OPERATIONS,
    ids=[f"{case[0]} {case[1]}" for case in OPERATIONS],
)
async def test_an_operation_asks_as_the_contract_says_and_decodes_the_answer(
    server: FakeServer,
    client: Client,
    method: str,
    path: str,
    answer: Any,
    call: Callable[[Client], Awaitable[object]],
    member: str | None,
    expected: object,
) -> None:
    server.answer(method, path, answer)
    value = await call(client)
    assert (getattr(value, member) if member else value) == expected
    assert [(request.method, request.target) for request in server.requests] == [(method, path)]
    assert server.requests[0].headers["authorization"] == "Bearer secret"


def test_every_operation_of_the_contract_has_a_method() -> None:
    document = json.loads((ROOT / "kallichore.json").read_text())
    operations = {
        operation["operationId"].replace("-", "_")
        for path in document["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict)
    }
    assert len(operations) == 19
    assert [name for name in sorted(operations) if not hasattr(Client, name)] == []
    asked = {(case[0].lower(), case[1].replace("/one", "/{session_id}")) for case in OPERATIONS}
    described = {(method, path) for path, item in document["paths"].items() for method in item}
    assert asked <= described


async def test_a_body_is_what_the_model_encodes_to(server: FakeServer, client: Client) -> None:
    server.answer("PUT", "/sessions", {"session_id": "one"})
    await client.new_session(NEW)
    body = server.requests[0].json
    assert (body["argv"], body["language"], body["env"]) == (["x"], "r", [])
    assert server.requests[0].headers["content-type"] == "application/json"


async def test_a_restart_without_changes_has_no_body(server: FakeServer, client: Client) -> None:
    server.answer("POST", "/sessions/one/restart", None)
    await client.restart_session("one")
    assert server.requests[0].body == b""


@pytest.mark.parametrize(
    ("session_id", "target"),
    [
        ("a/b?c#d", "/sessions/a%2Fb%3Fc%23d"),
        ("..", "/sessions/%2E%2E"),
        ("ä 50%", "/sessions/%C3%A4%2050%25"),
    ],
)
async def test_any_session_id_survives_the_path(
    server: FakeServer, client: Client, session_id: str, target: str
) -> None:
    with pytest.raises(SessionUnknown) as caught:
        await client.get_session(session_id)
    assert server.requests[0].target == target
    assert repr(session_id) in str(caught.value)


async def test_an_error_object_becomes_an_exception_with_its_members(
    server: FakeServer, client: Client
) -> None:
    error = {"code": "KS-2", "message": "Session one is running", "details": "more"}
    server.answer("DELETE", "/sessions/one", error, 400)
    with pytest.raises(RequestFailed) as caught:
        await client.delete_session("one")
    failure = caught.value
    assert (failure.status, failure.code, failure.message) == (400, "KS-2", error["message"])
    assert failure.details == "more"
    assert str(failure) == "Session one is running (KS-2)"


async def test_a_failed_start_keeps_exit_code_and_output(
    server: FakeServer, client: Client
) -> None:
    error = {"code": "KS-8", "message": "The process exited abnormally (exit status: 3)"}
    body = {"exit_code": 3, "output": "Boom\n", "error": error}
    server.answer("POST", "/sessions/one/start", body, 500)
    with pytest.raises(StartFailed) as caught:
        await client.start_session("one")
    assert (caught.value.exit_code, caught.value.output, caught.value.code) == (3, "Boom\n", "KS-8")


async def test_a_failed_start_may_know_neither(server: FakeServer, client: Client) -> None:
    server.answer("POST", "/sessions/one/restart", {"error": {"code": "KS-5", "message": "m"}}, 500)
    with pytest.raises(StartFailed) as caught:
        await client.restart_session("one")
    assert (caught.value.exit_code, caught.value.output) == (None, None)


async def test_a_wrong_token_is_said_to_be_one(server: FakeServer, client: Client) -> None:
    server.answers["GET", "/sessions"] = 401, b""
    with pytest.raises(TokenRefused, match="token"):
        await client.list_sessions()


async def test_a_refusal_in_another_form_is_reported_as_it_is(
    server: FakeServer, client: Client
) -> None:
    server.answers["GET", "/sessions"] = 502, b"<html>no gateway</html>"
    with pytest.raises(RequestFailed, match="answered 502 <html>no gateway</html>") as caught:
        await client.list_sessions()
    assert caught.value.code == "http_502"


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"", b"\xff", b"null"])
async def test_an_answer_of_another_shape_is_unexpected(
    server: FakeServer, client: Client, body: bytes
) -> None:
    server.answers["GET", "/status"] = 200, body
    with pytest.raises(UnexpectedAnswer, match="GET /status"):
        await client.server_status()


@pytest.mark.parametrize("answer", [HANG_UP, b"SSH-2.0-OpenSSH\r\n"])
async def test_a_server_that_goes_away_is_named(
    server: FakeServer, client: Client, answer: bytes
) -> None:
    server.raw["/status"] = answer
    with pytest.raises(ServerGone, match="went away during GET /status") as caught:
        await client.server_status()
    assert str(client.target) in str(caught.value)


async def test_nobody_at_the_address_is_said_in_one_sentence(short_path: Path) -> None:
    async with open_client(f"unix:{short_path}/none.sock") as client:
        with pytest.raises(ServerGone, match=r"No server answers at Unix socket .*none\.sock\."):
            await client.server_status()


async def test_without_a_token_no_header_is_sent(server: FakeServer) -> None:
    server.answer("GET", "/status", STATUS)
    async with open_client(server.address) as client:
        await client.server_status()
    assert "authorization" not in server.requests[0].headers


async def test_a_proxy_of_the_environment_is_not_asked(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    server.answer("GET", "/status", STATUS)
    async with open_client(server.address) as client:
        assert (await client.server_status()).process_id == 42


async def test_cancelling_an_operation_drops_its_connection_and_the_client_goes_on(
    server: FakeServer, client: Client, nursery: trio.Nursery
) -> None:
    server.silent.add("/sessions/one/start")
    server.answer("GET", "/status", STATUS)
    with trio.CancelScope() as scope:
        nursery.start_soon(_cancel_when, server.asked, scope)
        await client.start_session("one")
    assert scope.cancelled_caught
    await server.gone.wait()
    assert (await client.server_status()).sessions == 1


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel(reason="the test wants it")
