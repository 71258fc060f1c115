"""The server: the tree is built and stopped here (DESIGN 3, CONTRACT 1.2 and 1.7)."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio
import zmq

from kallichore import __version__, _platform, guardian, listeners
from kallichore import log as logs
from kallichore.config import Transport, is_text
from kallichore.details import (
    ConnectionDetails,
    open_connection_details,
    reason_of,
    report,
    resolve_token,
    server_path,
)
from kallichore.diagnostics import watch_loop, write_diagnostics
from kallichore.errors import KallichoreError, StartupRefusal
from kallichore.guardian_process import point_at_nothing
from kallichore.kernel.connection import PortPool, open_runtime_directory
from kallichore.kernel.process import Reaper
from kallichore.kernel.run import RunTools
from kallichore.memory import give_back, keep_what_is_loaded
from kallichore.supervisor import Supervisor
from kallichore.tally import Tally
from kallichore.traffic import Traffic
from kallichore.web.door import Door

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kallichore.config import Config

__all__ = ["serve"]

log = logging.getLogger(__name__)
PROCESS_NAME = "kcserver"
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_DIAGNOSE = signal.SIGUSR1


async def serve(config: Config) -> None:
    """Be the server until it is told to stop, or has been idle for long enough.

    Raises:
        StartupRefusal: It cannot start; nothing is left.
    """
    _platform.set_process_name(PROCESS_NAME)
    _platform.raise_descriptor_limit()
    _platform.keep_free_memory(config.limits.reused_block_bytes)
    with ExitStack() as stack:
        signals = stack.enter_context(_open_signals())
        try:
            directory = stack.enter_context(open_runtime_directory())
        except OSError as error:
            why = reason_of(error)
            raise StartupRefusal(f"Cannot make a temporary directory: {why}") from error
        guardian.remember(directory)
        listener, where = _listen(config, stack)
        server_id = uuid.uuid4()
        token = _token(config)
        details = _details(config, listener, where, token, str(server_id))
        _announce(f"\nThis is Kallichore {__version__}, process {os.getpid()}")
        context = stack.enter_context(_open_context())
        tools = RunTools(
            context=context,
            ports=PortPool(config.limits),
            reaper=Reaper(config.limits, config.deadlines),
            directory=directory,
            environment=dict(os.environ),
            server_id=str(server_id),
            tally=Tally(),
            traffic=Traffic(config.deadlines.shared_seconds),
            limits=config.limits,
            deadlines=config.deadlines,
        )
        supervisor = Supervisor(config, tools, server_id, _socket_directories(config))
        door = Door(config, supervisor, token)
        if config.handshake_socket is not None:
            await report(config.handshake_socket.absolute(), details)
        if config.connection_file is not None:
            path = config.connection_file.absolute()
            stack.enter_context(open_connection_details(path, details))
            guardian.remember(path)
        await _run(supervisor, door, listener, tools.reaper, signals)


async def _run(
    supervisor: Supervisor,
    door: Door,
    listener: trio.SocketListener,
    reaper: Reaper,
    signals: AsyncIterator[int],
) -> None:
    async with trio.open_nursery() as services:
        await services.start(reaper.run)
        services.start_soon(_watch_signals, signals, supervisor)
        services.start_soon(_watch_guardian, supervisor)
        services.start_soon(supervisor.watch_idleness)
        services.start_soon(supervisor.sampler.run)
        keep_what_is_loaded()
        services.start_soon(give_back, supervisor.config.limits, supervisor.config.deadlines)
        pace = supervisor.config.deadlines.loop_lag_pace_seconds
        services.start_soon(watch_loop, supervisor.tally, pace)
        async with trio.open_nursery() as doors:
            async with trio.open_nursery() as sessions:
                await sessions.start(supervisor.run)
                await doors.start(door.run, listener)
            door.close()
        services.cancel_scope.cancel(reason="the sessions have ended and the door is closed")


async def _watch_signals(signals: AsyncIterator[int], supervisor: Supervisor) -> None:
    pause, first = supervisor.config.deadlines.same_signal_seconds, 0.0
    async for number in signals:
        if number == _DIAGNOSE:
            write_diagnostics(supervisor)
            continue
        if supervisor.stopping and trio.current_time() - first < pause:
            continue  # the same, sent to our guardian and to us
        first = first if supervisor.stopping else trio.current_time()
        supervisor.stop(f"got {signal.Signals(number).name}")


async def _watch_guardian(supervisor: Supervisor) -> None:
    """Without a guardian nobody would clean up after us: end quickly, in order."""
    await guardian.guardian_gone()
    supervisor.stop("the guardian is gone")
    await trio.sleep(supervisor.config.deadlines.orphan_shutdown_seconds)
    supervisor.hurry.set()


@contextmanager
def _open_signals() -> Iterator[AsyncIterator[int]]:
    with trio.open_signal_receiver(*_STOPPING, _DIAGNOSE) as signals:
        yield signals


@contextmanager
def _open_context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, int(context.get(zmq.SOCKET_LIMIT)))
    try:
        yield context
    finally:
        context.destroy(linger=0)


# -- where it listens ---------------------------------------------------------------------------


def _socket_directories(config: Config) -> list[Path]:
    """Where generated sockets go, in order of preference."""
    temporary = Path(tempfile.gettempdir())
    if config.socket_dir is not None:
        return [config.socket_dir, temporary]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return [Path(runtime), temporary] if runtime and _is_for_sockets(runtime) else [temporary]


def _is_for_sockets(directory: str) -> bool:
    """Whether we can make sockets there, and tell clients where they are."""
    usable = Path(directory).is_dir() and os.access(directory, os.W_OK | os.X_OK)
    return usable and is_text(directory)


def _listen(config: Config, stack: ExitStack) -> tuple[trio.SocketListener, Path | None]:
    """Bind and listen, and say so on stdout; a socket's file is removed at the end."""
    path = None
    backlog = config.limits.listen_backlog
    try:
        if config.transport is Transport.TCP:
            listener = listeners.listen_tcp(config.port, backlog)
        else:
            path = _main_socket(config)
            listener = listeners.listen_unix(path, backlog)
            guardian.remember(path)
            stack.callback(listeners.remove_socket, path)
    except KallichoreError as error:
        raise StartupRefusal(error.message) from error
    except OSError as error:
        what = f"port {config.port}" if path is None else str(path)
        raise StartupRefusal(f"Cannot listen on {what}: {reason_of(error)}") from error
    if path is None:
        _announce(f"Listening at 127.0.0.1:{_port(listener)}")
    else:
        _announce(f"Listening on Unix socket: {path}")
    return listener, path


