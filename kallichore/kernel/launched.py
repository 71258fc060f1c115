"""A kernel that we launch: its files, its process, its sockets, and the way to its first answer."""

from __future__ import annotations

import codecs
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio
import zmq

from kallichore._platform import MemoryEvidence
from kallichore.errors import (
    ConnectFailed,
    ConnectTimeout,
    KallichoreError,
    NoKernelInfo,
    ProcessExited,
    SpawnFailed,
    StartupFailed,
)
from kallichore.kernel import launch
from kallichore.kernel.channels import Channels
from kallichore.kernel.probe import listens
from kallichore.kernel.process import (
    exit_reason,
    how_it_ended,
    reported_exit_code,
    signal_name,
)
from kallichore.kernel.rendezvous import rendezvous
from kallichore.kernel.run import Readiness, RunExit, own_request
from kallichore.protocol.message import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from kallichore.kernel.process import Process
    from kallichore.kernel.rendezvous import DrawnPorts, RegisteredPorts
    from kallichore.kernel.run import RunHost, RunTools
    from kallichore.models import ConnectionInfo, NewSession
    from kallichore.protocol.message import ClientMessage

__all__ = ["NO_COMMAND", "LaunchedRun"]

NO_COMMAND: Final = "the session has no command (argv is empty)"
"""Why a session that was made for adoption cannot be started."""

log = logging.getLogger(__name__)


