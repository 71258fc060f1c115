"""Models as JSON: what is left out, what is ignored, and what is passed on untouched."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from kallichore import models

CONNECTION = models.ConnectionInfo(
    control_port=1,
    shell_port=2,
    stdin_port=3,
    hb_port=4,
    iopub_port=5,
    signature_scheme="hmac-sha256",
    key="k",
    transport="tcp",
    ip="127.0.0.1",
)


def plain(model: msgspec.Struct) -> object:
    return msgspec.json.decode(msgspec.json.encode(model))


def session(**changes: object) -> models.ActiveSession:
    fields: dict[str, object] = {
        "session_id": "a",
        "argv": [],
        "username": "u",
        "display_name": "d",
        "language": "l",
        "interrupt_mode": models.InterruptMode.SIGNAL,
        "connected": False,
        "started": datetime(2025, 3, 1, 9, 30, tzinfo=UTC),
        "session_mode": models.SessionMode.CONSOLE,
        "working_directory": "/",
        "input_prompt": ">",
        "continuation_prompt": "+",
        "execution_queue": models.ExecutionQueue(length=0, pending=[]),
        "status": models.Status.UNINITIALIZED,
        "kernel_info": msgspec.Raw(b"{}"),
        "idle_seconds": 0,
        "busy_seconds": 0,
        "history": [],
    }
    return models.ActiveSession(**(fields | changes))  # type: ignore[arg-type]


def test_every_model_is_known_to_msgspec() -> None:
    for name in models.__all__:
        msgspec.inspect.type_info(getattr(models, name))


def test_a_session_leaves_out_what_it_does_not_have() -> None:
    record = plain(session())
    assert isinstance(record, dict)
    optional = {"process_id", "initial_env", "notebook_uri", "resource_usage", "socket_path"}
    assert not {*optional, "last_exit"} & set(record)
    assert record["execution_queue"] == {"length": 0, "pending": []}
    assert record["kernel_info"] == {}
    assert record["started"] == "2025-03-01T09:30:00Z"


def test_false_and_zero_and_empty_are_values_and_stay() -> None:
    record = plain(session(initial_env={}, socket_path=""))
    assert isinstance(record, dict)
    kept = [record[name] for name in ("connected", "idle_seconds", "initial_env", "socket_path")]
    assert kept == [False, 0, {}, ""]


def test_raw_json_is_passed_on_byte_by_byte() -> None:
    message = b'{"b": 1e400, "a" : 12345678901234567890123, "\\u00e9": null}'
    queue = models.ExecutionQueue(
        active=msgspec.Raw(message), length=1, pending=[msgspec.Raw(message)]
    )
    assert msgspec.json.encode(queue) == (
        b'{"active":' + message + b',"length":1,"pending":[' + message + b"]}"
    )
    info = session(kernel_info=msgspec.Raw(message)).kernel_info
    assert bytes(info) == message


def test_a_last_exit_says_only_what_is_known() -> None:
    exit_ = models.LastExit(exit_code=0, requested=True, at=datetime(2025, 3, 1, tzinfo=UTC))
    assert plain(exit_) == {"exit_code": 0, "requested": True, "at": "2025-03-01T00:00:00Z"}


def test_connection_info_is_a_connection_file() -> None:
    assert msgspec.json.encode(CONNECTION) == (
        b'{"control_port":1,"shell_port":2,"stdin_port":3,"hb_port":4,"iopub_port":5,'
        b'"signature_scheme":"hmac-sha256","key":"k","transport":"tcp","ip":"127.0.0.1"}'
    )


def test_a_status_without_a_reason_says_null() -> None:
    event = models.KernelEvent(status=models.StatusChange(status=models.Status.IDLE, reason=None))
    assert plain(event) == {"kind": "kernel", "status": {"status": "idle", "reason": None}}


@pytest.mark.parametrize(
    ("event", "key", "value"),
    [
        (models.KernelEvent(exited=0), "exited", 0),
        (models.KernelEvent(exited=-1), "exited", -1),
        (models.KernelEvent(output=(models.StreamName.STDERR, "")), "output", ["stderr", ""]),
        (models.KernelEvent(execution_queued="m"), "executionQueued", "m"),
        (models.KernelEvent(working_dir_changed="/x"), "workingDirChanged", "/x"),
        (models.KernelEvent(client_disconnected="bye"), "clientDisconnected", "bye"),
        (
            models.KernelEvent(handshake_completed=("s", CONNECTION)),
            "handshakeCompleted",
            ["s", plain(CONNECTION)],
        ),
        (
            models.KernelEvent(
                resource_usage=models.ResourceUsage(
                    cpu_percent=0,
                    memory_bytes=1,
                    thread_count=2,
                    sampling_period_ms=3,
                    timestamp=4,
                )
            ),
            "resourceUsage",
            {
                "cpu_percent": 0,
                "memory_bytes": 1,
                "thread_count": 2,
                "sampling_period_ms": 3,
                "timestamp": 4,
            },
        ),
        (
            models.KernelEvent(
                execution_requested=models.ExecutionRequested(
                    msg_id="m",
                    code="1",
                    requested_at=datetime(2025, 3, 1, tzinfo=UTC),
                    attribution=models.Attribution(source="agent", agent_name="tidy"),
                )
            ),
            "executionRequested",
            {
                "msg_id": "m",
                "code": "1",
                "requested_at": "2025-03-01T00:00:00Z",
                "attribution": {"source": "agent", "agent_name": "tidy"},
            },
        ),
        (
            models.KernelEvent(resumed=models.Resumed(after=1, oldest=5)),
            "resumed",
            {"after": 1, "oldest": 5},
        ),
    ],
)
def test_an_event_has_its_kind_and_one_key(
    event: models.KernelEvent, key: str, value: object
) -> None:
    encoded = msgspec.json.encode(event)
    assert msgspec.json.decode(encoded) == {"kind": "kernel", key: value}
    assert msgspec.json.decode(encoded, type=models.KernelEvent) == event


def test_the_seven_statuses() -> None:
    assert {*models.Status} == {
        "uninitialized",
        "starting",
        "ready",
        "idle",
        "busy",
        "offline",
        "exited",
    }
