"""One session of a soak, from its creation to its end; what it does between is up to the deeds."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from kallichore.client import ChannelClosed
from kallichore.client.errors import RequestFailed
from kallichore.models import ActiveSession, ExecuteReply, ExecuteRequest, NewSession
from tests.listening import Ear
from tests.puppets import puppet_argv, session_of
from tests.soak.record import ALLOWED, CheckFailed
from tests.soak.world import until

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

    from kallichore.client import Channel
    from tests.soak.world import World

__all__ = ["Life"]

IPYKERNEL = [
    *(sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"),
    "--HistoryManager.enabled=False",  # its file is shared, and a locked one is said on stderr
]
START_SECONDS = 40.0
ANSWER_SECONDS = 20.0
GONE_SECONDS = 5.0
"""How long after its end a kernel's processes may be seen; the machine is busy."""


class Life:
    """A session, and what we know of it."""

    def __init__(self, world: World, session_id: str, dice: random.Random) -> None:
        """Nothing is created yet."""
        self.world = world
        self.id = session_id
        self.dice = dice
        self.record = world.record
        self.client = world.client
        self.real = False
        """Whether its kernel is an ipykernel."""
        self.alive = False
        """Whether its kernel runs, as far as we know."""
        self.pids: list[int] = []
        """Processes that have to go with the kernel."""

    async def create(
        self, *, real: bool = False, may: Collection[str] = (), **options: Any
    ) -> None:
        """Create the session; ``session`` among the options are fields of it."""
        self.real = real
        changes = options.pop("session", {})
        argv = IPYKERNEL if real else puppet_argv(**options)
        await self.ask("new", session_of(argv, self.id, **changes), may=may)

    async def ask(self, operation: str, *arguments: object, may: Collection[str] = ()) -> Any:
        """Ask the server something about this session; give the answer or a refusal."""
        client = self.client
        first: tuple[object, ...] = (self.id,)
        if arguments and isinstance(arguments[0], NewSession):
            first = ()
        calls: dict[str, Callable[..., Awaitable[object]]] = {
            "new": client.new_session,
            "get": client.get_session,
            "delete": client.delete_session,
            "start": client.start_session,
            "restart": client.restart_session,
            "kill": client.kill_session,
            "interrupt": client.interrupt_session,
            "adopt": client.adopt_session,
            "connection info": client.connection_info,
            "execute": client.execute_code,
            "history": client.get_session_history,
        }
        with trio.fail_after(START_SECONDS):
            return await self.record.ask(
                operation, partial(calls[operation], *first, *arguments), may
            )

    async def start(self, may: Collection[str] = ()) -> Any:
        """Start the kernel."""
        answer = await self.ask("start", may=may)
        self.alive = not isinstance(answer, RequestFailed)
        return answer

    async def look(self) -> ActiveSession:
        """Describe the session."""
        found: ActiveSession = await self.ask("get")
        return found

    async def pid(self) -> int:
        """Give the kernel's process."""
        pid = (await self.look()).process_id
        if pid is None:
            raise CheckFailed("a running session has no process")
        return pid

    def say(self, text: str) -> str:
        """Give the code that says something."""
        return f"print({text!r}, end='', flush=True)" if self.real else f"say({text!r})"

    async def run(self, code: str, may: Collection[str] = (), **options: Any) -> Any:
        """Run code by ``/execute``."""
        return await self.ask("execute", ExecuteRequest(code=code, **options), may=may)

    async def pulse(self) -> None:
        """See that the session is well: it runs code and shows what that says."""
        text = f"pulse {self.dice.random()}"
        with trio.fail_after(ANSWER_SECONDS):
            reply: ExecuteReply = await self.run(self.say(text))
        heard = "".join(output.text or "" for output in reply.output)
        if reply.status != "ok" or heard != text:
            raise CheckFailed(f"said {text!r}, heard {heard!r}, status {reply.status}")

    @asynccontextmanager
    async def ear(self, after: int | None = None) -> AsyncIterator[Ear]:
        """Listen to the session's channel, from now on: what had waited is read before."""
        async with self.client.open_channel(self.id, after) as channel:
            ear = Ear(channel)
            await ear.execute("pass")
            ear.heard.clear()
            yield ear

    @asynccontextmanager
    async def abrupt(self, after: int | None = None) -> AsyncIterator[Channel]:
        """Open a channel whose connection breaks at the end of the block, without a farewell."""
        with suppress(ChannelClosed):
            async with self.client.open_channel(self.id, after) as channel:
                yield channel
                await trio.aclose_forcefully(channel._connection._stream)

    async def status(self, *wanted: str, seconds: float = ANSWER_SECONDS) -> ActiveSession:
        """Wait until the session has one of these statuses."""

        async def seen() -> ActiveSession | None:
            found = await self.look()
            return found if found.status in wanted else None

        found = await until(f"{self.id!r} is one of {wanted}", seen, seconds)
        assert found is not None
        if found.status == "exited":
            self.alive = False
        return found

    async def end(self) -> None:
        """Kill the kernel if there is one, delete the session, and see that all of it goes."""
        await self.ask("kill", may=ALLOWED["kill"])

        async def deleted() -> bool:
            answer = await self.ask("delete", may=ALLOWED["delete"])
            return not isinstance(answer, RequestFailed) or answer.status == 404

        await until(f"{self.id!r} is deleted", deleted, ANSWER_SECONDS)

        async def gone() -> bool:
            return not [pid for pid in self.pids if lives(pid)]

        await until(f"the processes {self.pids} are gone", gone, GONE_SECONDS)


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return os.path.exists(f"/proc/{pid}")  # noqa: PTH110
