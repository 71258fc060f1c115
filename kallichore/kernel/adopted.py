"""A kernel that somebody else started and we talk to (CONTRACT 3.5, adopt)."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import msgspec
import trio
import zmq

from kallichore.errors import ConnectFailed, ConnectTimeout, NoKernelInfo, StartupFailed
from kallichore.kernel.channels import Channels
from kallichore.kernel.probe import address_of, listens
from kallichore.kernel.run import Readiness, RunExit, own_request
from kallichore.protocol.message import Channel

if TYPE_CHECKING:
    from kallichore.kernel.process import Process
    from kallichore.kernel.run import RunHost, RunTools
    from kallichore.models import ConnectionInfo
    from kallichore.protocol.message import ClientMessage

__all__ = ["AdoptedRun"]


class AdoptedRun:
    """The part of a kernel's life during which we talk to it (a `KernelRun`).

    There is no process to signal or to wait for: the kernel counts as gone when its heartbeat is
    lost and nobody listens at its port any more, or when it stays lost for long.
    """

    process: Process | None = None

    def __init__(
        self,
        tools: RunTools,
        host: RunHost,
        session_id: str,
        connection: ConnectionInfo,
        timeout_seconds: float,
    ) -> None:
        """Prepare to talk to the kernel at ``connection``."""
        self._tools = tools
        self._host = host
        self._session_id = session_id
        self._timeout = timeout_seconds
        self._deadline = inf
        self._readiness = Readiness()
        self._channels: Channels | None = None
        self._lost = trio.Event()
        self._life = trio.CancelScope()
        self._answered = False
        self.requested = False
        self.connection: ConnectionInfo | None = connection
        self._address = (connection.ip, connection.shell_port)
        self.exited = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> RunExit:
        """See `KernelRun.run`."""
        assert self.connection is not None  # noqa: S101 (only a launched run learns it later)
        self._deadline = trio.current_time() + self._timeout
        try:
            with self._life:
                await self._connect(self.connection)
                await self._live(task_status)
        finally:
            if self._channels is not None:
                self._channels.close()
            self.exited.set()
        if not self._answered:
            raise StartupFailed(
                NoKernelInfo(f"no answer within {self._timeout:g} seconds")
                if await listens(*self._address)
                else ConnectTimeout(self._timeout)
            )
        return RunExit(
            exit_code=0,
            reason="The adopted kernel was shut down"
            if self.requested
            else "The adopted kernel is gone",
            requested=self.requested,
        )

    async def _connect(self, connection: ConnectionInfo) -> None:
        """Connect to where the kernel is, which is the same place from now on."""
        tools = self._tools
        try:
            with trio.fail_at(self._deadline):
                host = await address_of(connection.ip)
            self._address = (host, connection.shell_port)
            self._channels = Channels(
                tools.context,
                msgspec.structs.replace(connection, ip=host),
                self._session_id.encode(),
                tools.traffic,
                tools.limits,
                tools.deadlines,
                self._handle,
            )
        except trio.TooSlowError:
            raise StartupFailed(ConnectTimeout(self._timeout)) from None
        except (zmq.ZMQError, OSError, UnicodeError) as error:
            raise StartupFailed(ConnectFailed(str(error))) from error

    async def _live(self, task_status: trio.TaskStatus[None]) -> None:
        """Talk to the kernel until it is gone, or has not answered in time."""
        channels = self._channels
        assert channels is not None  # noqa: S101 (we have just connected)
        async with trio.open_nursery() as life:
            channels.start(life)
            with trio.move_on_at(self._deadline):
                await self._readiness.wait(channels, self._host, self._tools.deadlines)
                self._answered = True
            if self._answered:
                task_status.started()
                life.start_soon(channels.watch_heartbeat, self)
                await self._until_gone()
            life.cancel_scope.cancel(reason="the adopted kernel is gone, or never answered")

    def _handle(self, channel: Channel, batch: list[list[bytes]]) -> None:
        assert self._channels is not None  # noqa: S101 (it is what calls this)
        self._host.from_kernel(channel, batch, self._channels.signer)

    async def _until_gone(self) -> None:
        deadlines = self._tools.deadlines
        while True:
            await self._lost.wait()
            with trio.move_on_after(deadlines.adopted_lost_seconds):
                while self._lost.is_set() and await listens(*self._address):  # noqa: ASYNC110 (no event tells)
                    await trio.sleep(deadlines.heartbeat_pause_seconds)
            if self._lost.is_set():
                return

    def heartbeat(self) -> None:
        """See `HeartbeatListener`."""
        self._host.heartbeat()

    def heartbeat_lost(self) -> None:
        """See `HeartbeatListener`."""
        self._lost.set()
        self._host.heartbeat_lost()

    def heartbeat_back(self) -> None:
        """See `HeartbeatListener`."""
        self._lost = trio.Event()
        self._host.heartbeat_back()

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
        """Ask the kernel to end; if it does not, only the conversation ends.

        One that has not answered yet is not ours to end.
        """
        self.requested = True
        if self._answered:
            self.send(own_request(Channel.CONTROL, "shutdown_request", {"restart": restart}))
            with trio.move_on_after(polite_seconds):
                while await listens(*self._address):  # noqa: ASYNC110 (no event tells)
                    await trio.sleep(self._tools.deadlines.adopted_poll_seconds)
        self._life.cancel(reason="the session lets go of the adopted kernel")
        await self.exited.wait()
