"""What `kcclient` prints for people: aligned tables, and lists of names and values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kallichore import models

__all__ = ["age", "configuration", "pairs", "server", "session", "sessions", "table"]

MINUTE, HOUR, DAY = 60, 3600, 86400
MIB: Final = 1024 * 1024


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Align rows under their titles."""
    lines = [titles, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def pairs(values: Iterable[tuple[str, object]]) -> str:
    """Align values beside their names; those that are None are left out."""
    known = [(name, value) for name, value in values if value is not None]
    width = max((len(name) for name, _ in known), default=0) + 2
    return "\n".join(f"{name + ':':<{width}}{_word(value)}" for name, value in known)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def age(seconds: float) -> str:
    """Say a duration in one unit."""
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"


def _since(moment: datetime) -> str:
    return age((datetime.now(UTC) - moment).total_seconds())


def sessions(listed: models.SessionList) -> str:
    """Show the list of sessions."""
    if not listed.sessions:
        return "There are no sessions."
    titles = ("SESSION", "STATUS", "LANGUAGE", "NAME", "PID", "CLIENT", "QUEUED", "AGE")
    rows = [
        (
            one.session_id,
            str(one.status),
            one.language or "-",
            one.display_name,
            str(one.process_id or "-"),
            _word(one.connected),
            str(one.execution_queue.length),
            _since(one.started),
        )
        for one in listed.sessions
    ]
    return table(titles, rows)


def server(status: models.ServerStatus) -> str:
    """Show how the server is doing."""
    return pairs(
        [
            ("Version", status.version),
            ("Process", status.process_id),
            ("Up", age(status.uptime_seconds)),
            ("Sessions", f"{status.sessions} ({status.active} active)"),
            ("Busy", age(status.busy_seconds) if status.busy else "no"),
            ("Idle", "no" if status.busy else age(status.idle_seconds)),
            ("Server id", status.server_id),
        ]
    )


def configuration(settings: models.ServerConfiguration) -> str:
    """Show the settings."""
    hours = settings.idle_shutdown_hours
    interval = settings.resource_sample_interval_ms
    return pairs(
        [
            ("Idle shutdown", "never" if hours is None or hours < 0 else f"{hours} h"),
            ("Resource samples", f"every {interval} ms" if interval else "off"),
            ("Child processes", "measured too" if settings.resource_include_children else "no"),
            ("Log level", settings.log_level),
        ]
    )


def session(one: models.ActiveSession) -> str:
    """Show all that is worth knowing about a session."""
    info = msgspec.json.decode(one.kernel_info, type=dict[str, Any])
    implementation = f"{info.get('implementation', '')} {info.get('implementation_version', '')}"
    usage = one.resource_usage
    return pairs(
        [
            ("Session", one.session_id),
            ("Name", one.display_name),
            ("Status", one.status),
            ("Mode", one.session_mode),
            ("Language", one.language or None),
            ("Kernel", implementation.strip() or None),
            ("Command", " ".join(one.argv)),
            ("Process", one.process_id),
            ("Directory", one.working_directory or None),
            ("Notebook", one.notebook_uri),
            ("Client connected", one.connected),
            ("Executions waiting", one.execution_queue.length),
            ("Interrupted by", one.interrupt_mode),
            ("Created", f"{_since(one.started)} ago"),
            ("Idle", age(one.idle_seconds) if one.idle_seconds else None),
            ("Busy", age(one.busy_seconds) if one.busy_seconds else None),
            ("CPU", None if usage is None else f"{usage.cpu_percent} %"),
            ("Memory", None if usage is None else f"{usage.memory_bytes // MIB} MiB"),
            ("Last exit", _exit(one.last_exit)),
        ]
    )


def _exit(last: models.LastExit | None) -> str | None:
    if last is None:
        return None
    how = f"killed by {last.signal}" if last.signal else f"exit code {last.exit_code}"
    why = ", out of memory" if last.out_of_memory else ", as asked" if last.requested else ""
    return f"{how}{why}, {_since(last.at)} ago"
