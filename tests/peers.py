"""A WebSocket peer in memory: takes as much as it is told to, and says what it is told to say."""

from __future__ import annotations

import json
import struct
from typing import Any

import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, TextMessage
from wsproto.events import Ping as PingReceived
from wsproto.events import Pong as PongReceived

from kallichore.frontend import Closed, HalfClosed, PeerGone, Ping, Pong, Text

__all__ = ["MeteredPeer"]

Arrival = Text | Ping | Pong | Closed | HalfClosed


class MeteredPeer:
    """The server's end of a connection, and the hands of whoever is at the other."""

    def __init__(self, room: int | None = None, *, answers: bool = True) -> None:
        """Take ``room`` bytes without being asked again, None for all; ``answers`` pings."""
        self.sent = 0
        self.room = room
        self.answers = answers
        self.taken = bytearray()
        self.writes = 0
        self.aborted = False
        self.lingered = False
        self._over = False
        self._broken = False
        self._arrived: list[Arrival] = []
        self._changed = trio.Event()
        self._read_up_to = 0

    # -- as the frontend sees it ----------------------------------------------------------------

    async def receive(self) -> list[Text | Ping | Pong | Closed | HalfClosed]:
        await trio.lowlevel.checkpoint()
        while not self._arrived:
            self._check()
            await self._changed.wait()
        self._check()
        arrived, self._arrived = self._arrived, []
        return arrived

    def send_some(self, data: bytes) -> None:
        self.sent = 0
        self.writes += 1
        self._take_more(data)

    async def send(self, data: bytes) -> None:
        self.sent = 0
        await trio.lowlevel.checkpoint_if_cancelled()
        self.writes += 1
        while True:
            self._take_more(data)
            if self.sent == len(data):
                break
            await self._changed.wait()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _take_more(self, data: bytes) -> None:
        self._check()
        some = len(data) - self.sent
        if self.room is not None:
            some = min(some, self.room)
            self.room -= some
        self.taken += data[self.sent : self.sent + some]
        self.sent += some
        self._answer_pings()

    def ping_frame(self, payload: bytes) -> bytes:
        return b"\x89%c%b" % (len(payload), payload)

    def pong_frame(self, payload: bytes) -> bytes:
        return b"\x8a%c%b" % (len(payload), payload)

    def close_frame(self, code: int, reason: str) -> bytes:
        if self._over:
            return b""
        self._over = True
        payload = struct.pack("!H", code) + reason.encode()
        return b"\x88%c%b" % (len(payload), payload)

    async def linger(self) -> None:
        self.lingered = True
        await trio.lowlevel.checkpoint()
        self._check()

    def abort(self) -> None:
        self.aborted = True
        self._change()

    # -- as its owner at the other end does it --------------------------------------------------

    def say(self, *events: Arrival) -> None:
        self._arrived += events
        self._change()

    def take(self, count: int | None = None) -> None:
        """Make room for so many more bytes, None for all."""
        self.room = None if count is None else (self.room or 0) + count
        self._change()

    def vanish(self) -> None:
        """Break the connection."""
        self._broken = True
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _check(self) -> None:
        if self._broken or self.aborted:
            raise PeerGone

    def _answer_pings(self) -> None:
        if self.answers and b"\x89\x08" in self.taken[self._read_up_to :]:
            self.say(Pong())
        self._read_up_to = len(self.taken)

    # -- what came of it ------------------------------------------------------------------------

    @property
    def events(self) -> list[Event]:
        """What a WebSocket library makes of everything taken so far; half a frame is left out."""
        reading = Connection(ConnectionType.CLIENT)
        reading.receive_data(bytes(self.taken))
        return [event for event in reading.events() if getattr(event, "message_finished", True)]

    @property
    def texts(self) -> list[str]:
        return [event.data for event in self.events if isinstance(event, TextMessage)]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts]

    @property
    def pings(self) -> list[bytes]:
        return [bytes(event.payload) for event in self.events if isinstance(event, PingReceived)]

    @property
    def pongs(self) -> list[bytes]:
        return [bytes(event.payload) for event in self.events if isinstance(event, PongReceived)]

    @property
    def close(self) -> tuple[int, str] | None:
        """Code and reason of the close frame, None if there was none."""
        for event in self.events:
            if isinstance(event, CloseConnection):
                return int(event.code), event.reason or ""
        return None
