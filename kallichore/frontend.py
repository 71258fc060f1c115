"""A client on a session's channel: reader, writer and pings, from its upgrade to its farewell."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from kallichore.config import Deadlines, Limits
    from kallichore.outbox import Outbox

__all__ = ["Closed", "Frontend", "HalfClosed", "Peer", "PeerGone", "Ping", "Pong", "Text"]

log = logging.getLogger(__name__)
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
_LOOKS: Final = 8
"""How often a write that does not end is looked at between two pings."""


class PeerGone(Exception):
    """The connection is broken: nothing can be read or written any more."""


@dataclass(frozen=True, slots=True)
class Text:
    """A whole text message, a long one perhaps in the bytes in which it came."""

    text: str | bytearray


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping to be answered."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """An answer to one of our pings."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer is done, or has broken the protocol: say farewell with this code."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HalfClosed:
    """The peer will send no more, without a close frame; it may still read, or be dead."""


class Peer(Protocol):
    """A WebSocket after its handshake, as `kallichore.web.websocket` makes them."""

    sent: int
    """Bytes of the data given to `send` last that the operating system has taken."""

    async def receive(self) -> list[Text | Ping | Pong | Closed | HalfClosed]:
        """Give what arrived; raises `PeerGone`."""

    def send_some(self, data: bytes) -> None:
        """Write as much as the system takes at once; `sent` says how much. Raises `PeerGone`."""

    async def send(self, data: bytes) -> None:
        """Write; on any exit `sent` says how far it came. Raises `PeerGone`.

        It is a checkpoint only if the system does not take everything at once.
        """

    def ping_frame(self, payload: bytes) -> bytes:
        """Make a ping."""

    def pong_frame(self, payload: bytes) -> bytes:
        """Make a pong."""

    def close_frame(self, code: int, reason: str) -> bytes:
        """Make a close frame; empty if one was made already."""

    async def linger(self) -> None:
        """After a close frame, wait until the peer has sent its own, or hangs up."""

    def abort(self) -> None:
        """Close the connection at once."""


class _End(Enum):
    PEER = "the peer said goodbye, or will get ours"
    BROKEN = "the connection is broken"
    OURS = "cancelled by us"


