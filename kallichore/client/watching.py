"""The subcommands of `kcclient` that use a session's channel: ``execute`` and ``listen``."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from kallichore import models
from kallichore.client.actions import session_of
from kallichore.client.errors import ChannelClosed, ClientError, TakenOver
from kallichore.client.messages import Header, JupyterMessage
from kallichore.client.screen import Screen

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

    from kallichore.client.actions import Action
    from kallichore.client.channel import Channel
    from kallichore.client.client import Client

__all__ = ["ACTIONS"]

OK, RAISED = 0, 1
NORMAL, GOING_AWAY = 1000, 1001
_NO_KERNEL: Final = {models.Status.UNINITIALIZED, models.Status.EXITED}


async def _execute(client: Client, options: argparse.Namespace) -> int:
    """Run code, show its output, and return 1 if it raised.

    Usually through ``/execute``, which shows the output when the code has ended and takes nothing
    from the session's clients; with ``--watch`` over the channel, unless another client has it.
    """
    code = sys.stdin.read() if options.code == "-" else options.code
    session_id = await session_of(client, options)
    session = await client.get_session(session_id)
    if session.status in _NO_KERNEL:
        raise ClientError(
            f"Session {session_id} has no kernel running; `kcclient restart` starts one."
        )
    if options.watch and (options.take or not session.connected):
        async with client.open_channel(session_id) as channel:
            return await _watch(client, channel, code, options)
    if options.watch:
        print("[another client is connected; the output is shown at the end]", file=sys.stderr)
    reply = await client.execute_code(session_id, models.ExecuteRequest(code=code))
    return _show_reply(reply, options)


async def _listen(client: Client, options: argparse.Namespace) -> int:
    """Show everything that the session's kernel sends, until the session or the server ends."""
    session_id = await session_of(client, options)
    session = await client.get_session(session_id)
    if session.connected and not options.take:
        raise ClientError(
            f"Another client is connected to session {session_id}; --take takes its channel."
        )
    screen = Screen(as_json=options.json)
    async with client.open_channel(session_id, options.after) as channel:
        try:
            await _show_all(channel, screen, as_json=options.json)
        except TakenOver:
            raise
        except ChannelClosed as exc:
            if exc.close_code not in {NORMAL, GOING_AWAY}:
                raise
    return OK


async def _show_all(channel: Channel, screen: Screen, *, as_json: bool) -> None:
    while as_json:
        text = await channel.receive_text()
        print(text if isinstance(text, str) else text.decode(), flush=True)
    while True:
        received = await channel.receive()
        if isinstance(received, JupyterMessage):
            screen.show(received)
        else:
            screen.show_event(received)


async def _watch(client: Client, channel: Channel, code: str, options: argparse.Namespace) -> int:
    """Show what the code does. The first Ctrl-C interrupts it, the second leaves."""
    screen = Screen(as_json=options.json)
    execution = channel.execute(code)
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_interrupt, client, channel.session_id, signals)
            async for message in execution:
                screen.show(message)
            nursery.cancel_scope.cancel(reason="the code has ended")
    reply = execution.reply
    return OK if reply is not None and reply.content.get("status") == "ok" else RAISED


async def _interrupt(client: Client, session_id: str, signals: AsyncIterator[int]) -> None:
    """Interrupt the kernel at the first signal; the second one is a `KeyboardInterrupt`."""
    await anext(signals)
    sys.stderr.write("[interrupting; Ctrl-C again leaves]\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.interrupt_session, session_id)
        await anext(signals)
        raise KeyboardInterrupt


def _show_reply(reply: models.ExecuteReply, options: argparse.Namespace) -> int:
    """Show the outputs of ``/execute`` as though they arrived now."""
    ended = OK if reply.status is models.ExecuteStatus.OK else RAISED
    if options.json:
        print(msgspec.json.encode(reply).decode())
        return ended
    screen = Screen(as_json=False)
    for output in reply.output:
        screen.show(_as_message(output))
    if reply.data:
        screen.show(_message("execute_result", {"data": reply.data}))
    if reply.error_name and all(output.error_name is None for output in reply.output):
        screen.show(
            _message(
                "error",
                {
                    "ename": reply.error_name,
                    "evalue": reply.error_message,
                    "traceback": reply.error_traceback,
                },
            )
        )
    return ended


def _as_message(output: models.ExecuteOutput) -> JupyterMessage:
    return _message(
        str(output.type),
        {
            "name": output.stream_name,
            "text": output.text or "",
            "data": output.data or {},
            "ename": output.error_name,
            "evalue": output.error_message,
            "traceback": output.error_traceback,
        },
    )


def _message(msg_type: str, content: dict[str, object]) -> JupyterMessage:
    return JupyterMessage(header=Header(msg_type=msg_type), channel="iopub", content=content)


ACTIONS: Final[dict[str, Action]] = {"execute": _execute, "listen": _listen}
