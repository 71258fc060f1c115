"""A session's channel: messages to the kernel, and everything that comes back."""

from __future__ import annotations

import uuid
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import trio
from trio_websocket import ConnectionClosed

from kallichore.client.errors import ChannelClosed, TakenOver, UnexpectedAnswer
from kallichore.client.messages import (
    ClientDisconnected,
    Header,
    JupyterMessage,
    decode,
    encode,
    new_message,
)
from kallichore.client.paths import session_path
from kallichore.client.upgrade import open_websocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_websocket import CloseReason, WebSocketConnection

    from kallichore.client.client import Client
    from kallichore.client.messages import Received
    from kallichore.config import ClientBounds

__all__ = ["Channel", "Execution", "open_channel"]

NORMAL, GOING_AWAY, ABNORMAL = 1000, 1001, 1006


class Channel:
    """The WebSocket of one session. Made by `Client.open_channel`, which also closes it.

    One task may receive and any number may send. Pings are answered while nobody receives, as long
    as no more than `ClientBounds.received_frames` frames wait.

    Iterating over a channel gives what `receive` gives, and ends when the channel is closed in an
    orderly way.

    Attributes:
        session_id: the session at the other end.
        seq: number of the last frame received, on a channel that resumes; pass it to
            `Client.open_channel` to go on from there.
        dropped: messages that `execute` set aside and nobody took before there were too many.
    """

    def __init__(
        self, connection: WebSocketConnection, session_id: str, seq: int, bounds: ClientBounds
    ) -> None:
        """Take an open WebSocket; `Client.open_channel` does this."""
        self.session_id = session_id
        self.seq = seq
        self.dropped = 0
        self._connection = connection
        self._name = uuid.uuid4().hex
        self._aside: deque[Received] = deque(maxlen=bounds.set_aside_messages)
        self._receiving = False
        self._half_sent = False
        self._taken_over: str | None = None

    # Sending -------------------------------------------------------------------------------------

    async def send(self, message: JupyterMessage) -> None:
        """Send a message to the kernel; it waits in the session if there is no kernel yet.

        Cancelling may leave half a frame on the wire, so the channel sends no more after that.

        Raises:
            ChannelClosed: if the channel has ended.
            TypeError: if the message cannot be put into JSON.
        """
        text = encode(message)
        if self._half_sent:
            raise ChannelClosed(ABNORMAL, "An earlier message was cancelled while it was sent.")
        try:
            await self._connection.send_message(text)
        except ConnectionClosed as exc:
            raise self._ended(exc.reason) from None
        except trio.Cancelled:
            self._half_sent = True
            raise

    async def request(
        self,
        msg_type: str,
        content: dict[str, Any],
        *,
        channel: str = "shell",
        parent: Header | None = None,
        metadata: dict[str, Any] | None = None,
        buffers: list[bytes] | None = None,
    ) -> str:
        """Make a message, send it, and return its id; see `send`."""
        message = self._new(msg_type, content, channel, parent, metadata, buffers)
        await self.send(message)
        return message.header.msg_id

    async def answer_input(self, request: JupyterMessage, value: str) -> None:
        """Answer an `input_request` of the kernel; see `send`."""
        await self.request("input_reply", {"value": value}, channel="stdin", parent=request.header)

    def execute(
        self,
        code: str,
        *,
        silent: bool = False,
        store_history: bool = True,
        allow_stdin: bool = False,
        stop_on_error: bool = True,
        metadata: dict[str, Any] | None = None,
    ) -> Execution:
        """Run code: an async iterator over every message that answers it, the reply among them.

        It ends when both the reply and the kernel's idle status have come, and is sent when the
        iteration begins. Everything else that arrives meanwhile is set aside for `receive`.
        """
        content = {
            "code": code,
            "silent": silent,
            "store_history": store_history,
            "user_expressions": {},
            "allow_stdin": allow_stdin,
            "stop_on_error": stop_on_error,
        }
        return Execution(self, self._new("execute_request", content, "shell", None, metadata, None))

    def _new(
        self,
        msg_type: str,
        content: dict[str, Any],
        channel: str,
        parent: Header | None,
        metadata: dict[str, Any] | None,
        buffers: list[bytes] | None,
    ) -> JupyterMessage:
        return new_message(
            msg_type,
            content,
            channel=channel,
            session=self._name,
            parent=parent,
            metadata=metadata,
            buffers=buffers,
        )

    # Receiving -----------------------------------------------------------------------------------

    async def receive(self) -> Received:
        """Return the next message of the kernel or event of the session.

        Cancelling loses nothing.

        Raises:
            ChannelClosed: if the channel has ended; `TakenOver` if another client has it now.
            UnexpectedAnswer: if a frame is none; the next call goes on after it.
            trio.BusyResourceError: if another task is receiving.
        """
        if self._aside:
            await trio.lowlevel.checkpoint()
            if self._aside:
                return self._aside.popleft()
        return await self._receive_new()

    async def receive_answer(self, msg_id: str) -> JupyterMessage:
        """Return the next message whose parent is ``msg_id``, and set aside what comes before it.

        Raises and cancellation: as `receive`.
        """
        while True:
            received = await self._receive_new()
            if isinstance(received, JupyterMessage) and received.parent_id == msg_id:
                return received
            self.dropped += len(self._aside) == self._aside.maxlen
            self._aside.append(received)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        try:
            return await self.receive()
        except ChannelClosed as exc:
            if exc.close_code in {NORMAL, GOING_AWAY}:
                raise StopAsyncIteration from None
            raise

    async def receive_text(self) -> str | bytes:
        """Return the next frame as it came, for those who only pass it on.

        Raises and cancellation: as `receive`.
        """
        text = await self._next_text()
        with suppress(UnexpectedAnswer):  # whoever reads the text may know better
            self._take(text)
        return text

    async def _receive_new(self) -> Received:
        return self._take(await self._next_text())

    async def _next_text(self) -> str | bytes:
        if self._receiving:
            raise trio.BusyResourceError("Another task is receiving from this channel.")
        self._receiving = True
        try:
            return await self._connection.get_message()
        except ConnectionClosed as exc:
            raise self._ended(exc.reason) from None
        finally:
            self._receiving = False

    def _take(self, text: str | bytes) -> Received:
        """Decode a frame, and remember what it says of the channel itself."""
        received, seq = decode(text)
        self.seq = self.seq if seq is None else seq
        if isinstance(received, ClientDisconnected):
            self._taken_over = received.reason
        return received

    def _ended(self, close: CloseReason | None) -> ChannelClosed:
        """Say why there is no channel any more."""
        if self._taken_over is not None:
            return TakenOver(NORMAL, self._taken_over)
        code = ABNORMAL if close is None else close.code
        reason = "" if close is None else close.reason or ""
        known = {
            NORMAL: "The channel is closed.",
            GOING_AWAY: "The server has shut down.",
            ABNORMAL: "The connection to the server broke.",
        }
        sentence = known.get(code, f"The channel was closed with code {code}.")
        return ChannelClosed(code, f"{sentence} {reason}".rstrip())


