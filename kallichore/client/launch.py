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
from typing import TYPE_CHECKING, Final

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
    output: Tail
    """The last of what it wrote to stdout and stderr."""


class Tail:
    """The last bytes of what a process writes to its stdout and stderr.

    Attributes:
        ended: set when both have been read to their end.
        reading: the scope of `follow`. Shielded, for a process that is asked to stop may need to
            say something, and would break on a pipe that is closed; so its owner must cancel it.
    """

    def __init__(self, limit: int) -> None:
        """Keep ``limit`` bytes."""
        self.ended = trio.Event()
        self.reading = trio.CancelScope(shield=True)
        self._limit = limit
        self._content = bytearray()

    def __str__(self) -> str:
        return self._content.decode("utf-8", "replace")

    async def follow(self, process: trio.Process) -> None:
        """Read the process's output to its end, so that it never waits for us."""
        with self.reading:
            async with trio.open_nursery() as nursery:
                for stream in (process.stdout, process.stderr):
                    if stream is not None:
                        nursery.start_soon(self._read, stream)
        self.ended.set()

    async def _read(self, stream: trio.abc.ReceiveStream) -> None:
        async with stream:
            async for chunk in stream:
                self._content += chunk
                del self._content[: -self._limit]


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
    ended_by: BaseException | None = None
    with tempfile.TemporaryDirectory(
        prefix="kc-", dir=_temporary(), ignore_cleanup_errors=True
    ) as name:
        directory = Path(name)
        given = [*command, *_own_arguments(directory, lifeline=lifeline), *arguments]
        async with _listen(directory / "h.sock") as listener, trio.open_nursery() as nursery:
            # In a session of its own, so that Ctrl-C in a terminal reaches us and not the server.
            process = await trio.lowlevel.open_process(
                given,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            output = Tail(bounds.server_output_bytes)
            nursery.start_soon(output.follow, process)
            try:
                details = await _await_handshake(listener, process, output, bounds)
                target = _target(details, output)
                async with Client(target, bounds) as client:
                    try:
                        if lifeline:
                            await client.client_heartbeat(os.getpid())
                        yield LaunchedServer(
                            client, process, details, directory / "connection.json", output
                        )
                    finally:
                        await _ask_to_stop(client, process, bounds)
            except BaseException as exc:  # noqa: BLE001 - raised below, outside of the nursery
                ended_by = exc
            await _end(process, bounds)
            with trio.move_on_after(bounds.drain_seconds, shield=True):
                await output.ended.wait()
            output.reading.cancel(reason="the server has ended")
    if ended_by is not None:
        raise ended_by


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
    listener: trio.SocketListener, process: trio.Process, output: Tail, bounds: ClientBounds
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
        with trio.move_on_after(bounds.drain_seconds):
            await output.ended.wait()
        said = f"The server ended with exit code {process.returncode} instead of starting."
    raise LaunchFailed(said, str(output))


def _target(details: ConnectionDetails, output: Tail) -> Target:
    try:
        return Target.from_details(details, REPORTED)
    except BadTarget as exc:
        raise LaunchFailed(str(exc), str(output)) from exc


async def _cancel_when_over(process: trio.Process, scope: trio.CancelScope) -> None:
    await process.wait()
    scope.cancel(reason="the server has ended")


async def _ask_to_stop(client: Client, process: trio.Process, bounds: ClientBounds) -> None:
    """Ask for the orderly shutdown, and wait for it for a bounded time."""
    with trio.move_on_after(bounds.stop_seconds, shield=True):
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
    with trio.move_on_after(bounds.term_seconds, shield=True):
        if process.returncode is None:
            process.terminate()
        await process.wait()
        return
    with trio.move_on_after(bounds.term_seconds, shield=True):
        process.kill()
        await process.wait()
