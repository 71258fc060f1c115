"""``POST …/execute``: code run for a caller, through the session's own queue (CONTRACT 2.3)."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from kallichore.errors import ExecutionTimeout, KallichoreError, SessionNotReady
from kallichore.kernel.run import USERNAME
from kallichore.models import Attribution, ExecutionRequested, Status
from kallichore.protocol.compose import request
from kallichore.protocol.envelope import decode_execute
from kallichore.protocol.events import ExecutionWithdrawn
from kallichore.protocol.execution import Execution, Origin
from kallichore.protocol.message import Channel
from kallichore.stamps import new_id, now, now_ms, now_text

if TYPE_CHECKING:
    from kallichore.config import Deadlines, Limits
    from kallichore.models import ExecuteReply, ExecuteRequest
    from kallichore.protocol.message import ClientMessage
    from kallichore.session import Session

__all__ = ["execute"]

log = logging.getLogger(__name__)
SOURCE = "api"
"""Where the session's client and the history see such code come from."""
_NOT_READY = frozenset({Status.UNINITIALIZED, Status.OFFLINE, Status.EXITED})


async def execute(
    session: Session, asked: ExecuteRequest, limits: Limits, deadlines: Deadlines
) -> ExecuteReply:
    """Run code and give what came of it, once both its reply and its idle are there.

    Cancelling it, or running out of time, withdraws the code if it still waits and interrupts it if
    it runs.

    Raises:
        SessionNotReady: There is no kernel that could run it, or it ended before the code did.
        ExecutionTimeout: It took longer than asked for.
    """
    until = trio.current_time() + (asked.timeout_seconds or float("inf"))
    await _wait_for_kernel(session, until, asked, deadlines)
    message = _request(session, asked)
    execution = Execution(
        message,
        decode_execute(message.content),
        Origin(now_ms(), injected=True),
        history_bytes=limits.history_text_bytes,
        output_bytes=limits.execute_output_bytes,
    )
    session.talk.announce(
        "executionRequested",
        ExecutionRequested(
            msg_id=message.msg_id,
            code=asked.code,
            requested_at=now(),
            attribution=Attribution(source=SOURCE),
        ),
    )
    over = session.talk.inject(execution)
    try:
        with trio.move_on_at(until):
            await over.wait()
    finally:
        if not over.is_set():
            _withdraw(session, execution, deadlines)
    if not over.is_set():
        raise ExecutionTimeout(asked.timeout_seconds or 0)
    if execution.reply is None and session.status in _NOT_READY:
        raise SessionNotReady(session.id, "its kernel ended before the code did")
    return execution.result()


async def _wait_for_kernel(
    session: Session, until: float, asked: ExecuteRequest, deadlines: Deadlines
) -> None:
    patience = trio.current_time() + deadlines.execute_start_seconds
    with trio.move_on_at(min(until, patience)):
        while session.status is Status.STARTING:
            await session.talk.status_changed.next()
    if session.status is Status.STARTING and until <= patience:
        raise ExecutionTimeout(asked.timeout_seconds or 0)
    if session.status in _NOT_READY or session.status is Status.STARTING:
        raise SessionNotReady(session.id, f"it is {session.status}")


def _request(session: Session, asked: ExecuteRequest) -> ClientMessage:
    content = {
        "code": asked.code,
        "silent": asked.silent,
        "store_history": asked.store_history,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": asked.stop_on_error,
    }
    return request(
        Channel.SHELL,
        "execute_request",
        content,
        msg_id=new_id(),
        session=session.id,
        username=USERNAME,
        date=now_text(),
        metadata={"attribution": {"source": SOURCE}},
    )


def _withdraw(session: Session, execution: Execution, deadlines: Deadlines) -> None:
    session.talk.forget(execution)
    session.talk.receive(ExecutionWithdrawn(execution))
    if execution.busy:
        _interrupt(session, execution)
    elif session.talk.state.queue.active is execution:
        session.start_soon(_interrupt_when_it_runs, session, execution, deadlines)


async def _interrupt_when_it_runs(
    session: Session, execution: Execution, deadlines: Deadlines
) -> None:
    """Interrupt it when the kernel says that it works on it, and again if that was too early.

    A signal overtakes the request, and a kernel that has not got that far yet ignores it.
    """
    while session.talk.state.queue.active is execution and not execution.busy:
        await session.talk.status_changed.next()
    _interrupt(session, execution)
    with trio.move_on_after(deadlines.interrupt_again_seconds):
        while session.talk.state.queue.active is execution:
            await session.talk.status_changed.next()
    _interrupt(session, execution)


def _interrupt(session: Session, execution: Execution) -> None:
    if session.talk.state.queue.active is execution:
        with suppress(KallichoreError):
            session.control.interrupt_what_runs()
