"""Every bound and every setting the supervisor has, by name.

`Limits` are sizes and counts, `Deadlines` are durations in seconds, `Config` is what the command
line decides. One frozen `Config` is made at start and passed down; nothing reads settings from
anywhere else. The only thing that may change while the server runs is `Configurable`, through
``POST /server_configuration``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "ClientBounds",
    "Config",
    "Configurable",
    "Deadlines",
    "Limits",
    "LogFormat",
    "LogLevel",
    "Transport",
    "is_text",
]

KIB = 1024
MIB = 1024 * KIB


class Transport(StrEnum):
    """How clients reach the server (CONTRACT 1.1)."""

    TCP = "tcp"
    SOCKET = "socket"
    NAMED_PIPE = "named-pipe"


class LogLevel(StrEnum):
    """The five levels of ``--log-level``, least severe first."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class LogFormat(StrEnum):
    """How a log record is written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes (bytes) and counts. Each can be set with ``--set NAME=VALUE``."""

    max_sessions: int = 1000
    """Sessions that may exist at once; one more is refused."""
    iopub_messages: int = 10_000
    """Messages of a kernel's iopub that libzmq keeps until we take them. Beyond it the kernel's own
    queue fills, and what is too much for that the kernel drops, so this is generous."""
    iopub_bytes: int = 4 * MIB
    """Bytes of them, once a flood has shown how big they are."""
    iopub_messages_least: int = 200
    """Messages that libzmq keeps however big they are."""
    batch_messages: int = 32
    """ZeroMQ messages handled before other tasks get a turn."""
    batch_messages_shared: int = 8
    """The same while other sessions or requests need turns too."""
    batch_bytes: int = 128 * KIB
    """Bytes of ZeroMQ messages handled before other tasks get a turn: no more than a client's
    writer gets rid of in its own, or the queue grows to the disk while the client is prompt."""
    write_bytes: int = 128 * KIB
    """Bytes a frontend's writer hands to the operating system at once."""
    send_buffer_bytes: int = 128 * KIB
    """`SO_SNDBUF` of a client's connection, half of what the system then takes and may lose."""
    client_message_bytes: int = 128 * MIB
    """One WebSocket message from a client; beyond it the connection closes with 1009."""
    frames_at_once: int = 256
    """WebSocket frames of a client handled in one go, before others have their turn."""
    client_messages_waiting: int = 1000
    """Messages of clients kept for a kernel that has not started yet, or does not read."""
    client_bytes_waiting: int = 256 * MIB
    """Bytes of the messages above, per session."""
    held_executions: int = 1000
    """Execution requests held behind the active one."""
    outbox_memory_bytes: int = 8 * MIB
    """A session's undelivered frames kept in memory; the rest goes to disk."""
    outbox_total_memory_bytes: int = 256 * MIB
    """Undelivered frames kept in memory by all sessions together."""
    outbox_disk_bytes: int = 1024 * MIB
    """A session's undelivered frames kept on disk; beyond it the oldest stream output goes."""
    outbox_segment_bytes: int = 4 * MIB
    """Size of one spool file."""
    resume_tail_bytes: int = 4 * MIB
    """Delivered frames kept for a client that resumes."""
    history_entries: int = 100
    """Executions remembered per session."""
    history_text_bytes: int = 4096
    """Input, output and error of a history entry are each clipped to this."""
    output_tail_bytes: int = 4096
    """Last bytes of a kernel's stdout and stderr kept for `last_exit`."""
    startup_output_bytes: int = 64 * KIB
    """Output kept for the answer to a failed start."""
    execute_output_bytes: int = 64 * MIB
    """Outputs collected for one ``/execute``; beyond it the rest is left out."""
    socket_read_bytes: int = 64 * KIB
    """One read of a client's connection, of which the first comes with every connection."""
    socket_read_most_bytes: int = MIB
    """One read of a client's connection while a big message comes in."""
    control_frames: int = 16
    """Pings, pongs and the like that wait to be written to one client."""
    pipe_read_bytes: int = 64 * KIB
    """One read of a kernel's stdout or stderr."""
    head_bytes: int = 64 * KIB
    """Size of an HTTP request head (431 beyond it)."""
    head_fields: int = 100
    """Number of header fields in a request (431 beyond it)."""
    body_bytes: int = 16 * MIB
    """Size of an HTTP request body (413 beyond it)."""
    reused_block_bytes: int = 8 * MIB
    """Blocks up to this size are kept for the next big message when they are free, of each of the
    allocator's arenas twice as much at most."""
    spare_memory_bytes: int = 16 * MIB
    """What our memory may grow by before what is free of it is returned to the system."""
    connections: int = 1000
    """Connections open at once to the main listener. For one more the oldest idle one makes way; if
    none is idle, it waits in the backlog."""
    accepted_at_once: int = 256
    """Connections accepted before other tasks get a turn."""
    listen_backlog: int = 1024
    """Connections the operating system may queue for the main listener."""
    start_attempts: int = 4
    """Tries of a start in which the kernel loses the race for a port."""
    token_bytes: int = 64
    """Length of a token read from a file."""
    socket_path_bytes: int = 104
    """Length of a Unix socket's path."""
    swept_processes: int = 10_000
    """Descendants of one kernel that are looked for and killed in one sweep."""
    reaped_at_once: int = 256
    """Processes reaped before other tasks get a turn."""
    sampled_processes: int = 1000
    """Descendants of one kernel whose use of resources is measured."""
    port_draws: int = 2000
    """Ports looked at to find those of one kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Durations in seconds. Each can be set with ``--set NAME=VALUE``."""

    connection_seconds: float = 30.0
    """A start, from the request to the kernel's answer, unless the session names its own."""
    subscription_seconds: float = 1.0
    """After a kernel's first answer: how long to ask again until its iopub is heard too."""
    status_seconds: float = 0.004
    """How long after each of these answers to wait for a status, which was sent before it."""
    first_output_seconds: float = 0.5
    """How long the output of a kernel that starts is held back: if it loses the race for a port,
    nobody sees it."""
    shared_seconds: float = 0.1
    """How long after another party's turn we believe in company, and handle small batches."""
    reply_seconds: float = 0.1
    """How long an execution's reply may come after its idle; then the next one goes out."""
    idle_seconds: float = 10.0
    """How long a kernel may say nothing while only its idle is awaited; then it is asked something:
    if it is idle after that, the idle that was due is lost."""
    execute_start_seconds: float = 30.0
    """How long ``/execute`` waits for a kernel that is still starting."""
    interrupt_again_seconds: float = 0.5
    """Code of an ``/execute`` given up before it ran is interrupted again if it runs this long: a
    kernel may ignore an interrupt in the moment in which it begins."""
    kernel_shutdown_seconds: float = 3.0
    """A kernel's time to obey `shutdown_request` when the server stops."""
    restart_shutdown_seconds: float = 5.0
    """A kernel's time to obey `shutdown_request` when it is restarted."""
    term_seconds: float = 1.0
    """A kernel's time to obey SIGTERM before SIGKILL."""
    reap_seconds: float = 2.0
    """How long a killed process is waited for before it is given up and logged."""
    last_words_seconds: float = 0.02
    """How long after its exit a kernel's last messages are still received."""
    drain_seconds: float = 0.5
    """How long the output of a kernel that has exited is still read."""
    shutdown_seconds: float = 10.0
    """The whole orderly shutdown."""
    orphan_shutdown_seconds: float = 1.0
    """The whole orderly shutdown when the guardian is gone."""
    heartbeat_pause_seconds: float = 2.0
    """Pause between two heartbeats."""
    heartbeat_patience_seconds: float = 5.0
    """How long a heartbeat may stay unanswered before the kernel is offline."""
    adopted_lost_seconds: float = 20.0
    """How long an adopted kernel may be silent before it counts as gone."""
    adopted_poll_seconds: float = 0.05
    """Pause between two looks at an adopted kernel that was asked to end."""
    ping_seconds: float = 10.0
    """Pause between two WebSocket pings."""
    ping_patience_seconds: float = 40.0
    """A client that answers no ping and takes no data for this long is dropped."""
    close_seconds: float = 1.0
    """A WebSocket's farewell: what waits (half of it), close frame, the peer's answer."""
    head_seconds: float = 10.0
    """An HTTP request head must be complete after this (408)."""
    body_seconds: float = 60.0
    """An HTTP request body must be complete after this (408)."""
    keep_alive_seconds: float = 75.0
    """An idle HTTP connection is closed after this."""
    write_seconds: float = 30.0
    """One write of an HTTP response."""
    linger_seconds: float = 1.0
    """How long a peer whose connection we end may go on sending before it is cut off."""
    http_close_seconds: float = 0.5
    """HTTP exchanges still running when the server stops."""
    idle_now_seconds: float = 30.0
    """Idle shutdown when the setting is 0 hours."""
    same_signal_seconds: float = 0.05
    """Signals to stop that arrive together count as one: a service manager signals each process."""
    memory_pace_seconds: float = 2.0
    """Pause between two looks at our own memory."""
    loop_lag_pace_seconds: float = 1.0
    """Pause between two looks at how late the loop runs."""
    guardian_seconds: float = 2.0
    """The guardian's sweep after the server has died."""


