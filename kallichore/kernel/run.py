"""The seam between a session and whatever runs its kernel: what a run offers, needs and leaves.

A run is one life of a kernel. `LaunchedRun` starts a process, `AdoptedRun` talks to one that
somebody else started; a session cannot tell them apart but by what they refuse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from kallichore.protocol.compose import request
from kallichore.protocol.message import Channel
from kallichore.stamps import new_id, now_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import zmq

    from kallichore.config import Deadlines, Limits
    from kallichore.kernel.channels import Channels
    from kallichore.kernel.connection import PortPool
    from kallichore.kernel.process import Process, Reaper
    from kallichore.models import ConnectionInfo
    from kallichore.protocol.message import ClientMessage
    from kallichore.protocol.wire import Signer
    from kallichore.tally import Tally
    from kallichore.traffic import Traffic

__all__ = ["KernelRun", "Readiness", "RunExit", "RunHost", "RunTools", "own_request"]

USERNAME = "kallichore"
"""The user name in the server's own requests to kernels."""
_ASK_AGAIN: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTools:
    """What all runs of a server share."""

    context: zmq.Context[zmq.Socket[bytes]]
    ports: PortPool
    reaper: Reaper
    directory: Path
    """The server's private directory."""
    environment: Mapping[str, str]
    """What kernels inherit."""
    server_id: str
    tally: Tally
    traffic: Traffic
    limits: Limits
    deadlines: Deadlines


@dataclass(frozen=True, slots=True, kw_only=True)
class RunExit:
    """How a run ended."""

    exit_code: int
    """As clients are told it: -1 for a signal, 0 for an adopted kernel."""
    reason: str
    signal: str | None = None
    out_of_memory: bool = False
    requested: bool = False
    output_tail: str = ""


class RunHost(Protocol):
    """What a run tells its session. Nothing here waits."""

    def from_kernel(self, channel: Channel, batch: list[list[bytes]], signer: Signer) -> None:
        """Messages arrived on a channel."""

    def output(self, stream: str, text: str) -> None:
        """The process wrote to ``stdout`` or ``stderr``."""

    def registered(self, connection: ConnectionInfo) -> None:
        """The kernel has registered (JEP 66)."""

    def info_requested(self, msg_id: str) -> None:
        """The run's own `kernel_info_request` goes out under this id."""

    def kernel_answered(self) -> None:
        """The kernel has answered it, and its iopub is known to be subscribed."""

    def heartbeat(self) -> None:
        """The kernel has answered a heartbeat."""

    def heartbeat_lost(self) -> None:
        """The kernel has been silent for `Deadlines.heartbeat_patience_seconds`."""

    def heartbeat_back(self) -> None:
        """The kernel answers again."""


class KernelRun(Protocol):
    """One life of a kernel."""

    process: Process | None
    """The process, once and while there is one."""
    connection: ConnectionInfo | None
    requested: bool
    """The end was asked for through us."""
    exited: trio.Event
    """Set when nothing of the run is left."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> RunExit:
        """Live one life; started when the kernel has answered.

        Cancelling it ends the kernel and waits, for a bounded time, until nothing is left.

        Raises:
            StartupFailed: Before it was started. Nothing is left.
        """

    def info_received(self) -> None:
        """The answer to the run's own `kernel_info_request` is there."""

    def status_heard(self) -> None:
        """A status of the kernel has come over iopub while it was asked for its info."""

    def send(self, message: ClientMessage) -> bool:
        """Send a message to the kernel, or queue it; False if that is not possible."""

    def drain(self, channel: Channel) -> None:
        """Handle what waits on a channel now."""

    async def shut_down(self, *, restart: bool, polite_seconds: float) -> None:
        """Ask the kernel to end, then make it. Returns when nothing of it is left."""


class Readiness:
    """Waiting for a kernel's first answer."""

    def __init__(self) -> None:
        """Nothing has been heard yet."""
        self.info = trio.Event()
        self.status = trio.Event()

    async def wait(self, channels: Channels, host: RunHost, deadlines: Deadlines) -> None:
        """Ask for the kernel's info; return once it is there and iopub is known to be subscribed.

        The busy and idle around an answer show the latter. Those around the first one may have gone
        out before the subscription came in; so the kernel is asked again, under the same id. One
        that says nothing on iopub, against the specification, is taken as it is in the end. And so
        is one whose stdin has not met ours by then.
        """
        message = own_request(Channel.SHELL, "kernel_info_request", {})
        host.info_requested(message.msg_id)
        channels.send(message)
        await self.info.wait()
        with trio.move_on_after(deadlines.subscription_seconds):
            for _ in range(_ASK_AGAIN):
                if await self._hears_status(deadlines):
                    break
                self.info = trio.Event()
                channels.send(message)
                await self.info.wait()
            else:
                await self._hears_status(deadlines)
            await channels.stdin_met()
        host.kernel_answered()

    async def _hears_status(self, deadlines: Deadlines) -> bool:
        with trio.move_on_after(deadlines.status_seconds):
            await self.status.wait()
        return self.status.is_set()


def own_request(channel: Channel, msg_type: str, content: object) -> ClientMessage:
    """Write a request of the server itself."""
    return request(
        channel,
        msg_type,
        content,
        msg_id=new_id(),
        session=new_id(),
        username=USERNAME,
        date=now_text(),
    )
