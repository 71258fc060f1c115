"""What each subcommand of `kcclient` does."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from kallichore import models
from kallichore.client import tables
from kallichore.client.client import Client
from kallichore.client.errors import ClientError, RequestFailed, StartFailed, UnusableRequest
from kallichore.client.target import Target, read_token
from kallichore.config import ClientBounds

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    Action = Callable[[Client, argparse.Namespace], Awaitable[int]]

__all__ = ["run", "session_of", "tell"]

OK: Final = 0


async def run(options: argparse.Namespace) -> int:
    """Carry out the subcommand that ``options`` name, and return the exit code.

    Raises:
        ClientError: with the sentence that says why not.
    """
    token = None if options.token is None else read_token(options.token)
    bounds = ClientBounds()
    target = Target.parse(options.connection_file or options.url, token)
    async with Client(target, bounds) as client:
        if options.command in _QUICK:
            with trio.move_on_after(bounds.answer_seconds):
                return await _QUICK[options.command](client, options)
            raise ClientError(f"No answer from {target} in {bounds.answer_seconds:g} seconds.")
        if options.command in _PATIENT:
            return await _PATIENT[options.command](client, options)
        from kallichore.client import watching  # noqa: PLC0415 - the WebSocket costs 50 ms

        return await watching.ACTIONS[options.command](client, options)


def tell(options: argparse.Namespace, value: object, text: str) -> int:
    """Print ``value`` as JSON or ``text`` for people, whichever is wanted."""
    print(msgspec.json.encode(value).decode() if options.json else text)
    return OK


async def session_of(client: Client, options: argparse.Namespace) -> str:
    """Return the session that is meant: the one named, or else the first."""
    if options.session_id is not None:
        return str(options.session_id)
    listed = await client.list_sessions()
    if not listed.sessions:
        raise ClientError("There is no session; `kcclient start` starts one.")
    return listed.sessions[0].session_id


async def _list(client: Client, options: argparse.Namespace) -> int:
    listed = await client.list_sessions()
    return tell(options, listed, tables.sessions(listed))


async def _status(client: Client, options: argparse.Namespace) -> int:
    status = await client.server_status()
    return tell(options, status, tables.server(status))


async def _configuration(client: Client, options: argparse.Namespace) -> int:
    settings = await client.get_server_configuration()
    return tell(options, settings, tables.configuration(settings))


async def _idle_timeout_hours(client: Client, options: argparse.Namespace) -> int:
    if options.hours is not None:
        change = models.ServerConfiguration(idle_shutdown_hours=options.hours)
        await client.set_server_configuration(change)
    settings = await client.get_server_configuration()
    hours = settings.idle_shutdown_hours
    text = "never" if hours is None or hours < 0 else str(hours)
    return tell(options, {"idle_shutdown_hours": hours}, text)


async def _info(client: Client, options: argparse.Namespace) -> int:
    session = await client.get_session(await session_of(client, options))
    return tell(options, session, tables.session(session))


async def _start(client: Client, options: argparse.Namespace) -> int:
    from kallichore.client.kernelspec import build_session, find_kernelspec  # noqa: PLC0415

    directory = _absolute(options.working_directory)
    try:
        session = build_session(
            find_kernelspec(options.kernelspec),
            options.session_id,
            display_name=options.display_name,
            working_directory=directory,
        )
    except UnicodeEncodeError as exc:
        raise UnusableRequest(f"{exc.object!r} is no text that JSON could carry.") from exc
    except ValueError as exc:  # it breaks a rule of the contract, which the server would say too
        raise ClientError(f"There can be no such session: {exc}.") from exc
    session_id = await client.new_session(session)
    try:
        info = await client.start_session(session_id)
    except StartFailed as exc:
        failure = _with_output(exc)
    else:
        value = {"session_id": session_id, "kernel_info": info}
        await _say_where(client, session_id, directory)
        return tell(options, value, f"Started {session_id}{_implementation(info)}.")
    with suppress(ClientError):  # the failed start is the news
        await client.delete_session(session_id)
    raise failure


def _absolute(directory: str) -> str:
    """Name our directory so that the server finds it; links stay links."""
    try:
        return os.path.abspath(directory)  # noqa: PTH100
    except OSError as exc:
        raise ClientError(f"The current directory: {exc.strerror}.") from exc


def _are_same(one: str, other: str) -> bool:
    """Whether two paths, which need not exist, are of one directory."""
    return os.path.realpath(one) == os.path.realpath(other)


async def _say_where(client: Client, session_id: str, wanted: str) -> None:
    """Say on stderr that the kernel does not run where it was to: a directory may not be there."""
    try:
        found = (await client.get_session(session_id)).working_directory
    except ClientError:  # the kernel runs, which is the news
        return
    if not _are_same(found, wanted):
        print(f"Note: the kernel runs in {found}, not in {wanted}.", file=sys.stderr)


def _implementation(info: dict[str, Any]) -> str:
    name, version = info.get("implementation"), info.get("implementation_version", "")
    return f" ({name} {version})".replace(" )", ")") if name else ""


def _with_output(exc: StartFailed) -> ClientError:
    """Put everything the server knows of a failed start into one text."""
    parts = [str(exc), exc.details or "", exc.output or ""]
    return ClientError("\n".join(part.rstrip() for part in parts if part.strip()))


async def _restart(client: Client, options: argparse.Namespace) -> int:
    session_id = await session_of(client, options)
    directory = options.working_directory and _absolute(options.working_directory)
    changes = models.RestartSession(working_directory=directory) if directory else None
    try:
        await client.restart_session(session_id, changes)
    except StartFailed as exc:
        raise _with_output(exc) from None
    if directory:
        await _say_where(client, session_id, directory)
    return tell(options, {"session_id": session_id}, f"Restarted {session_id}.")


async def _interrupt(client: Client, options: argparse.Namespace) -> int:
    session_id = await session_of(client, options)
    await client.interrupt_session(session_id)
    return tell(options, {"session_id": session_id}, f"Interrupted {session_id}.")


async def _kill(client: Client, options: argparse.Namespace) -> int:
    session_id = await session_of(client, options)
    await client.kill_session(session_id)
    return tell(options, {"session_id": session_id}, f"Killed the kernel of {session_id}.")


async def _delete(client: Client, options: argparse.Namespace) -> int:
    session_id = await session_of(client, options)
    try:
        await client.delete_session(session_id)
    except RequestFailed as exc:
        if exc.code != "KS-2":
            raise
        raise ClientError(f"{exc.message}; `kcclient kill` ends its kernel.") from None
    return tell(options, {"session_id": session_id}, f"Deleted {session_id}.")


async def _shutdown(client: Client, options: argparse.Namespace) -> int:
    await client.shutdown_server()
    return tell(options, None, "The server is shutting down.")


_QUICK: Final[dict[str, Action]] = {
    "list": _list,
    "status": _status,
    "configuration": _configuration,
    "idle-timeout-hours": _idle_timeout_hours,
    "info": _info,
    "interrupt": _interrupt,
    "kill": _kill,
    "delete": _delete,
    "shutdown": _shutdown,
}
_PATIENT: Final[dict[str, Action]] = {"start": _start, "restart": _restart}
