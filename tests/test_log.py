"""Logging: destinations, formats, levels, and the secrets that must not come through."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kallichore import log
from kallichore.config import LogFormat, LogLevel
from kallichore.errors import StartupRefusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("restored_logging")

logger = logging.getLogger("kallichore.test")


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    """The text log at level trace."""
    path = tmp_path / "kc.log"
    log.configure(level=LogLevel.TRACE, log_format=LogFormat.TEXT, log_file=path)
    return path


@pytest.fixture
def json_file(tmp_path: Path) -> Path:
    """The JSON log at level trace."""
    path = tmp_path / "kc.json"
    log.configure(level=LogLevel.TRACE, log_format=LogFormat.JSON, log_file=path)
    return path


@pytest.fixture
def secret() -> Iterator[str]:
    value = "correct-horse-battery-staple"
    log.keep_secret(value)
    yield value
    log.release_secret(value)


def leave_it_to_us() -> None:
    """Take pytest's handlers off: it cannot report everything that we can log."""
    root = logging.getLogger()
    root.handlers[:] = [one for one in root.handlers if type(one).__module__ == log.__name__]


def fail(text: str) -> None:
    raise ValueError(text)


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_log_file_is_there_at_once_and_readable_by_its_owner_alone(log_file: Path) -> None:
    assert log_file.read_text() == ""
    assert stat.S_IMODE(log_file.stat().st_mode) == 0o600


def test_each_record_is_in_the_file_as_soon_as_it_is_logged(log_file: Path) -> None:
    for number in range(3):
        logger.info("record %d", number)
        assert log_file.read_text().splitlines()[-1].endswith(f"record {number}")


def test_an_existing_log_file_is_continued(log_file: Path) -> None:
    log_file.write_text("before\n")
    logger.info("after")
    assert log_file.read_text().startswith("before\n")


def test_records_go_to_stderr_too(log_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logger.info("hello")
    assert capfd.readouterr().err == log_file.read_text()


def test_a_log_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "kc.log"
    with pytest.raises(StartupRefusal) as refusal:
        log.configure(level=LogLevel.INFO, log_format=LogFormat.TEXT, log_file=missing)
    assert str(refusal.value) == f"Cannot write the log file {missing}: No such file or directory"


def test_text_lines_hold_time_level_logger_session_and_reason(log_file: Path) -> None:
    extra = {"session_id": "s1", "reason": "signal", "pid": 7}
    logger.warning("Session %s", "ended", extra=extra)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARN  kallichore\.test \[s1\] "
        r"Session ended \(signal; pid=7\)\n",
        log_file.read_text(),
    )


def test_json_lines_hold_the_same_as_fields(json_file: Path) -> None:
    extra = {"session_id": "s1", "reason": "signal", "pid": 7}
    logger.warning("Session %s", "ended", extra=extra)
    (entry,) = entries(json_file)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(entry.pop("time")))
    assert entry == {
        "level": "warn",
        "logger": "kallichore.test",
        "message": "Session ended",
        "session_id": "s1",
        "reason": "signal",
        "pid": 7,
    }


def test_the_session_of_the_task_is_the_session_of_the_record(json_file: Path) -> None:
    token = log.current_session.set("s2")
    try:
        logger.info("implied")
        logger.info("explicit", extra={"session_id": "s3"})
    finally:
        log.current_session.reset(token)
    logger.info("none")
    assert [entry.get("session_id") for entry in entries(json_file)] == ["s2", "s3", None]


def test_tracebacks_are_part_of_the_record(json_file: Path) -> None:
    try:
        fail("inner")
    except ValueError:
        logger.exception("outer")
    assert "ValueError: inner" in str(entries(json_file)[0]["exception"])


def test_a_traceback_follows_its_text_line(log_file: Path) -> None:
    try:
        fail("inner")
    except ValueError:
        logger.exception("outer")
    lines = log_file.read_text().splitlines()
    assert lines[0].endswith("outer")
    assert lines[-1] == "ValueError: inner"


def test_nothing_that_is_logged_can_begin_a_line_of_its_own(log_file: Path) -> None:
    logger.info("one\r\ntwo\x1b[31m\tthree")
    assert log_file.read_text().endswith("one\\r\\ntwo\\x1b[31m\tthree\n")


