"""How a session looks from outside: the `ActiveSession` of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import trio

from kallichore.models import ActiveSession, ExecutionQueue, Status
from kallichore.protocol.envelope import request_json

if TYPE_CHECKING:
    from kallichore.session import Session

__all__ = ["describe"]

_RECENT: Final = 3
"""History entries shown in a session's description."""


class _Positron(msgspec.Struct):
    input_prompt: str | None = None
    continuation_prompt: str | None = None


class _Language(msgspec.Struct):
    positron: _Positron | None = None


class _KernelInfo(msgspec.Struct):
    language_info: _Language | None = None


def describe(session: Session) -> ActiveSession:
    """Describe a session as it is now."""
    control, talk = session.control, session.talk
    spec = control.spec
    queue = talk.state.queue
    prompts = _prompts(talk.kernel_info)
    seconds = int(trio.current_time() - talk.status_since)
    busy = session.status is Status.BUSY
    socket = session.socket_path if session.connected else None
    env = control.initial_env
    return ActiveSession(
        session_id=session.id,
        argv=spec.argv,
        process_id=control.process_id,
        username=spec.username,
        display_name=spec.display_name,
        language=spec.language,
        interrupt_mode=spec.interrupt_mode,
        initial_env=None if env is None else {_readable(n): _readable(env[n]) for n in env},
        connected=session.connected,
        started=session.created,
        session_mode=spec.session_mode,
        working_directory=_readable(control.working_directory),
        notebook_uri=spec.notebook_uri,
        input_prompt=prompts.input_prompt or spec.input_prompt,
        continuation_prompt=prompts.continuation_prompt or spec.continuation_prompt,
        execution_queue=ExecutionQueue(
            active=msgspec.UNSET
            if queue.active is None
            else msgspec.Raw(request_json(queue.active.message)),
            length=len(queue.held),
            pending=[msgspec.Raw(request_json(held.message)) for held in queue.held],
        ),
        status=session.status,
        kernel_info=msgspec.Raw(talk.kernel_info),
        resource_usage=control.resource_usage,
        idle_seconds=0 if busy else seconds,
        busy_seconds=seconds if busy else 0,
        socket_path=None if socket is None else str(socket),
        history=list(talk.history)[-_RECENT:],
        last_exit=control.last_exit,
    )


def _readable(text: str) -> str:
    """Text of the operating system as JSON can carry it: what is no UTF-8 in it is replaced."""
    return (
        text if text.isascii() else text.encode("utf-8", "surrogateescape").decode(errors="replace")
    )


def _prompts(kernel_info: bytes) -> _Positron:
    try:
        info = msgspec.json.decode(kernel_info, type=_KernelInfo)
    except (ValueError, RecursionError):
        return _Positron()
    return (info.language_info or _Language()).positron or _Positron()
