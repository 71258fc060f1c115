"""What people see of sessions, settings and messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kallichore import models
from kallichore.client import Header, JupyterMessage, tables
from kallichore.client.messages import FrameRefused, WorkingDirChanged
from kallichore.client.screen import Screen
from tests.client.samples import SESSION, STATUS

if TYPE_CHECKING:
    from kallichore.client.messages import Event


def session(**changes: Any) -> models.ActiveSession:
    return msgspec.json.decode(msgspec.json.encode(SESSION | changes), type=models.ActiveSession)


def lines(text: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.splitlines())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3, "0 s"), (0, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (864000, "10 d")],
)
def test_an_age_has_one_unit(seconds: float, said: str) -> None:
    assert tables.age(seconds) == said


def test_columns_are_aligned() -> None:
    assert tables.table(("A", "BB"), [("xxx", "y")]) == "A    BB\nxxx  y"


def test_a_busy_server_says_for_how_long() -> None:
    status = msgspec.convert(STATUS | {"busy": True, "busy_seconds": 61}, models.ServerStatus)
    shown = lines(tables.server(status))
    assert (shown["Busy"].strip(), shown["Idle"].strip()) == ("1 min", "no")


@pytest.mark.parametrize(
    ("last_exit", "said"),
    [
        ({"exit_code": 3, "requested": False}, "exit code 3,"),
        ({"exit_code": 0, "requested": True}, "exit code 0, as asked,"),
        ({"exit_code": -1, "signal": "SIGKILL", "requested": False}, "killed by SIGKILL,"),
        (
            {"exit_code": -1, "signal": "SIGKILL", "requested": False, "out_of_memory": True},
            "killed by SIGKILL, out of memory,",
        ),
    ],
)
def test_info_says_how_the_last_run_ended(last_exit: dict[str, Any], said: str) -> None:
    one = session(last_exit=last_exit | {"at": "2026-01-02T03:04:05Z"})
    assert lines(tables.session(one))["Last exit"].strip().startswith(said)


def test_info_shows_what_the_kernel_uses() -> None:
    usage = {
        "cpu_percent": 50,
        "memory_bytes": 3 * 1024 * 1024,
        "thread_count": 4,
        "sampling_period_ms": 1000,
        "timestamp": 1,
    }
    shown = lines(tables.session(session(resource_usage=usage, idle_seconds=5)))
    assert (shown["CPU"].strip(), shown["Memory"].strip()) == ("50 %", "3 MiB")
    assert shown["Idle"].strip() == "5 s"
    assert "Last exit" not in shown


def show(msg_type: str, content: dict[str, Any]) -> None:
    message = JupyterMessage(header=Header(msg_type=msg_type), channel="iopub", content=content)
    Screen(as_json=False).show(message)


def test_a_display_without_plain_text_names_its_types(capsys: pytest.CaptureFixture[str]) -> None:
    show("display_data", {"data": {"image/png": "A", "text/html": ["<b>", "</b>"]}})
    assert capsys.readouterr().out == "[image/png, text/html]\n"


def test_an_aborted_request_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    show("execute_reply", {"status": "aborted"})
    assert capsys.readouterr().err == "[the kernel did not run this]\n"


def test_a_failure_that_no_output_has_told_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    show("execute_reply", {"status": "error", "ename": "E", "evalue": "why"})
    assert capsys.readouterr().err == "E: why\n"


def test_a_lone_surrogate_of_a_kernel_is_shown_somehow(capsys: pytest.CaptureFixture[str]) -> None:
    show("stream", {"name": "stdout", "text": "a\ud800b"})
    assert capsys.readouterr().out == "a?b"


def test_messages_for_machines_only_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show("comm_open", {"data": {}})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (models.StatusChange(status=models.Status.READY, reason=None), "[ready]\n"),
        (WorkingDirChanged("/a"), "[the working directory is /a]\n"),
        (FrameRefused(models.Error(code="x", message="No.")), "[No.]\n"),
    ],
)
def test_an_event_is_a_note(event: Event, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Screen(as_json=False).show_event(event)
    assert capsys.readouterr().err == said