def test_a_lone_surrogate_does_not_break_the_json_log(json_file: Path) -> None:
    leave_it_to_us()
    logger.info("lone \ud800")
    assert entries(json_file)[0]["message"] == "lone \ud800"


def test_a_lone_surrogate_does_not_break_the_text_log(log_file: Path) -> None:
    leave_it_to_us()
    logger.info("lone \ud800")
    assert log_file.read_text().endswith("lone \\ud800\n")


LEVELS = [LogLevel.TRACE, LogLevel.DEBUG, LogLevel.INFO, LogLevel.WARN, LogLevel.ERROR]


@pytest.mark.parametrize("level", LEVELS)
def test_the_level_can_be_changed_while_the_server_runs(json_file: Path, level: LogLevel) -> None:
    log.set_level(level)
    for number in (log.TRACE, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logger.log(number, "said")
    heard = [entry["level"] for entry in entries(json_file)]
    assert heard == [str(word) for word in LEVELS[LEVELS.index(level) :]]


def test_libraries_are_heard_from_warnings_on_only(json_file: Path) -> None:
    logging.getLogger("hypercorn.error").info("not said")
    logging.getLogger("hypercorn.error").warning("said")
    assert [entry["message"] for entry in entries(json_file)] == ["said"]


def test_configuring_again_replaces_the_destinations(json_file: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    log.configure(level=LogLevel.INFO, log_format=LogFormat.JSON, log_file=second)
    logger.info("said")
    assert entries(json_file) == []
    assert len(entries(second)) == 1


def test_a_kept_secret_never_comes_through(
    log_file: Path, capfd: pytest.CaptureFixture[str], secret: str
) -> None:
    logger.info("message %s", secret)
    logger.info("field", extra={"reason": secret})
    try:
        fail(secret)
    except ValueError:
        logger.exception("traceback")
    assert secret not in log_file.read_text() + capfd.readouterr().err
    assert log_file.read_text().count("[redacted]") == 3


def test_a_kept_secret_never_comes_through_json(json_file: Path, secret: str) -> None:
    logger.info("message %s", secret, extra={"reason": secret, "other": [secret]})
    try:
        fail(secret)
    except ValueError:
        logger.exception("traceback")
    assert secret not in json_file.read_text()


def test_a_released_secret_is_only_a_word_again(log_file: Path) -> None:
    log.keep_secret("hunter2")
    log.release_secret("hunter2")
    logger.info("hunter2")
    assert log_file.read_text().endswith("hunter2\n")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer 0123456789abcdef0123456789abcdef",
        "[(b'authorization', b'bearer 0123456789abcdef0123456789abcdef')]",
        '{"key": "0123456789abcdef0123456789abcdef"}',
        "{'key': '0123456789abcdef0123456789abcdef'}",
        '{"bearer_token":"0123456789abcdef0123456789abcdef"}',
    ],
)
def test_what_looks_like_a_secret_does_not_come_through_either(log_file: Path, text: str) -> None:
    logger.info("got %s", text)
    assert "0123456789abcdef" not in log_file.read_text()


def test_words_about_tokens_are_no_secrets(log_file: Path) -> None:
    logger.info("The bearer token is missing; the key 'a' has no value")
    assert "[redacted]" not in log_file.read_text()


PIPE_SCRIPT = """
import logging, sys
from kallichore import log
from kallichore.config import LogFormat, LogLevel

log.configure(level=LogLevel.INFO, log_format=LogFormat.TEXT, log_file=None)
for number in range(1000):
    logging.getLogger("kallichore").info("%0500d", number)
sys.stdout.write("done\\n")
sys.stdout.flush()
sys.stdin.readline()
logging.getLogger("kallichore").info("the last")
"""


def test_a_stderr_that_nobody_reads_never_stalls_and_says_what_was_dropped() -> None:
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", PIPE_SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=writer,
    ) as process:
        os.close(writer)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_NONBLOCK)
        first = os.read(reader, 1 << 20)
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait() == 0
        last = os.read(reader, 1 << 20).decode()
    os.close(reader)
    kept = first.count(b"\n")
    assert 0 < kept < 1000
    assert last.startswith(f"({1000 - kept} log records dropped: stderr was not read)\n")
    assert last.endswith("the last\n")


def test_a_closed_stderr_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    script = PIPE_SCRIPT.replace("1000", "3")
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=b"\n",
        stdout=subprocess.PIPE,
        stderr=writer,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stdout) == (0, b"done\n")