class LaunchedRun:
    """One life of a kernel process (a `KernelRun`)."""

    def __init__(
        self,
        tools: RunTools,
        host: RunHost,
        spec: NewSession,
        key: str,
        began: float,
        timeout_seconds: float,
        spawned: Callable[[dict[str, str]], None],
    ) -> None:
        """Prepare a life of the kernel that ``spec`` describes.

        ``spawned`` is told the environment of the process when there is one.
        """
        self._spawned = spawned
        self._tools = tools
        self._host = host
        self._spec = spec
        self._key = key
        self._timeout = timeout_seconds
        self._deadline = began + timeout_seconds
        self._readiness = Readiness()
        self._channels: Channels | None = None
        self._answered = False
        self._head = bytearray()
        self._tails = {"stdout": bytearray(), "stderr": bytearray()}
        self._held: list[tuple[str, str]] | None = []
        self._launch: launch.Launch | None = None
        self.requested = False
        self.process: Process | None = None
        self.connection: ConnectionInfo | None = None
        self.exited = trio.Event()
        self.lost_port_race = False
        """Whether the start failed because somebody else holds a port that the kernel was given."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> RunExit:
        """See `KernelRun.run`."""
        try:
            return await self._run(task_status)
        finally:
            self.exited.set()

    async def _run(self, task_status: trio.TaskStatus[None]) -> RunExit:
        try:
            way = rendezvous(
                self._tools, self._spec.session_id, self._key, self._spec.protocol_version
            ).__enter__()
        except (OSError, zmq.ZMQError) as error:
            raise StartupFailed(ConnectFailed(str(error))) from error
        try:
            if way.connection is not None:
                self._connect(way.connection)
            async with self._spawn(way) as process:
                failure = await self._live(process, way, task_status)
        finally:
            if self._channels is not None:
                self._channels.close()
            way.__exit__(None, None, None)
        if failure is not None:
            failed = self._startup_failed(failure, process)
            self.lost_port_race = await self._port_is_taken(failed)
            raise failed
        return self._exit(process)

    def _connect(self, connection: ConnectionInfo) -> None:
        """Connect before the kernel listens, so that nothing it says is missed."""
        identity = self._spec.session_id.encode()
        tools = self._tools
        try:
            self._channels = Channels(
                tools.context,
                connection,
                identity,
                tools.traffic,
                tools.limits,
                tools.deadlines,
                self._handle,
            )
        except zmq.ZMQError as error:
            raise StartupFailed(ConnectFailed(str(error))) from error
        self.connection = connection

    def _handle(self, channel: Channel, batch: list[list[bytes]]) -> None:
        assert self._channels is not None  # noqa: S101 (it is what calls this)
        self._host.from_kernel(channel, batch, self._channels.signer)

    def _spawn(self, way: DrawnPorts | RegisteredPorts) -> Process:
        tools, spec = self._tools, self._spec
        if not spec.argv:
            raise StartupFailed(SpawnFailed(NO_COMMAND))
        if spec.working_directory and launch.usable_directory(spec.working_directory) is None:
            log.warning("%s is not a directory; ours is used", spec.working_directory)
        self._launch = launch.plan(
            spec,
            base_env=tools.environment,
            connection_file=str(way.path),
            session_env={
                launch.SESSION_MARK: spec.session_id,
                launch.SERVER_MARK: tools.server_id,
            },
            marker_path=f"{way.path}.started",
        )
        try:
            self.process = tools.reaper.spawn(self._launch)
        except OSError as error:
            raise StartupFailed(SpawnFailed(str(error))) from error
        self._spawned(self._launch.env)
        return self.process

    # -- the life itself ------------------------------------------------------------------------

    async def _live(
        self,
        process: Process,
        way: DrawnPorts | RegisteredPorts,
        task_status: trio.TaskStatus[None],
    ) -> KallichoreError | None:
        """Give what went wrong before the kernel answered, or None after a life."""
        failure: KallichoreError | None = None
        async with trio.open_nursery() as readers:
            drained = [trio.Event(), trio.Event()]
            readers.start_soon(self._read, "stdout", process.stdout, drained[0])
            readers.start_soon(self._read, "stderr", process.stderr, drained[1])
            async with trio.open_nursery() as work:
                work.start_soon(self._until_exit, process, work.cancel_scope)
                work.start_soon(self._release_in_time)
                failure = await self._become_ready(work, way)
                if failure is None:
                    task_status.started()
                    assert self._channels is not None  # noqa: S101 (it has just answered)
                    work.start_soon(self._channels.watch_heartbeat, self._host)
                else:
                    work.cancel_scope.cancel(reason="the start failed")
            if process.returncode is None:
                with trio.CancelScope(shield=True):  # bounded inside
                    await process.stop(0)
            elif not self._answered:
                failure = way.failure() or ProcessExited(how_it_ended(process.returncode))
            with trio.move_on_after(self._tools.deadlines.drain_seconds):
                for event in drained:
                    await event.wait()
            readers.cancel_scope.cancel(reason="the process is gone")
        return failure

    async def _until_exit(self, process: Process, life: trio.CancelScope) -> None:
        await process.wait()
        # What the kernel said last is on its way through libzmq, which does not say when it is
        # through; the pumps get this long.
        with trio.move_on_after(self._tools.deadlines.last_words_seconds):
            await trio.sleep_forever()
        life.cancel(reason="the process has exited")

    async def _become_ready(
        self, work: trio.Nursery, way: DrawnPorts | RegisteredPorts
    ) -> KallichoreError | None:
        with trio.move_on_at(self._deadline) as patience:
            if way.connection is None:
                connection = await way.wait(work)
                try:
                    self._connect(connection)
                except StartupFailed as failed:  # through the nurseries it would come in a group
                    return failed.error
                self._host.registered(connection)
            assert self._channels is not None  # noqa: S101 (connected above or before)
            self._channels.start(work)
            await self._readiness.wait(self._channels, self._host, self._tools.deadlines)
            self._answered = True
            self.release_output()
        if not patience.cancelled_caught:
            return None
        failure = way.failure(self._timeout)
        if failure is not None:
            return failure
        assert self.connection is not None  # noqa: S101 (the way has succeeded)
        if await listens(self.connection.ip, self.connection.shell_port):
            return NoKernelInfo(f"no answer within {self._timeout:g} seconds")
        return ConnectTimeout(self._timeout)

    async def _read(self, name: str, stream: trio.abc.ReceiveStream, drained: trio.Event) -> None:
        """Pass on what the process writes, as text, at once."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        step = self._launch.startup if self._launch is not None and name == "stderr" else None
        clean = launch.ShellNoiseFilter(step)
        try:
            while data := await stream.receive_some(self._tools.limits.pipe_read_bytes):
                kept = clean.feed(bytes(data))
                self._write_output(name, kept, decoder.decode(kept))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            log.debug("reading %s ended: %s", name, error)
        finally:
            rest = clean.finish()
            self._write_output(name, rest, decoder.decode(rest, final=True))
            drained.set()

    def _write_output(self, name: str, data: bytes, text: str) -> None:
        limits = self._tools.limits
        if not self._answered:
            self._head += data[: limits.startup_output_bytes - len(self._head)]
        tail = self._tails[name]
        tail += data[-limits.output_tail_bytes :]
        del tail[: -limits.output_tail_bytes]
        if not text:
            return
        if self._held is None:
            self._host.output(name, text)
            return
        self._held.append((name, text))
        if len(self._head) >= limits.startup_output_bytes:
            self.release_output()

    async def _release_in_time(self) -> None:
        await trio.sleep(self._tools.deadlines.first_output_seconds)
        self.release_output()

    def release_output(self) -> None:
        """Let clients see the output: this run is not going to be replaced by another, unseen."""
        held, self._held = self._held or [], None
        for name, text in held:
            self._host.output(name, text)

    # -- the end --------------------------------------------------------------------------------

    def _startup_failed(self, error: KallichoreError, process: Process) -> StartupFailed:
        output = self._head.decode("utf-8", "replace")
        if self._launch is not None and self._launch.startup is not None:
            details = launch.startup_details(
                self._launch.startup, succeeded=process.startup_succeeded
            )
            error = error.with_details(details)
        code = process.returncode
        return StartupFailed(error, None if code is None else reported_exit_code(code), output)

    async def _port_is_taken(self, failure: StartupFailed) -> bool:
        if self.connection is None or self.connection.key != self._key:
            return False
        said = (failure.output or "").lower()
        if "address already in use" in said or "eaddrinuse" in said:
            return True
        ports = (
            self.connection.shell_port,
            self.connection.iopub_port,
            self.connection.stdin_port,
            self.connection.control_port,
            self.connection.hb_port,
        )
        for port in ports:
            if await listens(self.connection.ip, port):
                return True
        return False

    def _exit(self, process: Process) -> RunExit:
        code = process.returncode if process.returncode is not None else -9
        memory = process.out_of_memory
        return RunExit(
            exit_code=reported_exit_code(code),
            reason=exit_reason(code, memory, requested=self.requested),
            signal=signal_name(-code) if code < 0 else None,
            out_of_memory=memory is not MemoryEvidence.NONE,
            requested=self.requested,
            output_tail=self._output_tail(),
        )

    def exit_of(self, failure: StartupFailed) -> RunExit:
        """Describe the end of a run that failed to start."""
        process = self.process
        if process is None:  # there never was one
            return RunExit(exit_code=-1, reason=failure.error.message, requested=self.requested)
        return replace(self._exit(process), reason=failure.error.message)

    def _output_tail(self) -> str:
        """Give the last of stdout, then of stderr: at least half, since errors are told there."""
        limit = self._tools.limits.output_tail_bytes
        stdout, stderr = self._tails["stdout"], self._tails["stderr"]
        stderr = stderr[-max(limit // 2, limit - len(stdout)) :]
        stdout = stdout[-(limit - len(stderr)) :] if len(stderr) < limit else bytearray()
        return stdout.decode("utf-8", "ignore") + stderr.decode("utf-8", "ignore")

    # -- what the session asks of it ------------------------------------------------------------

    def info_received(self) -> None:
        """See `KernelRun.info_received`."""
        self._readiness.info.set()

    def status_heard(self) -> None:
        """See `KernelRun.status_heard`."""
        self._readiness.status.set()

    def send(self, message: ClientMessage) -> bool:
        """See `KernelRun.send`."""
        return self._channels is not None and self._channels.send(message)

    def drain(self, channel: Channel) -> None:
        """See `KernelRun.drain`."""
        if self._channels is not None:
            self._channels.drain(channel)

    async def shut_down(self, *, restart: bool, polite_seconds: float) -> None:
        """See `KernelRun.shut_down`."""
        self.requested = True
        if self._answered:
            self.send(own_request(Channel.CONTROL, "shutdown_request", {"restart": restart}))
            with trio.move_on_after(polite_seconds):
                await self.exited.wait()
        if self.process is not None and not self.exited.is_set():
            await self.process.stop(self._tools.deadlines.term_seconds)
        await self.exited.wait()
