"""Sessions whose kernel is a puppet (`tests/kernels/puppet.py`), and ways to meet it.

A `Meeting` is where a kernel waits for the test, and the test for a kernel. Nothing polls.
"""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from kallichore.models import InterruptMode, NewSession, SessionMode, StartupEnvironment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kallichore.client import Client

__all__ = ["PUPPET", "Meeting", "open_meeting", "puppet", "session_of", "start_puppet"]

PUPPET: Final = str(Path(__file__).parent / "kernels" / "puppet.py")


def session_of(argv: list[str], session_id: str = "one", **changes: Any) -> NewSession:
    """Describe a session with a given command."""
    given: dict[str, Any] = {
        "session_id": session_id,
        "display_name": "Puppet",
        "language": "python",
        "username": "tester",
        "input_prompt": ">",
        "continuation_prompt": "+",
        "argv": argv,
        "session_mode": SessionMode.CONSOLE,
        "working_directory": "",
        "env": [],
        "interrupt_mode": InterruptMode.SIGNAL,
        "startup_environment": StartupEnvironment.NONE,
    }
    return NewSession(**(given | changes))


def puppet_argv(**options: object) -> list[str]:
    """Give the command of a puppet with these options."""
    return [sys.executable, "-E", PUPPET, "{connection_file}", json.dumps(options)]


def puppet(
    session_id: str = "one", changes: dict[str, Any] | None = None, **options: object
) -> NewSession:
    """Describe a session with a puppet; ``changes`` are fields of the session."""
    return session_of(puppet_argv(**options), session_id, **(changes or {}))


async def start_puppet(
    client: Client,
    session_id: str = "one",
    changes: dict[str, Any] | None = None,
    **options: object,
) -> dict[str, Any]:
    """Create a session with a puppet and start it; give its kernel_info."""
    await client.new_session(puppet(session_id, changes, **options))
    return await client.start_session(session_id)


class Meeting:
    """A place where a puppet calls with `meet`, and stays until it is let go."""

    def __init__(self, path: Path, listener: trio.SocketListener) -> None:
        """Hold the listener; `open_meeting` does this."""
        self.path = str(path)
        self._listener = listener
        self._line: trio.SocketStream | None = None

    async def reached(self) -> Any:
        """Wait for the next caller, and give what it says."""
        self._line = await self._listener.accept()
        said = b""
        while not said.endswith(b"\n"):
            said += await self._line.receive_some(65536)
        return json.loads(said)

    async def let_go(self, answer: str = "") -> None:
        """Answer whoever called last, and let it go on."""
        assert self._line is not None
        try:
            await self._line.send_all(answer.encode())
        finally:
            await self._line.aclose()

    async def pass_through(self) -> Any:
        """Wait for the next caller, give what it says, and let it go on."""
        said = await self.reached()
        await self.let_go()
        return said


@asynccontextmanager
async def open_meeting(directory: Path, name: str = "meeting") -> AsyncIterator[Meeting]:
    """Open a meeting place in a directory with a short path."""
    path = directory / name
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await sock.bind(str(path))
    sock.listen(16)
    async with trio.SocketListener(sock) as listener:
        meeting = Meeting(path, listener)
        try:
            yield meeting
        finally:
            if meeting._line is not None:
                await trio.aclose_forcefully(meeting._line)
            path.unlink()
