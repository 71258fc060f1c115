"""The server command as a process: how it starts, what it says, what it leaves (CONTRACT 1)."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import trio

from kallichore.client import (
    Client,
    Kernelspec,
    RequestFailed,
    Target,
    TokenRefused,
    build_session,
    open_client,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COMMAND = (sys.executable, "-m", "kallichore")
PATIENCE = 20
TCP_KEYS = "port base_path transport server_path server_pid bearer_token log_path server_id"
SOCKET_KEYS = "socket_path transport server_path server_pid bearer_token log_path server_id"


class Command:
    """A server that runs, and what it has said on stdout."""

    def __init__(self, process: trio.Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.said = ""

    async def listening(self) -> str:
        """The line that says where it listens, which is the first."""
        assert self.process.stdout is not None
        while "\n" not in self.said:
            data = await self.process.stdout.receive_some()
            assert data, self.log.read_text()
            self.said += data.decode()
        return self.said.splitlines()[0]

    async def port(self) -> int:
        found = re.fullmatch(r"Listening at 127\.0\.0\.1:(\d+)", await self.listening())
        assert found
        return int(found[1])

    async def socket(self) -> Path:
        found = re.fullmatch(r"Listening on Unix socket: (/.+)", await self.listening())
        assert found
        return Path(found[1])

    async def banner(self) -> str:
        """All of stdout up to the banner, after which the token has been resolved."""
        await self.listening()
        assert self.process.stdout is not None
        while "Kallichore" not in self.said or not self.said.endswith("\n"):
            self.said += (await self.process.stdout.receive_some()).decode()
        return self.said

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and give the exit code."""
        self.process.send_signal(number)
        return await self.process.wait()


@asynccontextmanager
async def running(directory: Path, *arguments: str, **environ: str) -> AsyncIterator[Command]:
    """Run the server in a directory; it is killed if it has not ended by itself."""
    log = directory / "stderr"
    env = {**os.environ, "XDG_RUNTIME_DIR": str(directory), **environ}
    with trio.fail_after(PATIENCE), log.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=directory,
            env=env,
        )
        try:
            yield Command(process, log)
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.terminate()
                await process.wait()


