"""Logging: where records go, how they look, and what must never be in one.

Modules log through the standard library (``logging.getLogger(__name__)``); this one owns the two
destinations (stderr and ``--log-file``), the two formats, the ``trace`` level and the second line
of defence against secrets. A record belongs to a session if it carries ``session_id`` among its
``extra`` fields, or if its task has set `current_session`; ``reason`` says why something happened.
"""

from __future__ import annotations

import contextvars
import errno
import json
import logging
import os
import re
import select
import stat
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from kallichore.config import LogFormat, LogLevel
from kallichore.errors import StartupRefusal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["TRACE", "configure", "current_session", "keep_secret", "release_secret", "set_level"]

TRACE: Final = 5
"""The level below `logging.DEBUG`: every message on the road."""

current_session: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "current_session", default=None
)
"""The session that the running task works for."""

_LEVELS: Final = {
    LogLevel.TRACE: TRACE,
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARN: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}
_NAMES: Final = {number: str(level).upper() for level, number in _LEVELS.items()}
_PLAIN_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)} | {
    0x09: "\t",
    0x0A: "\\n",
    0x0D: "\\r",
}
_PIPE_BYTES: Final = 4096
"""What a pipe that polls as writable takes without blocking (POSIX's PIPE_BUF on Linux)."""

_secrets: set[str] = set()
_REDACTED: Final = "[redacted]"
_SECRET_PATTERNS: Final = re.compile(
    r"""(?ix)
    (?<= \bbearer \s) [\w.~+/=-]{16,}
    | (?<= ["'] key ["'] : ) \s* ["'] [^"']+ ["']
    | (?<= ["'] bearer_token ["'] : ) \s* ["'] [^"']+ ["']
    """
)


def keep_secret(secret: str) -> None:
    """Never show ``secret`` in a record from now on: a token, or a session's key."""
    if secret:
        _secrets.add(secret)


def release_secret(secret: str) -> None:
    """Forget a secret that no longer opens anything."""
    _secrets.discard(secret)


def _redact(text: str) -> str:
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, _REDACTED)
    return _SECRET_PATTERNS.sub(_REDACTED, text)


def _extra_fields(record: logging.LogRecord) -> dict[str, object]:
    """The structured fields of a record: session and reason first, then what else it was given."""
    given = {name: value for name, value in vars(record).items() if name not in _PLAIN_FIELDS}
    session = given.pop("session_id", None) or current_session.get()
    reason = given.pop("reason", None)
    fields = {"session_id": session, "reason": reason, **given}
    return {name: value for name, value in fields.items() if value is not None}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _TextFormatter(logging.Formatter):
    """``time LEVEL logger [session] message (reason; name=value)``, and the traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _extra_fields(record)
        session = fields.pop("session_id", None)
        notes = [str(fields.pop("reason"))] if "reason" in fields else []
        notes += [f"{name}={value}" for name, value in fields.items()]
        level = _NAMES.get(record.levelno, record.levelname)
        line = f"{_time(record)} {level:<5} {record.name}"
        if session is not None:
            line += f" [{session}]"
        line += f" {record.getMessage()}"
        if notes:
            line += f" ({'; '.join(notes)})"
        line = line.translate(_CONTROLS)  # one line an event, whatever a kernel or a client sent
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return _redact(line)


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the structured fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": _time(record),
            "level": _NAMES.get(record.levelno, record.levelname).lower(),
            "logger": record.name,
            "message": _redact(record.getMessage()),
        }
        for name, value in _extra_fields(record).items():
            plain = isinstance(value, bool | int | float)
            entry[name] = value if plain else _redact(str(value))
        if record.exc_info:
            entry["exception"] = _redact(self.formatException(record.exc_info))
        return json.dumps(entry)


class _FileHandler(logging.FileHandler):
    """The log file: created at once, readable by its owner alone, flushed after each record."""

    def _open(self):  # type: ignore[no-untyped-def]  # noqa: ANN202 (typeshed's is private)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        directory = os.stat(os.path.dirname(self.baseFilename))  # noqa: PTH116, PTH120 (no Path here)
        is_shared = directory.st_mode & stat.S_IWOTH
        if is_shared:  # where a link or a file may be somebody else's trap
            flags |= os.O_NOFOLLOW
        descriptor = os.open(self.baseFilename, flags, 0o600)
        if is_shared and os.fstat(descriptor).st_uid != os.geteuid():
            os.close(descriptor)
            raise PermissionError(errno.EPERM, "it is somebody else's", self.baseFilename)
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """A full disk must not fill stderr too."""


class _StderrHandler(logging.Handler):
    """Standard error, which must never stall the server.

    Whoever started us may have given us a pipe and never read it. A record that does not fit is
    dropped, and the next one that fits says how many were.
    """

    def __init__(self) -> None:
        super().__init__()
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        lines = self.format(record) + "\n"
        if self._dropped:
            lines = f"({self._dropped} log records dropped: stderr was not read)\n{lines}"
        if self._write(lines.encode("utf-8", "backslashreplace")):
            self._dropped = 0
        else:
            self._dropped += 1

    @staticmethod
    def _write(data: bytes) -> bool:
        """Whether it was written, in part at least. A closed stderr swallows everything."""
        for start in range(0, len(data), _PIPE_BYTES):
            try:
                if not _takes_more(2):
                    return start > 0
                os.write(2, data[start : start + _PIPE_BYTES])
            except OSError:
                return True
        return True


def _takes_more(descriptor: int) -> bool:
    """Whether `_PIPE_BYTES` can be written to ``descriptor`` without blocking."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def configure(*, level: LogLevel, log_format: LogFormat, log_file: Path | None) -> None:
    """Send records to stderr, and to ``log_file`` if there is one.

    Everything of ours from ``level`` on, and warnings of the libraries under us. Calling it again
    replaces what the last call set up.

    Raises:
        StartupRefusal: The log file cannot be written.

    """
    handlers: list[logging.Handler] = [_StderrHandler()] if sys.stderr else []
    if log_file is not None:
        try:
            handlers.append(_FileHandler(log_file))
        except OSError as exc:
            why = exc.strerror or exc
            raise StartupRefusal(f"Cannot write the log file {log_file}: {why}") from exc
    _install(handlers, _JsonFormatter() if log_format is LogFormat.JSON else _TextFormatter())
    set_level(level)


def _install(handlers: Iterable[logging.Handler], formatter: logging.Formatter) -> None:
    logging.addLevelName(TRACE, "TRACE")
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, _StderrHandler | _FileHandler):
            root.removeHandler(old)
            old.close()
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(logging.WARNING)


def set_level(level: LogLevel) -> None:
    """Change how much is logged, from the next record on."""
    logging.getLogger("kallichore").setLevel(_LEVELS[level])
