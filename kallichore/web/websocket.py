"""A WebSocket after its handshake: wsproto for everything inbound, finished frames outbound."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio
from trio.socket import SO_SNDBUF, SOL_SOCKET
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    TextMessage,
)
from wsproto.events import (
    Ping as PingEvent,
)
from wsproto.events import (
    Pong as PongEvent,
)
from wsproto.frame_protocol import CloseReason

from kallichore.frontend import Closed, HalfClosed, PeerGone, Ping, Pong, Text
from kallichore.web.frames import begin_long_text, between_messages, unmask_fast, whole_texts

if TYPE_CHECKING:
    from wsproto.events import Event

    from kallichore.config import Limits
    from kallichore.web.frames import LongText

__all__ = ["WebSocket"]

_NORMAL: Final = 1000
_TOO_BIG: Final = 1009
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class WebSocket:
    """The server's end of one connection (a `kallichore.frontend.Peer`).

    One task may receive and one may send at a time. Owns the stream.
    """

    def __init__(self, stream: trio.SocketStream, trailing: bytes, limits: Limits) -> None:
        """Take over after the 101. ``trailing`` is what came together with the upgrade."""
        self._stream = stream
        self._socket = stream.socket
        self._limits = limits
        self._socket.setsockopt(SOL_SOCKET, SO_SNDBUF, limits.send_buffer_bytes)
        self._connection = Connection(ConnectionType.SERVER)
        unmask_fast(self._connection)
        if trailing:
            self._connection.receive_data(trailing)
        self._events = self._connection.events()
        self._plain = not trailing  # between two messages, as far as wsproto knows
        self._long: LongText | None = None
        self._read_bytes = limits.socket_read_bytes
        self._parts: list[str] = []
        self._size = 0
        self._in_text = False
        self._over = False
        self.sent = 0

    async def receive(self) -> list[Text | Ping | Pong | Closed | HalfClosed]:
        """Give what arrived, which may be nothing whole yet.

        Raises:
            PeerGone: The connection is broken.
        """
        most, size = self._limits.frames_at_once, self._limits.client_message_bytes
        if self._long is not None:
            return await self._receive_long(self._long)
        arrived: list[Text | Ping | Pong | Closed | HalfClosed] = []
        events = [] if self._plain else list(islice(self._events, most))
        if events:
            await trio.lowlevel.checkpoint()
        else:
            data = await self._read()
            if not data:
                return [HalfClosed()]
            self._choose_read_size(len(data))
            if self._plain:
                texts, end = whole_texts(data, most, size)
                arrived += map(Text, texts)
                if end == len(data):
                    return arrived
                data = data[end:] if end else data
                self._long = begin_long_text(data, size) if len(texts) < most else None
                if self._long is not None:
                    return arrived
            self._connection.receive_data(data)
            self._events = self._connection.events()
            events = list(islice(self._events, most - len(arrived)))
        self._plain = len(arrived) + len(events) < most and between_messages(self._connection)
        self._translate_into(arrived, events)
        return arrived

    async def _receive_long(
        self, frame: LongText
    ) -> list[Text | Ping | Pong | Closed | HalfClosed]:
        """Read on in the frame that is half here."""
        count = await self._read_into(frame)
        if not count:
            return [HalfClosed()]
        if not frame.took(count):
            return []
        self._long = None
        try:
            return [Text(frame.text())]
        except UnicodeDecodeError as error:
            return [Closed(int(CloseReason.INVALID_FRAME_PAYLOAD_DATA), str(error))]

    def _translate_into(
        self, arrived: list[Text | Ping | Pong | Closed | HalfClosed], events: list[Event]
    ) -> None:
        for event in events:
            translated = self._translate(event)
            if translated is not None:
                arrived.append(translated)
                if isinstance(translated, Closed):
                    break

    async def _read(self) -> bytes:
        """Wait first: Trio's own `recv` tries first, which is nearly always in vain here."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                with suppress(BlockingIOError):
                    return os.read(self._socket.fileno(), self._read_bytes)
        except _BROKEN as error:
            raise PeerGone from error

    async def _read_into(self, frame: LongText) -> int:
        """Read into its place what has come of a frame; how many bytes."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                room = frame.room(self._limits.socket_read_most_bytes)
                with room, suppress(BlockingIOError):
                    return os.readv(self._socket.fileno(), [room])
        except _BROKEN as error:
            raise PeerGone from error

    def _choose_read_size(self, got: int) -> None:
        """Read more at once while a big message comes in."""
        if got < self._read_bytes:
            self._read_bytes = self._limits.socket_read_bytes
        else:
            self._read_bytes = min(2 * got, self._limits.socket_read_most_bytes)

    def _translate(self, event: Event) -> Text | Ping | Pong | Closed | None:
        match event:
            case TextMessage():
                return self._text(event)
            case BytesMessage():
                return self._binary(event)
            case PingEvent():
                return Ping(bytes(event.payload))
            case PongEvent():
                return Pong()
            case CloseConnection():
                without_code = event.code == CloseReason.NO_STATUS_RCVD
                return Closed(_NORMAL if without_code else int(event.code), event.reason or "")
            case _:
                return None

    def _text(self, event: TextMessage) -> Text | Closed | None:
        if event.data:  # any number of empty fragments may come
            self._parts.append(event.data)
        self._size += len(event.data) if event.data.isascii() else len(event.data.encode())
        if self._size > self._limits.client_message_bytes:
            return self._too_big()
        if not event.message_finished:
            return None
        text = self._parts[0] if len(self._parts) == 1 else "".join(self._parts)
        self._parts.clear()
        self._size = 0
        return Text(text) if text else Closed(_NORMAL, "an empty text frame closes")

    def _binary(self, event: BytesMessage) -> Closed | None:
        """Binary messages are read, bounded like others, and ignored."""
        self._size += len(event.data)
        if self._size > self._limits.client_message_bytes:
            return self._too_big()
        if event.message_finished:
            self._size = 0
        return None

    def _too_big(self) -> Closed:
        limit = self._limits.client_message_bytes
        return Closed(_TOO_BIG, f"a message may have at most {limit} bytes")

    async def send(self, data: bytes) -> None:
        """Write. However it ends, `sent` says how many bytes the operating system has taken.

        Only what is not taken at once is waited for, so this need not be a checkpoint: Trio's own
        `send` always is one, which costs more than the write itself.

        Raises:
            PeerGone: The connection is broken.
        """
        self.send_some(data)
        if self.sent < len(data):
            view = memoryview(data)
            try:
                while self.sent < len(data):
                    await trio.lowlevel.wait_writable(self._socket)
                    with suppress(BlockingIOError):
                        self.sent += os.write(self._socket.fileno(), view[self.sent :])
            except _BROKEN as error:
                raise PeerGone from error

    def send_some(self, data: bytes) -> None:
        """Write what the operating system takes at once; `sent` says how many bytes.

        Raises:
            PeerGone: The connection is broken.
        """
        self.sent = 0
        try:
            self.sent = os.write(self._socket.fileno(), data)
        except BlockingIOError:
            pass
        except OSError as error:
            raise PeerGone from error

    def ping_frame(self, payload: bytes) -> bytes:
        """Make a ping."""
        return self._control(PingEvent(payload))

    def pong_frame(self, payload: bytes) -> bytes:
        """Make a pong."""
        return self._control(PongEvent(payload))

    def close_frame(self, code: int, reason: str) -> bytes:
        """Make a close frame, or nothing if there was one already."""
        if self._over:
            return b""
        self._over = True
        return self._control(CloseConnection(code, reason))

    def _control(self, event: Event) -> bytes:
        open_states = {ConnectionState.OPEN}
        if isinstance(event, CloseConnection):
            open_states.add(ConnectionState.REMOTE_CLOSING)
        if self._connection.state not in open_states:
            return b""
        return bytes(self._connection.send(event))

    async def linger(self) -> None:
        """After our close frame, read on until the peer's own, or until it hangs up.

        Closing with unread input would make the operating system reset the connection, and the
        peer could lose what it has not read yet.
        """
        if self._long is not None and not await self._skip(self._long):
            return
        for _ in self._connection.events():  # what has come already, perhaps the close frame
            pass
        try:
            while self._connection.state is ConnectionState.LOCAL_CLOSING:
                data = await self._stream.receive_some(self._limits.socket_read_bytes)
                if not data:
                    return
                self._connection.receive_data(bytes(data))
                for _ in self._connection.events():
                    pass
        except _BROKEN as error:
            raise PeerGone from error

    async def _skip(self, frame: LongText) -> bool:
        """Read a frame that is half here to its end, and forget it; whether it has one."""
        self._long = None
        while count := await self._read_into(frame):
            if frame.took(count):
                return True
        return False

    def abort(self) -> None:
        """Close the connection at once."""
        self._socket.close()