class Frontend:
    """One client of one session. Runs in the session's nursery; the newest evicts the others."""

    def __init__(
        self,
        peer: Peer,
        outbox: Outbox,
        from_client: Callable[[str | bytearray], None],
        limits: Limits,
        deadlines: Deadlines,
        with_seq: Callable[[bytes, int], bytes] | None,
    ) -> None:
        """Take over a connection. ``with_seq`` numbers the frames of a client that resumes."""
        self._peer = peer
        self._outbox = outbox
        self._from_client = from_client
        self._limits = limits
        self._deadlines = deadlines
        self._with_seq = with_seq
        self._scope = trio.CancelScope()
        self._first = b""
        self._urgent: list[bytes] = []
        self._unsent = b""  # the rest of a frame that is half out
        self._unsent_is_ours = False  # it is a control frame, not one of the outbox
        self._caught_up = trio.Event()
        self._last_sign = 0.0
        self._writing = False
        self._mute = False  # nothing can be written any more
        self._writes = 0
        self._pings = 0
        self._end = _End.OURS
        self._farewell = Closed(GOING_AWAY, "the server is shutting down")
        self._last_words = b""
        self._flushes = True  # nobody will come after this client
        self.resuming = with_seq is not None
        self.released = trio.Event()
        """Set when this client no longer takes frames from the outbox."""

    def dismiss(
        self, code: int, reason: str, last_words: bytes = b"", *, flush: bool = True
    ) -> None:
        """End this client: the rest of a frame that is half out, then a close frame with ``code``.

        In between go ``last_words`` (one frame, which for a client that resumes bears the number of
        the last one it has), and with ``flush`` all that waits in the outbox, as far as the
        client takes it in time.
        """
        if not self._scope.cancel_called:
            self._farewell, self._last_words = Closed(code, reason), last_words
            self._flushes = flush
            self._scope.cancel(reason=reason)

    async def run(self, oldest: bytes = b"") -> None:
        """Serve the client until it is gone or dismissed; then say farewell, within a bound.

        ``oldest`` is a frame to send before everything else.
        """
        self._first = oldest
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read, name="reader")
                    nursery.start_soon(self._write, name="writer")
                    nursery.start_soon(self._ping, name="pings")
        finally:
            with trio.move_on_after(self._deadlines.close_seconds, shield=True):
                await self._say_farewell()
            self.released.set()
            self._peer.abort()

    def _stop(self, end: _End) -> None:
        self._end = end
        self._scope.cancel(reason=end.value)

    # -- in -------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                arrived = await self._peer.receive()
                self._sign_of_life()
                for event in arrived:
                    if await self._is_last(event):
                        self._stop(_End.PEER)
                        return
        except PeerGone:
            self._stop(_End.BROKEN)

    async def _is_last(self, event: Text | Ping | Pong | Closed | HalfClosed) -> bool:
        """Take what arrived; whether the peer will send nothing more."""
        match event:
            case Text(text):
                self._from_client(text)
            case Ping(payload):
                self._urge(self._peer.pong_frame(payload))
            case Pong():
                pass
            case Closed():
                self._farewell = event
                return True
            case HalfClosed():
                if not self._mute:
                    await self._send_what_is_queued()
                self._farewell = Closed(NORMAL)
                return True
        return False

    def _sign_of_life(self) -> None:
        self._last_sign = trio.current_time()

    async def _send_what_is_queued(self) -> None:
        self._caught_up = trio.Event()
        self._outbox.poke()
        with trio.move_on_after(self._deadlines.close_seconds):
            await self._caught_up.wait()

    # -- out ------------------------------------------------------------------------------------

    def _urge(self, frame: bytes) -> None:
        """Send a control frame between two batches. A peer that asks for many gets the last few."""
        self._urgent.append(frame)
        del self._urgent[: -self._limits.control_frames]
        self._outbox.poke()

    async def _write(self) -> None:
        try:
            if self._first:
                await self._send(self._first, [])
            while True:
                if self._unsent:
                    await self._finish_frame()
                if self._urgent:
                    urgent, self._urgent = b"".join(self._urgent), []
                    await self._send(urgent, [])
                # More that is urgent may have come during a write, when nobody waited for a poke.
                if not await self._write_some() and not self._urgent:
                    self._caught_up.set()
                    await self._outbox.wait(self._write_at_once)
        except PeerGone:
            # What the peer wrote before it hung up may wait to be read; the end of it ends us.
            self._mute = True
            self._caught_up.set()
            await trio.sleep(self._deadlines.close_seconds)
            self._stop(_End.BROKEN)

    async def _write_some(self) -> bool:
        """Write the next frames of the outbox in one go; whether there were any."""
        frames = self._take()
        if not frames:
            return False
        await self._send(_joined(frames), frames)
        if not self._outbox.empty:
            await trio.lowlevel.checkpoint()  # others have their turn
        return True

    def _write_at_once(self) -> bool:
        """Write what has come while the writer waits; whether nothing is left to write.

        Called by the task that brought it. Whatever is not as usual is left to the writer.
        """
        if self._scope.cancel_called or self._urgent:
            return False
        frames = self._take()
        data = _joined(frames)
        try:
            self._peer.send_some(data)
        except PeerGone:
            return False  # the writer will find out too
        self._unsent = self._release_sent(data, frames, self._peer.sent)
        self._unsent_is_ours = False
        if self._peer.sent:
            self._writes += 1
            self._sign_of_life()
        return self._outbox.empty

    def _take(self) -> list[bytes]:
        taken = self._outbox.take(self._limits.write_bytes)
        if self._with_seq is None:
            return [numbered.frame for numbered in taken]
        return [self._with_seq(numbered.frame, numbered.seq) for numbered in taken]

    async def _finish_frame(self) -> None:
        """Write the rest of the frame that is half out, if one is."""
        rest = self._unsent
        if not rest:
            return
        self._writing = True
        try:
            await self._peer.send(rest)
        finally:
            self._unsent = rest[self._peer.sent :]
            if not (self._unsent or self._unsent_is_ours):
                self._outbox.release(1)
        self._writing = False
        self._writes += 1
        self._sign_of_life()

    async def _send(self, data: bytes, frames: list[bytes]) -> None:
        """Write, and release what has been written whole, also when it ends half way."""
        self._writing = True
        try:
            await self._peer.send(data)
        except BaseException:
            self._unsent = self._release_sent(data, frames, self._peer.sent)
            self._unsent_is_ours = not frames
            raise
        self._writing = False
        self._writes += 1
        self._outbox.release(len(frames))
        if frames:
            self._sign_of_life()

    def _release_sent(self, data: bytes, frames: list[bytes], sent: int) -> bytes:
        """Release the frames that are out; give the rest of the one that is half out."""
        if sent == len(data):
            self._outbox.release(len(frames))
            return b""
        end = 0
        for count, frame in enumerate(frames):
            if sent <= end:
                self._outbox.release(count)
                return b""
            end += len(frame)
            if sent < end:
                self._outbox.release(count)
                return data[sent:end]
        return b"" if sent == 0 else data[sent:]

    # -- signs of life --------------------------------------------------------------------------

    async def _ping(self) -> None:
        """Ping at a steady pace; drop a peer that has shown no sign of life for too long.

        Output that is taken is a sign, so a slow reader is no dead one. Our own pings are none: the
        operating system takes them for a while after the peer is gone.
        """
        self._sign_of_life()
        deadlines = self._deadlines
        next_ping = trio.current_time()
        stuck: tuple[int, int] | None = None
        while True:
            now = trio.current_time()
            if now >= next_ping:
                self._pings += 1
                self._urge(self._peer.ping_frame(self._pings.to_bytes(8, "big")))
                next_ping = now + deadlines.ping_seconds
            written = (self._writes, self._peer.sent)
            if stuck is not None and written != stuck:
                self._sign_of_life()
            stuck = written if self._writing else None
            patience = self._last_sign + deadlines.ping_patience_seconds
            if now >= patience:
                log.info("a client showed no sign of life for too long and is dropped")
                self._stop(_End.BROKEN)
                return
            look = now + deadlines.ping_seconds / _LOOKS if self._writing else next_ping
            await trio.sleep_until(min(look, next_ping, patience))

    # -- the end --------------------------------------------------------------------------------

    async def _say_farewell(self) -> None:
        """Finish the frame that is half out, say the last words, close, wait for the peer."""
        if self._end is _End.BROKEN:
            return
        try:
            await self._finish_frame()
            # A slow reader gets a part of what waits, and always whole frames and a close frame.
            with trio.move_on_after(self._deadlines.close_seconds / 2):
                while self._end is _End.OURS and self._flushes and await self._write_some():
                    pass
            await self._finish_frame()
            close = self._peer.close_frame(self._farewell.code, self._farewell.reason)
            words = self._last_words
            if words and self._with_seq is not None:
                words = self._with_seq(words, self._outbox.delivered)
            await self._peer.send(words + close)
            self.released.set()
            await self._peer.linger()
        except PeerGone:
            return


def _joined(frames: list[bytes]) -> bytes:
    return frames[0] if len(frames) == 1 else b"".join(frames)
