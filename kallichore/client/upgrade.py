"""The WebSocket of a channel: connects over TCP or a Unix socket, upgrades, and says farewell.

trio-websocket does the work. What it lacks is here: an answer to a server that hangs up instead of
upgrading, bounded farewells, and errors that come bare, without an exception group around them.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionRejected, wrap_client_stream

from kallichore.client.errors import ServerGone, UnexpectedAnswer
from kallichore.client.http import refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio_websocket import WebSocketConnection

    from kallichore.client.target import Target
    from kallichore.config import ClientBounds

__all__ = ["open_websocket"]

HTTP_PORT = 80


class _Stream(trio.abc.Stream):
    """A stream that calls off the upgrade when it ends: trio-websocket would wait for ever."""

    def __init__(self, stream: trio.SocketStream, upgrade: trio.CancelScope) -> None:
        self._stream, self._upgrade = stream, upgrade

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self._upgrade.cancel(reason="the connection broke")
            raise
        if not data:
            self._upgrade.cancel(reason="the server hung up")
            # trio-websocket would hold our side open until the block ends, and the server wait.
            await trio.aclose_forcefully(self._stream)
        return data

    async def aclose(self) -> None:
        self._upgrade.cancel(reason="the answer was no HTTP")
        await self._stream.aclose()


class _Reader:
    """Stands in for the nursery that trio-websocket wants for its one task, the reader.

    The reader may die, of a pong that is due after our close frame for one: wsproto refuses it.
    That must neither cancel the channel's user nor keep the farewell waiting.

    Attributes:
        failure: what it has died of.
        reading: its scope, shielded because the farewell needs it; to be cancelled after that.
        farewell: the scope for the farewell, which is pointless when the reader is dead.
    """

    def __init__(self, nursery: trio.Nursery, upgrade: trio.CancelScope) -> None:
        self.failure: Exception | None = None
        self.reading = trio.CancelScope(shield=True)
        self.farewell = trio.CancelScope(shield=True)
        self._nursery, self._upgrade = nursery, upgrade

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._run, task, name="WebSocket reader")

    # Ctrl-C is for whoever uses the channel, and would be lost in here.
    @trio.lowlevel.enable_ki_protection
    async def _run(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            with self.reading:
                await task()
        except Exception as exc:  # noqa: BLE001 - whoever uses the channel learns of it
            self.failure = exc
            self._upgrade.cancel(reason="the reader has failed")
            self.farewell.cancel(reason="the reader has failed")


@asynccontextmanager
async def open_websocket(
    target: Target, path: str, bounds: ClientBounds
) -> AsyncIterator[WebSocketConnection]:
    """Upgrade at ``path`` of the server, and close the WebSocket at the end of the block.

    The farewell waits for the peer's for `ClientBounds.close_seconds` at most, also when the block
    ends by cancellation.

    Raises:
        ServerGone: if nobody answers, the server hangs up, or is not done in time.
        RequestFailed: if it refuses.
        UnexpectedAnswer: if what answers is no WebSocket server.
    """
    raised: BaseException | None = None
    upgrade = trio.CancelScope(deadline=trio.current_time() + bounds.upgrade_seconds)
    try:
        async with trio.open_nursery() as nursery, AsyncExitStack() as closing:
            reader = _Reader(nursery, upgrade)
            closing.callback(reader.reading.cancel, reason="the channel is closed")
            try:
                with upgrade:
                    stream = await closing.enter_async_context(await _open_stream(target))
                    wrapped = _Stream(stream, upgrade)
                    connection = await _upgrade(reader, wrapped, target, path, bounds)
                if upgrade.cancelled_caught:
                    raise _explain(reader.failure, target, path)  # noqa: TRY301
                closing.push_async_callback(_say_farewell, connection, reader, bounds)
                yield connection
            except (Exception, KeyboardInterrupt, SystemExit) as exc:
                raised = exc  # without the group that the nursery will put around it
                raise
    except BaseExceptionGroup:
        if raised is None:  # cancelled, and nothing else
            raise
    if raised is not None:  # out here, so that its own cause and context stay as they are
        raise raised


async def _say_farewell(
    connection: WebSocketConnection, reader: _Reader, bounds: ClientBounds
) -> None:
    """Close the WebSocket, and wait for the peer to do so."""
    with reader.farewell:
        reader.farewell.deadline = trio.current_time() + bounds.close_seconds
        await connection.aclose()


async def _upgrade(
    reader: _Reader, stream: _Stream, target: Target, path: str, bounds: ClientBounds
) -> WebSocketConnection:
    """Return when the 101 is there."""
    url = urlsplit(target.base_url)
    headers = []
    if target.token is not None:
        headers.append((b"Authorization", b"Bearer " + target.token.encode()))
    return await wrap_client_stream(
        cast("trio.Nursery", reader),
        cast("trio.SocketStream", stream),
        url.netloc,
        url.path + path,
        extra_headers=headers,
        message_queue_size=bounds.received_frames,
        max_message_size=bounds.message_bytes,
        receive_buffer_size=bounds.receive_bytes,
    )


async def _open_stream(target: Target) -> trio.SocketStream:
    try:
        if target.socket_path is not None:
            return await trio.open_unix_socket(target.socket_path)
        url = urlsplit(target.base_url)
        return await trio.open_tcp_stream(url.hostname or "localhost", url.port or HTTP_PORT)
    except OSError as exc:
        raise ServerGone(f"No server answers at {target}.") from exc


def _explain(failure: Exception | None, target: Target, path: str) -> Exception:
    """Make our error of what the reader died of before there was a channel."""
    if failure is None:
        return ServerGone(f"The server at {target} did not open the channel.")
    if isinstance(failure, ConnectionRejected):
        return refusal(failure.status_code, failure.body or b"", path)
    return UnexpectedAnswer(f"{target} does not speak WebSocket as it should: {failure}.")
