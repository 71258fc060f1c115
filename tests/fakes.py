"""A kernel, its process and a client without any I/O, for tests that own the clock.

`FakeKernel` speaks the wire protocol over memory. `FakeRun` is a life of it (a `KernelRun`), held
to the same suite as the real ones: `tests/conformance/kernel_run.py`.
"""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import trio

from kallichore.errors import ProcessExited, StartupFailed
from kallichore.frontend import Closed, HalfClosed, PeerGone, Text
from kallichore.kernel.ending import exit_reason, how_it_ended, reported_exit_code, signal_name
from kallichore.kernel.rendezvous import drawn_connection
from kallichore.kernel.run import RunExit, own_request
from kallichore.protocol.compose import reply
from kallichore.protocol.message import Channel, ClientMessage
from kallichore.protocol.wire import Signer, serialize
from kallichore.stamps import new_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from kallichore.frontend import Ping, Pong
    from kallichore.kernel.run import RunHost
    from kallichore.models import ConnectionInfo, NewSession

__all__ = ["FakeKernel", "FakePeer", "FakeProcess", "FakeRun", "fake_runs"]

INFO = {"status": "ok", "implementation": "fake", "language_info": {"name": "fake"}}


class FakeProcess:
    """A process that exits on command."""

    def __init__(self, pid: int = 2**22 + 1) -> None:
        """Run."""
        self.pid = pid
        self.returncode: int | None = None
        self.signals: list[int] = []
        self.gone = trio.Event()

    def exit(self, returncode: int) -> None:
        """Be gone."""
        if self.returncode is None:
            self.returncode = returncode
            self.gone.set()

    def signal_group(self, signal_number: int) -> None:
        """Take note of a signal."""
        if self.returncode is not None:
            raise ProcessLookupError
        self.signals.append(signal_number)

    def kill_tree(self) -> None:
        """Be killed."""
        self.exit(-signal.SIGKILL)


class FakeKernel:
    """What a kernel says to what it is told: plain functions, called with frames."""

    def __init__(self, key: str, publish: Callable[[Channel, list[bytes]], None]) -> None:
        """Sign with ``key``; everything said goes to ``publish``."""
        self.signer = Signer(key)
        self.received: list[ClientMessage] = []
        self.holds = False
        """Whether executions stay unanswered until `finish`."""
        self._publish = publish

    def say(self, channel: Channel, msg_type: str, content: object, parent: bytes) -> None:
        """Send one message."""
        message = reply(
            channel,
            msg_type,
            content,
            parent,
            msg_id=new_id(),
            session="fake",
            username="fake",
            date="2026-01-01T00:00:00Z",
        )
        parts = [message.header, message.parent_header, message.metadata, message.content]
        signature = self.signer.sign(b"".join(parts))
        self._publish(channel, [b"<IDS|MSG>", signature, *parts])

    def status(self, state: str, parent: bytes) -> None:
        """Say busy or idle."""
        self.say(Channel.IOPUB, "status", {"execution_state": state}, parent)

    def receive(self, message: ClientMessage) -> None:
        """Take a message, and answer it."""
        self.received.append(message)
        if message.msg_type == "execute_request":
            self.begin(message)
            if not self.holds:
                self.finish(message)
        elif message.msg_type.endswith("_request"):
            content = INFO if message.msg_type == "kernel_info_request" else {"status": "ok"}
            self.status("busy", message.header)
            kind = message.msg_type.replace("_request", "_reply")
            self.say(message.channel, kind, content, message.header)
            self.status("idle", message.header)

    def begin(self, message: ClientMessage) -> None:
        """Be busy with an execution."""
        self.status("busy", message.header)
        code = json.loads(message.content)["code"]
        self.say(Channel.IOPUB, "stream", {"name": "stdout", "text": code}, message.header)

    def finish(self, message: ClientMessage, status: str = "ok") -> None:
        """End an execution."""
        content = {"status": status, "execution_count": 1}
        self.say(message.channel, "execute_reply", content, message.header)
        self.status("idle", message.header)