class Execution:
    """Code that runs: an async iterator over the messages that answer it.

    Leaving the iteration early does not stop the code; `Client.interrupt_session` does.

    Attributes:
        msg_id: id of the `execute_request`.
        reply: the `execute_reply`, once it has come.
    """

    def __init__(self, channel: Channel, request: JupyterMessage) -> None:
        """Prepare the request; `Channel.execute` does this."""
        self.msg_id = request.header.msg_id
        self.reply: JupyterMessage | None = None
        self._channel = channel
        self._request: JupyterMessage | None = request
        self._idle = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JupyterMessage:
        if self._request is not None:
            request, self._request = self._request, None
            await self._channel.send(request)
        if self._idle and self.reply is not None:
            raise StopAsyncIteration
        message = await self._channel.receive_answer(self.msg_id)
        if message.type == "execute_reply":
            self.reply = message
        elif message.type == "status" and message.content.get("execution_state") == "idle":
            self._idle = True
        return message


@asynccontextmanager
async def open_channel(
    client: Client, session_id: str, after: int | None, bounds: ClientBounds
) -> AsyncIterator[Channel]:
    """Connect to a session's channel; see `Client.open_channel`."""
    target = client.target
    if target.socket_path is not None:
        target = replace(target, socket_path=await client.channels_upgrade(session_id))
    query = "" if after is None else f"?after={after}"
    path = session_path(session_id, "channels") + query
    async with open_websocket(target, path, bounds) as connection:
        yield Channel(connection, session_id, after or 0, bounds)
