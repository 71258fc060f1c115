"""A server of one's own: started as a child process, and stopped at the end of a block.

It reports where it listens over the handshake socket (CONTRACT 1.5), so nothing polls. Its files
are in a private directory that goes with it. Used by the demo, tests and benchmarks, and by
programs that want a server for as long as they run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import trio

from kallichore.client.client import Client
from kallichore.client.errors import (
    BadTarget,
    ClientError,
    LaunchFailed,
    RequestFailed,
    ServerGone,
)
from kallichore.client.target import ConnectionDetails, Target, decode_details
from kallichore.config import ClientBounds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

__all__ = ["LaunchedServer", "launch_server", "open_server"]

DEFAULT_COMMAND: Final = (sys.executable, "-m", "kallichore")
LONGEST_DIRECTORY: Final = 48
REPORTED: Final = "The server's handshake"


@dataclass(frozen=True, slots=True)
class LaunchedServer:
    """A server that we started: a client of it, and what one may want to know of its process."""

    client: Client
    process: trio.Process
    details: ConnectionDetails
    connection_file: Path
    output: Output
    """What it writes to stdout and stderr; ``str()`` is the last of it."""


class Output:
    """What a process writes to its stdout and stderr, in a file.

    A file and no pipe: it needs no reader, so nothing breaks when ours is cancelled.
    """

    def __init__(self, path: Path, limit: int) -> None:
        """Create the file; ``limit`` bytes of its end are shown."""
        self._path = path
        self._limit = limit
        self._kept: str | None = None
        path.touch(mode=0o600)

    def __str__(self) -> str:
        return self._read() if self._kept is None else self._kept

    def open(self) -> BinaryIO:
        """Open it for the process."""
        return self._path.open("ab")

    def keep(self) -> None:
        """Keep its end, because the file goes."""
        self._kept = self._read()

    def _read(self) -> str:
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - self._limit))
            return file.read().decode("utf-8", "replace")


@asynccontextmanager
async def launch_server(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = DEFAULT_COMMAND,
    lifeline: bool = True,
    bounds: ClientBounds | None = None,
) -> AsyncIterator[Client]:
    """Start a server and give a client of it; see `open_server`."""
    async with open_server(
        *arguments, env=env, command=command, lifeline=lifeline, bounds=bounds
    ) as server:
        yield server.client


@asynccontextmanager
async def open_server(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = DEFAULT_COMMAND,
    lifeline: bool = True,
    bounds: ClientBounds | None = None,
) -> AsyncIterator[LaunchedServer]:
    """Start ``kcserver``, give it once it listens, and have it shut down at the end of the block.

    The server gets a connection file, a socket directory and a handshake socket in a directory of
    its own, so it listens on a Unix socket unless ``arguments`` (such as ``--transport``, ``tcp``)
    say otherwise. ``env`` is its whole environment. With ``lifeline`` a server whose starter was
    killed ends by itself within about half a minute: it is told to shut down when idle, and that
    this process is what keeps it (``--idle-shutdown-hours 0`` and a heartbeat).

    The end of the block asks for an orderly shutdown and waits for it `ClientBounds.stop_seconds`
    at most, also when the block is cancelled; then come SIGTERM and SIGKILL.

    Raises:
        LaunchFailed: if it ends, or says nothing for `ClientBounds.launch_seconds`.
    """
    bounds = bounds or ClientBounds()
    with tempfile.TemporaryDirectory(
        prefix="kc-", dir=_temporary(), ignore_cleanup_errors=True
    ) as name:
        directory = Path(name)
        output = Output(directory / "output", bounds.server_output_bytes)
        async with _listen(directory / "h.sock") as listener:
            given = [*command, *_own_arguments(directory, lifeline=lifeline), *arguments]
            process = await _start(given, env, output)
            try:
                details = await _await_handshake(listener, process, output, bounds)
                async with Client(_target(details, output), bounds) as client:
                    if lifeline:
                        await client.client_heartbeat(os.getpid())
                    file = directory / "connection.json"
                    try:
                        yield LaunchedServer(client, process, details, file, output)
                    finally:
                        with trio.move_on_after(bounds.stop_seconds, shield=True):
                            await _ask_to_stop(client, process)
            finally:
                with trio.move_on_after(2 * bounds.term_seconds, shield=True):
                    await _end(process, bounds)
                output.keep()


async def _start(
    command: Sequence[str], env: Mapping[str, str] | None, output: Output
) -> trio.Process:
    """Start the process; not cancelled once it has begun."""
    with output.open() as file:
        return await trio.lowlevel.open_process(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            # Ctrl-C in a terminal reaches us and not the server, which is told in order.
            start_new_session=True,
        )


def _temporary() -> str:
    """Give a directory for temporary files in which a socket's path is not too long."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= LONGEST_DIRECTORY else "/tmp"  # noqa: S108 - we make our own in it


def _own_arguments(directory: Path, *, lifeline: bool) -> list[str]:
    arguments = [
        *("--handshake-socket", str(directory / "h.sock")),
        *("--connection-file", str(directory / "connection.json")),
        *("--socket-dir", str(directory)),
    ]
    return [*arguments, "--idle-shutdown-hours", "0"] if lifeline else arguments


@asynccontextmanager
async def _listen(path: Path) -> AsyncIterator[trio.SocketListener]:
    """Listen at a Unix socket in our private directory."""
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await sock.bind(str(path))
    sock.listen(1)
    async with trio.SocketListener(sock) as listener:
        yield listener


async def _await_handshake(
    listener: trio.SocketListener, process: trio.Process, output: Output, bounds: ClientBounds
) -> ConnectionDetails:
    """Return what the server reports; its end calls the waiting off."""
    content = bytearray()
    with trio.move_on_after(bounds.launch_seconds) as patience:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_over, process, nursery.cancel_scope)
            with suppress(trio.BrokenResourceError):  # its end, or half a report, says it all
                async with await listener.accept() as stream:
                    async for chunk in stream:
                        content += chunk
            nursery.cancel_scope.cancel(reason="the server has reported")
    if content:
        try:
            return decode_details(bytes(content), REPORTED)
        except BadTarget as exc:
            raise LaunchFailed(str(exc), str(output)) from exc
    if patience.cancelled_caught:
        said = f"The server said nothing for {bounds.launch_seconds:g} seconds."
    else:
        said = f"The server ended with exit code {process.returncode} instead of starting."
    raise LaunchFailed(said, str(output))


def _target(details: ConnectionDetails, output: Output) -> Target:
    try:
        return Target.from_details(details, REPORTED)
    except BadTarget as exc:
        raise LaunchFailed(str(exc), str(output)) from exc


async def _cancel_when_over(process: trio.Process, scope: trio.CancelScope) -> None:
    await process.wait()
    scope.cancel(reason="the server has ended")


async def _ask_to_stop(client: Client, process: trio.Process) -> None:
    """Ask for the orderly shutdown, and wait for it."""
    try:
        await client.shutdown_server()
    except ServerGone:
        pass  # it may be stopping already; its end is what counts
    except RequestFailed as exc:
        if exc.code != "server_stopping":
            return
    except ClientError:
        return
    await process.wait()


async def _end(process: trio.Process, bounds: ClientBounds) -> None:
    """Make sure that the process is gone, and reap it."""
    if process.returncode is None:
        process.terminate()
    with trio.move_on_after(bounds.term_seconds) as patience:
        await process.wait()
    if patience.cancelled_caught:
        process.kill()
        await process.wait()
