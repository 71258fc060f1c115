"""Ctrl-C, and sudden deaths of server, guardian and kernel: afterwards nothing is left."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from kallichore.client import ChannelClosed, LaunchedServer, open_server
from kallichore.models import ExecuteRequest
from tests.listening import Ear, upgraded, words
from tests.puppets import open_meeting, start_puppet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 30
TRANSPORTS = pytest.mark.parametrize("transport", ["tcp", "socket"])
SPAWN = "import json; say(json.dumps([spawn(kind) for kind in ('plain', 'setsid', 'double')]))"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


@dataclass
class Victim:
    """A server process, everything it may leave, and a client of it."""

    server: LaunchedServer
    directory: Path
    """Its temporary directory, which is empty before and after."""
    pids: list[int]

    async def kernel(self, session_id: str = "one", **options: Any) -> int:
        """Start a puppet, and note its processes."""
        client = self.server.client
        await start_puppet(client, session_id, **options)
        reply = await client.execute_code(session_id, ExecuteRequest(code=SPAWN))
        self.pids += json.loads(reply.output[0].text or "")
        pid = (await client.get_session(session_id)).process_id
        assert pid is not None
        self.pids.append(pid)
        return pid

    async def nothing_is_left(self) -> None:
        """Wait until all of it is gone."""
        for pid in (*self.pids, self.server.details.server_pid):
            await gone(pid)
        await self.server.process.wait()
        assert sorted(self.directory.iterdir()) == []
        socket = self.server.details.socket_path
        assert socket is None or not Path(socket).exists()
        assert not self.server.connection_file.exists()


async def gone(pid: int) -> None:
    """Wait until a process that is no child of ours has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


@asynccontextmanager
async def open_victim(directory: Path, *arguments: str) -> AsyncIterator[Victim]:
    directory = directory / "tmp"
    directory.mkdir()
    environment = {**os.environ, "TMPDIR": str(directory)}
    with trio.fail_after(PATIENCE):
        async with open_server(*arguments, env=environment) as server:
            yield Victim(server, directory, [])


@TRANSPORTS
async def test_ctrl_c_once_asks_the_kernels_and_exits_with_zero(
    tmp_path: Path, transport: str
) -> None:
    async with (
        open_victim(tmp_path, "--transport", transport) as victim,
        open_meeting(tmp_path) as meeting,
    ):
        asked = f"signal.signal(signal.SIGUSR2, lambda *_: (meet({meeting.path!r}), kernel.end()))"
        await victim.kernel(ready=asked)
        async with victim.server.client.open_channel("one") as channel:
            victim.server.process.send_signal(signal.SIGINT)
            await meeting.reached()
            await meeting.let_go()
            ear = Ear(channel)
            frames = await ear.until("exited=0")
            assert words(frames)[-2:] == ["status=exited", "exited=0"]
            with pytest.raises(ChannelClosed) as caught:
                await ear.next()
        assert caught.value.close_code == 1001
        assert await victim.server.process.wait() == 0
        with trio.fail_after(2):
            await victim.nothing_is_left()


async def test_ctrl_c_twice_does_not_wait_for_the_kernels(tmp_path: Path) -> None:
    told_apart = ("--set", "same_signal_seconds=0.000001")
    async with open_victim(tmp_path, *told_apart) as victim, open_meeting(tmp_path) as meeting:
        asked = f"signal.signal(signal.SIGUSR2, lambda *_: meet({meeting.path!r}))"
        await victim.kernel(ready=f"{STUBBORN}; {asked}")
        victim.server.process.send_signal(signal.SIGINT)
        await meeting.reached()
        victim.server.process.send_signal(signal.SIGINT)
        with trio.fail_after(2):
            assert await victim.server.process.wait() == 0
            await victim.nothing_is_left()


async def test_a_shutdown_of_kernels_that_do_not_obey_is_bounded(tmp_path: Path) -> None:
    quick = ("--set", "kernel_shutdown_seconds=0.3", "--set", "term_seconds=0.3")
    async with open_victim(tmp_path, *quick) as victim:
        await victim.kernel("one", polite=False, ready=STUBBORN)
        await victim.kernel("two", polite=False)
        frozen = await victim.kernel("three")
        os.kill(frozen, signal.SIGSTOP)
        with trio.fail_after(3):
            await victim.server.client.shutdown_server()
            assert await victim.server.process.wait() == 0
            await victim.nothing_is_left()


BEGINNINGS = (
    b"GET /sta",
    b"PUT /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
    b"PUT /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n" + bytes(50_000),
    b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n" * 200,
    b"",
)
"""What those have sent so far who sit on a connection."""


