"""The error table of CONTRACT 2.1: codes, statuses and messages, word for word."""

from __future__ import annotations

import msgspec
import pytest

from kallichore import errors
from kallichore.errors import KallichoreError, StartupFailed, StartupRefusal

TABLE = [
    ("KS-0", 400, errors.SessionExists("a"), "Session a already exists"),
    ("KS-1", 404, errors.SessionNotFound("a"), "Session a not found"),
    ("KS-2", 400, errors.SessionRunning("a"), "Session a is running"),
    ("KS-3", 400, errors.SessionNotRunning("a"), "Session a is not running"),
    ("KS-4", 400, errors.ProcessNotFound(7, "a"), "Can't find process 7 for session a"),
    ("KS-5", 500, errors.SpawnFailed("w"), "Failed to start process for session: w"),
    ("KS-6", 500, errors.ConnectFailed("w"), "Failed to connect to session's ZeroMQ sockets: w"),
    (
        "KS-7",
        500,
        errors.ConnectTimeout(30.0),
        "Timed out waiting to connect to session's ZeroMQ sockets after 30 seconds",
    ),
    (
        "KS-8",
        500,
        errors.ProcessExited("exit status: 1"),
        "The process exited abnormally (exit status: 1)",
    ),
    ("KS-9", 400, errors.CreateFailed("a", "w"), "Failed to create session a: w"),
    ("KS-10", 400, errors.InterruptFailed("a", "w"), "Failed to interrupt session a: w"),
    ("KS-11", 500, errors.ProxyFailed("w"), "Error receiving or proxying ZeroMQ messages: w"),
    (
        "KS-12",
        400,
        errors.NoProcess("a"),
        "There is no process associated with session a (has it exited?)",
    ),
    ("KS-13", 500, errors.RestartFailed("w"), "Failed to restart kernel: w"),
    (
        "KS-14",
        500,
        errors.ExitedBeforeConnecting(),
        "The kernel exited before a connection could be established",
    ),
    (
        "KS-15",
        500,
        errors.NoKernelInfo("w"),
        "Failed to get kernel info from the kernel process: w",
    ),
    ("KS-16", 500, errors.StartFailed("w"), "Failed to start kernel: w"),
    (
        "KS-17",
        500,
        errors.RegistrationFailed("a", "w"),
        "JEP 66 handshake failed for session a: w",
    ),
    (
        "KS-18",
        500,
        errors.NoConnectionInfo("a", "w"),
        "Connection information is not available for session a: w",
    ),
    ("KS-19", 400, errors.KernelPathNotFound("/x"), "Kernel path not found: /x"),
    ("bad_request", 400, errors.BadRequest("w"), "w"),
    (
        "socket_path_too_long",
        400,
        errors.SocketPathTooLong("/é", 2),
        "The socket path /é has 3 bytes; at most 2 are possible",
    ),
    ("session_not_ready", 400, errors.SessionNotReady("a", "w"), "Session a cannot run code: w"),
    ("timeout", 408, errors.ExecutionTimeout(0.5), "The code did not finish within 0.5 seconds"),
    (
        "too_many_sessions",
        400,
        errors.TooManySessions(3),
        "There are 3 sessions already, and no more are allowed",
    ),
    ("not_found", 404, errors.NotFound("/x"), "There is nothing at /x"),
    ("method_not_allowed", 405, errors.MethodNotAllowed("PUT", "/x"), "/x has no method PUT"),
    ("forbidden", 403, errors.Forbidden("w"), "w"),
    ("body_too_large", 413, errors.BodyTooLarge(9), "The request's body has more than 9 bytes"),
    ("server_stopping", 503, errors.ServerStopping(), "The server is shutting down"),
    (
        "internal_error",
        500,
        errors.InternalError(),
        "The server failed to answer this request; its log says why",
    ),
]


@pytest.mark.parametrize(
    ("code", "status", "error", "message"), TABLE, ids=[row[0] for row in TABLE]
)
def test_an_error_has_its_code_its_status_and_its_message(
    code: str, status: int, error: KallichoreError, message: str
) -> None:
    assert (error.code, error.status, error.message, str(error)) == (code, status, message, message)


def test_every_error_is_in_the_table() -> None:
    classes = {
        cls
        for name in errors.__all__
        if isinstance(cls := getattr(errors, name), type)
        and issubclass(cls, KallichoreError)
        and cls is not KallichoreError
    }
    assert {type(row[2]) for row in TABLE} == classes


def test_no_two_errors_share_a_code() -> None:
    codes = [row[0] for row in TABLE]
    assert len({*codes}) == len(codes)


def test_only_an_unknown_session_is_answered_without_a_body() -> None:
    assert [row[0] for row in TABLE if row[2].empty_body] == ["KS-1"]


def test_details_that_are_absent_are_left_out() -> None:
    error = errors.SpawnFailed("no memory")
    assert msgspec.json.decode(msgspec.json.encode(error.to_model())) == {
        "code": "KS-5",
        "message": "Failed to start process for session: no memory",
    }


def test_details_are_told() -> None:
    error = errors.StartFailed("no").with_details("Shell: /bin/sh")
    assert error.to_model().details == "Shell: /bin/sh"
    assert errors.BadRequest("no", "more").to_model().details == "more"


def test_a_failed_start_tells_what_the_process_left() -> None:
    failed = StartupFailed(errors.ProcessExited("exit status: 3"), 3, "oh no\n")
    assert failed.status == 500
    assert str(failed) == "The process exited abnormally (exit status: 3)"
    assert msgspec.json.encode(failed.to_model()) == (
        b'{"exit_code":3,"output":"oh no\\n","error":{"code":"KS-8",'
        b'"message":"The process exited abnormally (exit status: 3)"}}'
    )


def test_a_failed_start_without_a_process_tells_only_the_error() -> None:
    failed = StartupFailed(errors.ExitedBeforeConnecting())
    assert set(msgspec.json.decode(msgspec.json.encode(failed.to_model()))) == {"error"}


def test_a_refusal_to_start_is_its_sentence() -> None:
    assert str(StartupRefusal("The port is taken")) == "The port is taken"