class FakeRun:
    """One life of a fake kernel (a `KernelRun`), with the constructor of a `LaunchedRun`."""

    fails_with: int | None = None
    """Exit code with which the process ends instead of answering."""
    waits: bool = False
    """Whether it answers only when its gate is set."""

    def __init__(self, tools: object, host: RunHost, spec: NewSession, key: str, *_: Any) -> None:
        """Prepare to live."""
        del tools, spec
        self._host = host
        self.kernel = FakeKernel(key, self._published)
        self.process: Any = None
        self.connection: ConnectionInfo | None = drawn_connection([1, 2, 3, 4, 5], key)
        self.requested = False
        self.exited = trio.Event()
        self.gate = trio.Event()
        if not self.waits:
            self.gate.set()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> RunExit:
        """See `KernelRun.run`."""
        self.process = FakeProcess()
        try:
            await trio.lowlevel.checkpoint()
            if self.fails_with is not None:
                self.process.exit(self.fails_with)
                how = how_it_ended(self.fails_with)
                raise StartupFailed(ProcessExited(how), reported_exit_code(self.fails_with), "")
            await self.gate.wait()
            request = own_request(Channel.SHELL, "kernel_info_request", {})
            self._host.info_requested(request.msg_id)
            self.send(request)
            self._host.kernel_answered()
            task_status.started()
            self._host.heartbeat()
            await self.process.gone.wait()
        finally:
            self.process.exit(-signal.SIGKILL)
            self.exited.set()
        return self.exit_of(None)

    def exit_of(self, failure: StartupFailed | None) -> RunExit:
        """Describe the end."""
        code = self.process.returncode
        reason = exit_reason(code, requested=self.requested)
        return RunExit(
            exit_code=reported_exit_code(code),
            reason=reason if failure is None else failure.error.message,
            signal=signal_name(-code) if code < 0 else None,
            requested=self.requested,
        )

    def _published(self, channel: Channel, frames: list[bytes]) -> None:
        if not self.exited.is_set():
            self._host.from_kernel(channel, [frames], self.kernel.signer)

    def info_received(self) -> None:
        """See `KernelRun.info_received`."""

    def status_heard(self) -> None:
        """See `KernelRun.status_heard`."""

    def release_output(self) -> None:
        """There is none."""

    lost_port_race = False

    def send(self, message: ClientMessage) -> bool:
        """See `KernelRun.send`."""
        if self.process is None or self.exited.is_set():
            return False
        serialize(message, self.kernel.signer)
        self.kernel.receive(message)
        return True

    def drain(self, channel: Channel) -> None:
        """Nothing ever waits."""

    async def shut_down(self, *, restart: bool, polite_seconds: float) -> None:
        """See `KernelRun.shut_down`."""
        del restart, polite_seconds
        self.requested = True
        if self.process is not None:
            self.process.exit(0)
        await self.exited.wait()


def fake_runs() -> tuple[list[FakeRun], Callable[..., FakeRun]]:
    """Give a list, and a stand-in for `LaunchedRun` that adds every run it makes to it."""
    made: list[FakeRun] = []

    def make(*arguments: Any) -> FakeRun:
        made.append(FakeRun(*arguments))
        return made[-1]

    return made, make


class FakePeer:
    """A client at the other end of a WebSocket, in memory (a `kallichore.frontend.Peer`)."""

    def __init__(self) -> None:
        """Be connected."""
        self.sent = 0
        self.received: list[bytes] = []
        self.closed_with: int | None = None
        self.aborted = False
        self.reads = trio.Event()
        """While this is not set, nothing can be written to it."""
        self.reads.set()
        self._incoming: list[Text | Pong | Closed | HalfClosed] = []
        self._arrival = trio.Event()

    def says(self, *events: Text | Pong | Closed | HalfClosed) -> None:
        """Send something."""
        self._incoming += events
        self._arrival.set()

    def vanish(self) -> None:
        """Be gone without a word."""
        self.aborted = True
        self._arrival.set()
        self.reads.set()

    async def receive(self) -> list[Text | Ping | Pong | Closed | HalfClosed]:
        """See `Peer.receive`."""
        await self._arrival.wait()
        if self.aborted:
            raise PeerGone
        self._arrival = trio.Event()
        incoming, self._incoming = self._incoming, []
        return list(incoming)

    def send_some(self, data: bytes) -> None:
        """See `Peer.send_some`."""
        if self.aborted:
            raise PeerGone
        self.sent = len(data) if self.reads.is_set() else 0
        self.received.append(data[: self.sent])

    async def send(self, data: bytes) -> None:
        """See `Peer.send`."""
        self.sent = 0
        await trio.lowlevel.checkpoint()
        await self.reads.wait()
        if self.aborted:
            raise PeerGone
        self.received.append(data)
        self.sent = len(data)

    def ping_frame(self, payload: bytes) -> bytes:
        """See `Peer.ping_frame`."""
        return b"<ping %d>" % int.from_bytes(payload, "big")

    def pong_frame(self, payload: bytes) -> bytes:
        """See `Peer.pong_frame`."""
        return b"<pong>" + payload

    def close_frame(self, code: int, reason: str) -> bytes:
        """See `Peer.close_frame`."""
        del reason
        if self.closed_with is not None:
            return b""
        self.closed_with = code
        return b"<close %d>" % code

    async def linger(self) -> None:
        """See `Peer.linger`."""
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """See `Peer.abort`."""
        self.vanish()

    @property
    def data(self) -> bytes:
        """Everything that was written to it."""
        return b"".join(self.received)