def refusal(directory: Path, *arguments: str) -> str:
    """What a server that cannot start says; it is one sentence, and nothing of it is left."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"Error: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


def details(path: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads(path.read_bytes())
    return content


async def until_there(path: Path) -> None:
    """Wait for a file, for tests of a file that others wait for too."""
    while not path.exists():  # noqa: ASYNC110 (a file sets no event)
        await trio.lowlevel.checkpoint()


def test_the_command_is_light_until_the_guardian_has_forked() -> None:
    script = "import sys, kallichore.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    heavy = {"trio", "zmq", "msgspec", "quart", "hypercorn", "logging", "subprocess"}
    assert heavy & set(done.stdout.split()) == set()


async def test_over_tcp_the_first_line_names_the_port(tmp_path: Path) -> None:
    async with running(tmp_path, "--token", "none") as command:
        port = await command.port()
        async with open_client(f"http://127.0.0.1:{port}") as client:
            assert (await client.server_status()).sessions == 0
        assert await command.end() == 0


async def test_a_port_can_be_chosen(tmp_path: Path) -> None:
    async with running(tmp_path) as command:
        port = await command.port()
    async with running(tmp_path, "-p", str(port)) as command:
        assert await command.port() == port


async def test_the_process_that_listens_is_called_kcserver(tmp_path: Path) -> None:
    async with running(tmp_path) as command:
        async with open_client(f"http://127.0.0.1:{await command.port()}") as client:
            pid = (await client.server_status()).process_id
        assert psutil.Process(pid).name() == "kcserver"
        assert psutil.Process(command.process.pid).name() == "kc-guardian"


async def test_the_server_listens_on_loopback_only(tmp_path: Path) -> None:
    async with running(tmp_path) as command:
        port = await command.port()
        async with open_client(f"http://127.0.0.1:{port}") as client:
            pid = (await client.server_status()).process_id
        listening = [
            (found.laddr.ip, found.laddr.port)
            for found in psutil.Process(pid).net_connections("inet")
            if found.status == psutil.CONN_LISTEN
        ]
        assert listening == [("127.0.0.1", port)]


async def test_over_a_unix_socket_the_first_line_names_the_path(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "kc.sock"
    async with running(tmp_path, "--unix-socket", str(path), "-t", "none") as command:
        assert await command.socket() == path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with open_client(f"unix:{path}") as client:
            assert (await client.list_sessions()).total == 0
        assert await command.end() == 0
        assert not path.exists()


async def test_a_socket_without_a_path_goes_where_it_should(tmp_path: Path) -> None:
    async with running(tmp_path, "--transport=socket") as command:
        path = await command.socket()
        assert path.parent == tmp_path
        assert re.fullmatch(r"kc-\d+\.sock", path.name)
    given = tmp_path / "given"
    async with running(tmp_path, "--transport=socket", f"--socket-dir={given}") as command:
        assert (await command.socket()).parent == given


async def test_the_connection_file_is_ours_alone_and_gone_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "kc.json"
    async with running(tmp_path, "--connection-file", "kc.json", "--log-file", "kc.log") as command:
        await until_there(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        content = details(path)
        assert list(content) == SOCKET_KEYS.split()
        assert content["socket_path"] == str(await command.socket())
        assert content["log_path"] == str(tmp_path / "kc.log")
        assert re.fullmatch(r"[0-9a-f]{32,}", str(content["bearer_token"]))
        async with Client.from_connection_file(path) as client:
            status = await client.server_status()
            assert (await client.list_sessions()).total == 0
        assert (content["server_pid"], content["server_id"]) == (
            status.process_id,
            str(status.server_id),
        )
        assert await command.end() == 0
    assert {found.name for found in tmp_path.iterdir()} == {"stderr", "kc.log"}


async def test_the_connection_file_over_tcp_has_its_own_keys(tmp_path: Path) -> None:
    path = tmp_path / "kc.json"
    async with running(
        tmp_path, "--connection-file=kc.json", "--transport=tcp", "-t=none"
    ) as command:
        await until_there(path)
        content = details(path)
        assert list(content) == TCP_KEYS.split()
        assert content["base_path"] == f"http://127.0.0.1:{await command.port()}"
        assert content["bearer_token"] is None
        assert content["log_path"] is None


async def test_a_connection_file_that_cannot_be_written_is_a_refusal(tmp_path: Path) -> None:
    said = refusal(tmp_path, "--connection-file", "missing/kc.json", "--socket-dir", str(tmp_path))
    assert "missing/kc.json" in said
    assert list(tmp_path.iterdir()) == []


async def test_a_token_file_is_read_and_deleted(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("  open-sesame\n")
    async with running(tmp_path, "--token", str(file)) as command:
        url = f"http://127.0.0.1:{await command.port()}"
        await command.banner()
        assert not file.exists()
        async with open_client(url, "open-sesame") as client:
            assert (await client.list_sessions()).total == 0
        async with open_client(url, "open-sesam") as client:
            with pytest.raises(TokenRefused):
                await client.list_sessions()
        assert await command.end() == 0
    assert "open-sesame" not in command.log.read_text() + command.said


@pytest.mark.parametrize(
    ("content", "word"),
    [(b" \n", "empty"), (b"x" * 65, "64"), (b"\xff\xfe", "read"), (None, "read")],
)
async def test_a_token_file_that_is_no_use_is_a_refusal(
    tmp_path: Path, content: bytes | None, word: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    assert word in refusal(tmp_path, "--token", str(file))


async def test_a_random_token_is_logged_only_if_nothing_else_carries_it(tmp_path: Path) -> None:
    async with running(tmp_path) as command:
        url = f"http://127.0.0.1:{await command.port()}"
        await command.banner()
        found = re.search(r"\b[0-9a-f]{32,}\b", command.log.read_text())
        assert found
        async with open_client(url, found[0]) as client:
            assert (await client.list_sessions()).total == 0
    async with running(tmp_path, "--connection-file", "kc.json", "-l", "trace") as command:
        await until_there(tmp_path / "kc.json")
        token = str(details(tmp_path / "kc.json")["bearer_token"])
        assert await command.end() == 0
    assert token not in command.log.read_text() + command.said


async def test_the_handshake_is_one_line_and_a_farewell(tmp_path: Path) -> None:
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(tmp_path / "h.sock"))
    sock.listen(1)
    async with (
        trio.SocketListener(sock) as listener,
        running(tmp_path, "--handshake-socket", "h.sock") as command,
    ):
        async with await listener.accept() as stream:
            received = b"".join([chunk async for chunk in stream])
        content = json.loads(received)
        assert received.endswith(b"}\n")
        assert received.count(b"\n") == 1
        assert list(content) == TCP_KEYS.split()
        target = Target(base_url=content["base_path"], token=content["bearer_token"])
        async with Client(target) as client:
            assert (await client.list_sessions()).total == 0
        assert await command.end() == 0


async def test_a_handshake_with_nobody_is_a_refusal(tmp_path: Path) -> None:
    assert "h.sock" in refusal(tmp_path, "--handshake-socket", "h.sock")


async def test_a_log_file_that_cannot_be_written_is_a_refusal(tmp_path: Path) -> None:
    assert "missing/kc.log" in refusal(tmp_path, "--log-file", "missing/kc.log")


async def test_the_log_can_be_json(tmp_path: Path) -> None:
    arguments = ("--log-file", "kc.log", "--log-format", "json", "-l", "debug")
    async with running(tmp_path, *arguments) as command:
        await command.listening()
        assert await command.end() == 0
    lines = (tmp_path / "kc.log").read_text().splitlines()
    assert lines
    assert all({"time", "level", "logger", "message"} <= set(json.loads(line)) for line in lines)


async def test_a_port_in_use_is_a_refusal(tmp_path: Path) -> None:
    async with running(tmp_path) as command:
        port = await command.port()
        assert str(port) in refusal(tmp_path, "--port", str(port))


async def test_a_socket_in_use_is_a_refusal_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "kc.sock"
    async with running(tmp_path, "--unix-socket", "kc.sock") as command:
        await command.socket()
        assert "kc.sock" in refusal(tmp_path, "--unix-socket", "kc.sock")
        assert path.exists()
    stale = trio.socket.socket(trio.socket.AF_UNIX)
    await stale.bind(str(path))
    stale.close()
    async with running(tmp_path, "--unix-socket", "kc.sock") as command:
        await command.socket()


async def test_a_file_in_the_place_of_the_socket_stays_and_is_a_refusal(tmp_path: Path) -> None:
    path = tmp_path / "kc.sock"
    path.write_text("precious")
    assert "kc.sock" in refusal(tmp_path, "--unix-socket", "kc.sock")
    assert path.read_text() == "precious"


async def test_a_path_too_long_for_a_socket_is_a_refusal(tmp_path: Path) -> None:
    assert "104" in refusal(tmp_path, "--unix-socket", "x" * 105)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_is_an_orderly_shutdown(tmp_path: Path, number: int) -> None:
    async with running(tmp_path) as command:
        await command.listening()
        assert await command.end(number) == 0


async def test_a_request_is_an_orderly_shutdown(tmp_path: Path) -> None:
    async with running(tmp_path, "-t", "none") as command:
        async with open_client(f"http://127.0.0.1:{await command.port()}") as client:
            await client.shutdown_server()
        assert await command.process.wait() == 0


async def test_one_session_too_many_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, "-t", "none", "--max-sessions", "1") as command:
        url = f"http://127.0.0.1:{await command.port()}"
        spec = Kernelspec(argv=[sys.executable])
        async with open_client(url) as client:
            await client.new_session(build_session(spec, "one"))
            with pytest.raises(RequestFailed) as refused:
                await client.new_session(build_session(spec, "two"))
            assert refused.value.code == "too_many_sessions"
            await client.delete_session("one")
            await client.new_session(build_session(spec, "two"))