async def test_a_shutdown_is_bounded_whoever_is_connected(tmp_path: Path) -> None:
    """Clients that never read, that fight, with half a head or body, many requests or none."""
    async with open_victim(tmp_path) as victim, AsyncExitStack() as stack:
        client = victim.server.client
        await victim.kernel()
        await stack.enter_async_context(await upgraded(client))
        code = "for n in range(3000): say(f'{n:0500}')"
        await client.execute_code("one", ExecuteRequest(code=code))
        for beginning in BEGINNINGS * 4:
            stream = await trio.open_unix_socket(str(victim.server.details.socket_path))
            await stack.enter_async_context(stream)
            await stream.send_all(beginning)
        for _ in range(10):
            await stack.enter_async_context(await upgraded(client))
        with trio.fail_after(5):
            await client.shutdown_server()
            assert await victim.server.process.wait() == 0
            await victim.nothing_is_left()


async def test_an_empty_server_exits_at_once(tmp_path: Path) -> None:
    async with open_victim(tmp_path) as victim:
        with trio.fail_after(1):
            victim.server.process.send_signal(signal.SIGTERM)
            assert await victim.server.process.wait() == 0
            await victim.nothing_is_left()


@TRANSPORTS
async def test_nothing_survives_a_server_that_is_killed(tmp_path: Path, transport: str) -> None:
    async with open_victim(tmp_path, "--transport", transport) as victim:
        await victim.kernel("one", ready=STUBBORN)
        await victim.kernel("two")
        async with victim.server.client.open_channel("one") as channel:
            os.kill(victim.server.details.server_pid, signal.SIGKILL)
            with trio.fail_after(2):
                await victim.nothing_is_left()
            with pytest.raises(ChannelClosed):
                await Ear(channel).until("exited")
        assert victim.server.process.returncode == -signal.SIGKILL


async def test_no_socket_of_a_session_survives_a_server_that_is_killed(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="kc-") as short:  # a socket's path has to be
        directory = Path(short)
        arguments = ("--transport", "socket", "--socket-dir", short)
        async with open_victim(tmp_path, *arguments) as victim:
            await victim.kernel("one")
            socket = Path(await victim.server.client.channels_upgrade("one"))
            assert socket.parent == directory
            os.kill(victim.server.details.server_pid, signal.SIGKILL)
            with trio.fail_after(2):
                await victim.nothing_is_left()
            assert list(directory.iterdir()) == []


async def test_nothing_survives_a_guardian_that_is_killed(tmp_path: Path) -> None:
    async with open_victim(tmp_path) as victim:
        await victim.kernel("one", polite=False, ready=STUBBORN)
        await victim.kernel("two")
        assert victim.server.process.pid != victim.server.details.server_pid
        os.kill(victim.server.process.pid, signal.SIGKILL)
        with trio.fail_after(2):
            await victim.nothing_is_left()


async def test_a_kernel_that_is_killed_takes_its_processes_with_it(tmp_path: Path) -> None:
    async with open_victim(tmp_path) as victim:
        kernel = await victim.kernel()
        async with victim.server.client.open_channel("one") as channel:
            os.kill(kernel, signal.SIGKILL)
            with trio.fail_after(2):
                await Ear(channel).until("exited=-1")
                for pid in victim.pids:
                    await gone(pid)
        assert (await victim.server.client.server_status()).active == 0


async def test_a_server_that_is_frozen_for_a_while_goes_on(tmp_path: Path) -> None:
    """Its kernels publish meanwhile; nothing of it is lost."""
    async with open_victim(tmp_path) as victim:
        client = victim.server.client
        await victim.kernel()
        async with client.open_channel("one") as channel, open_meeting(tmp_path) as meeting:
            ear = Ear(channel)
            await ear.send(
                f"meet({meeting.path!r})\nfor n in range(500): say(str(n))\nmeet({meeting.path!r})"
            )
            await meeting.reached()
            os.kill(victim.server.details.server_pid, signal.SIGSTOP)
            await meeting.let_go()
            await meeting.reached()
            os.kill(victim.server.details.server_pid, signal.SIGCONT)
            await meeting.let_go()
            frames = await ear.until("iopub:stream")
            while frames[-1]["content"]["text"] != "499":
                frames += await ear.until("iopub:stream")
        texts = [one["content"]["text"] for one in frames if words([one]) == ["iopub:stream"]]
        assert texts[-500:] == [str(number) for number in range(500)]