def _announce(text: str) -> None:
    """Say it on stdout, if anybody reads there: it is for people, nothing depends on it."""
    try:
        print(text, flush=True)  # noqa: T201
    except OSError:
        point_at_nothing(sys.stdout.fileno())  # or the interpreter's last flush would fail too


def _main_socket(config: Config) -> Path:
    if config.unix_socket is not None:
        path = config.unix_socket.absolute()
        return listeners.socket_path([path.parent], path.name, config.limits)
    name = f"kc-{os.getpid()}.sock"
    return listeners.socket_path(_socket_directories(config), name, config.limits)


def _port(listener: trio.SocketListener) -> int:
    return int(listener.socket.getsockname()[1])


# -- what others need to know -------------------------------------------------------------------


def _token(config: Config) -> str | None:
    token = resolve_token(config.token, config.limits)
    unreported = config.connection_file is None and config.handshake_socket is None
    if token is not None and config.token is None and unreported:
        # The only way to learn it; nothing else ever logs a token.
        log.info("the bearer token is %s", token)
    if token is not None:
        logs.keep_secret(token)
    return token


def _details(
    config: Config,
    listener: trio.SocketListener,
    path: Path | None,
    token: str | None,
    server_id: str,
) -> ConnectionDetails:
    common = ConnectionDetails(
        transport=str(config.transport),
        server_path=server_path(),
        server_pid=os.getpid(),
        bearer_token=token,
        log_path=None if config.log_file is None else str(config.log_file.absolute()),
        server_id=server_id,
    )
    if path is not None:
        return msgspec.structs.replace(common, socket_path=str(path))
    port = _port(listener)
    return msgspec.structs.replace(common, port=port, base_path=f"http://127.0.0.1:{port}")
