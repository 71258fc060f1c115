"""A ZeroMQ socket under Trio, driven as its file descriptor wants to be driven.

A ZeroMQ descriptor is edge-triggered, shared by both directions, and any call on the socket may
swallow the edge. So one task, the pump, owns the wait; it asks EVENTS before it waits, and others
who touch the socket kick it when they see that something is due.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio
import zmq

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kallichore.config import Limits
    from kallichore.traffic import Traffic

__all__ = ["ZmqSocket"]

Frames = list[bytes]
_NOBLOCK: Final = int(zmq.NOBLOCK)
_POLLIN: Final = int(zmq.POLLIN)
_POLLOUT: Final = int(zmq.POLLOUT)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS: Final = int(zmq.EVENTS)
_FEW: Final = 4
_SAMPLE: Final = 64
"""So many messages of a flood say how big they are."""
_WITH_BUFFERS: Final = 8
"""So many frames has a message with a topic and a buffer; without, the last one is the content."""


class ZmqSocket:
    """A socket whose messages go to ``handle`` in batches, and which can be sent to at any time.

    Owned by whoever made it; `close` it when the pump has ended. Not for other threads.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        limits: Limits,
        handle: Callable[[list[Frames]], None],
        traffic: Traffic | None = None,
        high_water: int = 0,
    ) -> None:
        """Take over a socket that is connected, or about to be.

        ``traffic`` says whether batches are to be small. ``high_water`` is the number of messages
        that libzmq may keep for us, if big ones are to lower it.
        """
        self._socket = socket
        self._limits = limits
        self._handle = handle
        self._fd = int(socket.getsockopt(zmq.FD))
        self._unsent: deque[Sequence[bytes]] = deque()
        self._unsent_bytes = 0
        self._sleep = trio.CancelScope()
        self._traffic = traffic
        self._room = limits.batch_messages
        self._high_water = high_water
        self._taken = 0
        self._lowered_at = 0
        self._flood_messages = 0
        self._flood_bytes = 0
        self._asleep = False
        self._closed = False
        self._asked = False
        """Nothing was there to receive when EVENTS was asked, and nobody has used it since."""

    async def run(self) -> None:
        """Receive, and send what waits, until cancelled.

        `handle` is called with one batch at a time and must not wait. Between batches other tasks
        get their turn. Cancellation loses nothing: messages leave the socket only to be handled.
        """
        while True:
            with trio.CancelScope() as self._sleep:
                await self._pump()

    async def _pump(self) -> None:
        while True:
            full = self._receive()
            self._flush()
            if full or not self._may_sleep():
                await trio.lowlevel.checkpoint()
                continue
            self._asleep = True
            try:
                await trio.lowlevel.wait_readable(self._fd)
            finally:
                self._asleep = False

    def _is_due(self) -> bool:
        """Whether there is something to do.

        Asking re-arms the descriptor, so what it answers must not be dropped.
        """
        events = int(self._socket.getsockopt(_EVENTS))
        return bool(events & _POLLIN or (self._unsent and events & _POLLOUT))

    def _may_sleep(self) -> bool:
        """Whether there is nothing to do, or the descriptor will tell.

        An answer to EVENTS holds until the next call on the socket: what comes in between makes the
        descriptor readable.
        """
        return (self._asked and not self._unsent) or not self._is_due()

    def drain(self) -> None:
        """Handle what waits now, up to one batch, from a task that is not the pump."""
        if not self._closed and self._is_due():
            self._receive()
            self._kick()

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send in order, now or when the socket takes it; False if too much waits, or is closed."""
        if self._closed:
            return False
        if self._unsent:
            return self._postpone(frames)
        try:
            self._send(frames)
        except zmq.Again:
            return self._postpone(frames)
        finally:
            self._kick()
        return True

    def close(self, linger_ms: int = 0) -> None:
        """Close, waking a pump that waits. What could not be sent is lost after ``linger_ms``."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._fd)
            self._socket.close(linger_ms)

    def _receive(self) -> bool:
        """Take a batch and handle it; whether it was full, so that there may be more."""
        batch: list[Frames] = []
        receive = self._socket.recv
        room, size = self._room, self._limits.batch_bytes
        self._asked = False
        try:
            while room and size > 0:
                # Asking each frame whether more follows costs a third less than asking the socket,
                # which is what `recv_multipart` does.
                frame = receive(_NOBLOCK, False)  # noqa: FBT003
                frames = [frame.bytes]
                append = frames.append
                while frame.more:
                    frame = receive(_NOBLOCK, False)  # noqa: FBT003
                    append(frame.bytes)
                batch.append(frames)
                room -= 1
                size -= len(frames[-1]) if len(frames) < _WITH_BUFFERS else sum(map(len, frames))
                # An attempt in vain costs twice what asking does, so the first few times we ask.
                if len(batch) < _FEW and not self._socket.getsockopt(_EVENTS) & _POLLIN:  # type: ignore[operator]
                    self._asked = True
                    break
        except zmq.Again:
            pass
        if batch:
            self._taken += len(batch)
            del frame  # it holds a second copy of what may be 50 MB
            self._handle(batch)
        if room and size > 0:
            return False
        self._adapt(len(batch), self._limits.batch_bytes - size)
        return True

    def _adapt(self, messages: int, size: int) -> None:
        """After a full batch, choose the size of the next one, and what libzmq may keep."""
        if self._traffic is not None:
            limits, shared = self._limits, self._traffic.shared
            self._room = limits.batch_messages_shared if shared else limits.batch_messages
        if self._high_water:
            self._bound_bytes(messages, size)

    def _bound_bytes(self, messages: int, size: int) -> None:
        """Have libzmq keep fewer messages if those that come in full batches are big.

        It counts messages alone. The mark may only sink, and not at any time: whoever fills the
        queue learns what we have taken each time that is a multiple of half the mark, and if the
        new mark were near what it does not know of, it would wait for us in vain, and we for it.
        """
        self._flood_messages += messages
        self._flood_bytes += size
        if self._flood_messages < _SAMPLE:
            return
        mean = self._flood_bytes // self._flood_messages or 1
        self._flood_messages = self._flood_bytes = 0
        limits, half = self._limits, (self._high_water + 1) // 2
        wanted = max(limits.iopub_bytes // mean, limits.iopub_messages_least)
        unreported = self._taken % half + 1  # libzmq takes one in advance
        if 2 * unreported >= wanted:
            # Too much is: first a mark of which a multiple of the half comes up at once.
            turns = self._taken // half + 1
            soon = 2 * -(-(self._taken + 2) // turns)
            wanted = max(wanted, soon, 2 * (unreported + turns) + 2)
        reported = self._taken // half > (self._lowered_at + 1) // half
        if wanted < self._high_water and (reported or not self._lowered_at):
            self._high_water, self._lowered_at = wanted, self._taken
            self._asked = False
            self._socket.set(zmq.RCVHWM, wanted)

    def _send(self, frames: Sequence[bytes]) -> None:
        """Send the parts as `send_multipart` does, at a third of its cost. Raises zmq.Again."""
        self._asked = False
        send, last = self._socket.send, len(frames) - 1
        for part in frames[:last]:
            send(part, _MORE)
        send(frames[last], _NOBLOCK)

    def _flush(self) -> None:
        while self._unsent and not self._closed:
            try:
                self._send(self._unsent[0])
            except zmq.Again:
                break
            self._unsent_bytes -= sum(map(len, self._unsent.popleft()))

    def _postpone(self, frames: Sequence[bytes]) -> bool:
        size = sum(map(len, frames))
        if (
            len(self._unsent) >= self._limits.client_messages_waiting
            or self._unsent_bytes + size > self._limits.client_bytes_waiting
        ):
            return False
        self._unsent.append(frames)
        self._unsent_bytes += size
        self._kick()
        return True

    def _kick(self) -> None:
        """Wake the pump if it sleeps through something that another call has noticed."""
        if self._asleep and not self._closed and not self._may_sleep():
            self._sleep.cancel(reason="the socket has something to do")
