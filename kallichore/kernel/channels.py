"""The ZeroMQ sockets of one kernel's life: shell, control, stdin, iopub, and its heartbeat."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import trio
import zmq

from kallichore.kernel.zmq_socket import ZmqSocket
from kallichore.log import TRACE
from kallichore.protocol.message import Channel
from kallichore.protocol.wire import Signer, serialize

if TYPE_CHECKING:
    from collections.abc import Callable

    from kallichore.config import Deadlines, Limits
    from kallichore.models import ConnectionInfo
    from kallichore.protocol.message import ClientMessage
    from kallichore.traffic import Traffic

__all__ = ["Channels", "HeartbeatListener"]

log = logging.getLogger(__name__)
RECONNECT_MS: Final = 5
"""How soon libzmq knocks again at a port where no kernel listens yet."""


_DELIMITER: Final = b"<IDS|MSG>"
_HEADER: Final = 2
"""Where a message's header is, counted from the delimiter."""


class HeartbeatListener(Protocol):
    """Who wants to know about the heartbeat."""

    def heartbeat(self) -> None:
        """The kernel has answered once more."""

    def heartbeat_lost(self) -> None:
        """The kernel has been silent for `Deadlines.heartbeat_patience_seconds`."""

    def heartbeat_back(self) -> None:
        """The kernel answers (again)."""


class Channels:
    """Four message channels and a heartbeat, each a task of its own; none blocks another."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        connection: ConnectionInfo,
        identity: bytes,
        traffic: Traffic,
        limits: Limits,
        deadlines: Deadlines,
        handle: Callable[[Channel, list[list[bytes]]], None],
    ) -> None:
        """Connect everything but the heartbeat; nobody needs to listen there yet."""
        self._context = context
        self._limits = limits
        self._deadlines = deadlines
        self._handle = handle
        self._is_ipv6 = ":" in connection.ip
        host = f"[{connection.ip}]" if self._is_ipv6 else connection.ip
        self._base = f"{connection.transport}://{host}:"
        self._heartbeat_port = connection.hb_port
        self.signer = Signer(connection.key)
        ports = {
            Channel.IOPUB: connection.iopub_port,
            Channel.SHELL: connection.shell_port,
            Channel.CONTROL: connection.control_port,
            Channel.STDIN: connection.stdin_port,
        }
        self._sockets: dict[Channel, ZmqSocket] = {}
        self._stdin: zmq.Socket[bytes] | None = None
        self._met: zmq.Socket[bytes] | None = None
        """Hears when the kernel's stdin has shaken hands with ours; None once nobody listens."""
        try:
            for channel, port in ports.items():
                self._sockets[channel] = ZmqSocket(
                    self._connect(channel, port, identity),
                    limits,
                    lambda batch, channel=channel: self._take(channel, batch),  # type: ignore[misc]
                    traffic,
                    limits.iopub_messages if channel is Channel.IOPUB else 0,
                )
        except BaseException:
            self.close()
            raise

    def _connect(self, channel: Channel, port: int, identity: bytes) -> zmq.Socket[bytes]:
        kind = zmq.SUB if channel is Channel.IOPUB else zmq.DEALER
        socket = self._socket(kind)
        if kind == zmq.SUB:
            # Beyond this libzmq stops reading, and TCP and then the kernel's own queue hold what
            # comes: a kernel that outruns us must not fill our memory.
            socket.set(zmq.RCVHWM, self._limits.iopub_messages)
            socket.set(zmq.SUBSCRIBE, b"")
        else:
            socket.set(zmq.ROUTING_ID, identity)
        if channel is Channel.STDIN:
            self._stdin = socket
            self._met = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        socket.connect(self._base + str(port))
        return socket

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.set(zmq.IPV6, int(self._is_ipv6))
        return socket

    def start(self, nursery: trio.Nursery) -> None:
        """Begin to receive, in tasks of the given nursery."""
        for channel, socket in self._sockets.items():
            nursery.start_soon(socket.run, name=f"pump {channel}")

    async def stdin_met(self) -> None:
        """Wait until the kernel knows our stdin: what it asks of somebody unknown is lost."""
        if self._met is not None:
            try:
                await _until(self._met, zmq.POLLIN)
            finally:
                self._stop_listening()

    def _stop_listening(self) -> None:
        met, self._met = self._met, None
        if met is not None:
            if self._stdin is not None and not self._stdin.closed:
                self._stdin.disable_monitor()  # first: libzmq waits for those who listen
            met.close(0)

    def send(self, message: ClientMessage) -> bool:
        """Sign and send, or queue behind what waits; False if too much waits already."""
        if log.isEnabledFor(TRACE):
            log.log(TRACE, "to %s: %s %s", message.channel, message.msg_type, message.msg_id)
        return self._sockets[message.channel].send(serialize(message, self.signer))

    def _take(self, channel: Channel, batch: list[list[bytes]]) -> None:
        if log.isEnabledFor(TRACE):
            for frames in batch:
                size = sum(map(len, frames))
                log.log(TRACE, "from %s: %s, %d bytes", channel, _name(frames), size)
        self._handle(channel, batch)

    def drain(self, channel: Channel) -> None:
        """Handle what waits on one channel now."""
        self._sockets[channel].drain()

    def close(self) -> None:
        """Close the sockets. What the kernel has not taken is lost."""
        self._stop_listening()
        for socket in self._sockets.values():
            socket.close()

    async def watch_heartbeat(self, listener: HeartbeatListener) -> None:
        """Ask the kernel for a sign of life again and again, until cancelled.

        Every beat has a socket of its own, so that a lost connection heals, and an idle session
        holds two descriptors and some 50 kB less; a beat costs half a millisecond.
        """
        alive = True
        while True:
            beats = await self._beat()
            if beats is not alive:
                alive = beats
                (listener.heartbeat_back if alive else listener.heartbeat_lost)()
            if beats:
                listener.heartbeat()
                await trio.sleep(self._deadlines.heartbeat_pause_seconds)

    async def _beat(self) -> bool:
        """Ask once; whether the kernel answered in time."""
        socket = self._socket(zmq.REQ)
        try:
            socket.connect(self._base + str(self._heartbeat_port))
            with trio.move_on_after(self._deadlines.heartbeat_patience_seconds) as patience:
                await _until(socket, zmq.POLLOUT)
                socket.send(b"ping", zmq.NOBLOCK)
                await _until(socket, zmq.POLLIN)
                socket.recv_multipart(zmq.NOBLOCK)
            return not patience.cancelled_caught
        finally:
            socket.close()


class _Header(msgspec.Struct):
    msg_type: str = ""
    msg_id: str = ""


def _name(frames: list[bytes]) -> str:
    """Type and id of a message, for the log: nothing of it has been checked yet."""
    try:
        header = frames[frames.index(_DELIMITER) + _HEADER]
        found = msgspec.json.decode(header, type=_Header)
    except (ValueError, IndexError, RecursionError):
        return "something malformed"
    return f"{found.msg_type} {found.msg_id}"


async def _until(socket: zmq.Socket[bytes], event: int) -> None:
    """Wait for an event of a socket that only this task touches."""
    fd = int(socket.getsockopt(zmq.FD))
    while not int(socket.getsockopt(zmq.EVENTS)) & event:
        await trio.lowlevel.wait_readable(fd)