@dataclass(slots=True, kw_only=True)
class Configurable:
    """What ``POST /server_configuration`` may change while the server runs."""

    idle_shutdown_hours: int = -1
    """-1 = never, 0 = `Deadlines.idle_now_seconds`, N = N hours."""
    resource_sample_interval_ms: int = 1000
    """0 = off, otherwise at least 100."""
    resource_include_children: bool = True
    log_level: LogLevel = LogLevel.INFO


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the command line decided, after validation."""

    transport: Transport = Transport.TCP
    port: int = 0
    unix_socket: Path | None = None
    socket_dir: Path | None = None
    token: str | None = None
    """``--token`` as given: a path, the word ``none``, or None when absent."""
    log_file: Path | None = None
    log_format: LogFormat = LogFormat.TEXT
    connection_file: Path | None = None
    handshake_socket: Path | None = None
    initial: Configurable = field(default_factory=Configurable)
    limits: Limits = field(default_factory=Limits)
    deadlines: Deadlines = field(default_factory=Deadlines)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientBounds:
    """Sizes, counts and durations of `kallichore.client`; the server has no part in them."""

    connections: int = 1000
    """HTTP connections open at once; one more request waits for one of them."""
    message_bytes: int = 128 * MIB
    """One WebSocket message from the server; a bigger one closes the channel with 1009."""
    receive_bytes: int = 64 * KIB
    """One read of a channel's socket."""
    received_frames: int = 64
    """Frames read ahead of whoever receives, so that pings are answered meanwhile."""
    set_aside_messages: int = 10_000
    """Messages kept for `Channel.receive` while `Channel.execute` looks for its own."""
    upgrade_seconds: float = 10.0
    """A WebSocket upgrade, from connecting to the 101."""
    close_seconds: float = 1.0
    """A channel's farewell: close frame and the server's answer."""
    answer_seconds: float = 30.0
    """What `kcclient` gives the server for an answer that needs no kernel."""
    launch_seconds: float = 30.0
    """A server started by us must have reported where it listens after this."""
    stop_seconds: float = 15.0
    """A server started by us: its orderly shutdown (its own bound is 10 s)."""
    term_seconds: float = 3.0
    """The same server's time to obey SIGTERM before SIGKILL."""
    last_words_seconds: float = 0.02
    """How long after its exit a kernel's last messages are still received."""
    server_output_bytes: int = 64 * KIB
    """Last bytes of its stdout and stderr that are kept for an error message."""


def is_text(path: str) -> bool:
    """Whether a path is UTF-8, so that a client can be told of it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
