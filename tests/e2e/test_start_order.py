"""What happens in which order when the command starts, and how it ends (CONTRACT 1.1, 1.2, 1.8)."""

from __future__ import annotations

import json
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.e2e.test_startup import COMMAND, PATIENCE, details, running, until_there

if TYPE_CHECKING:
    from collections.abc import Iterator


def ended(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command, which ends by itself."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("secret")
    return path


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("--version",), 0, ""),
        (("--port", "1", "--transport", "socket"), 1, "Error: --port "),
        (("--transport=pigeon",), 1, "Error: Invalid transport"),
        (("--bogus",), 2, "usage: kcserver"),
        (("--port=many",), 2, "usage: kcserver"),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_touched(
    tmp_path: Path, token: Path, argv: tuple[str, ...], code: int, said: str
) -> None:
    """No log file, no socket, and the token is still in its file."""
    files = ("--log-file=log", "--connection-file=c", "--token=token", "--socket-dir=sockets")
    done = ended(tmp_path, *files, *argv)
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert bool(done.stderr) == bool(code)
    assert names(tmp_path) == [token.name]


def test_logging_comes_before_the_socket(tmp_path: Path, taken: int) -> None:
    """The log file is there even if nothing else is; and it is what is complained about first."""
    done = ended(tmp_path, f"--port={taken}", "--log-file=kc.log")
    assert (done.returncode, done.stdout) == (1, "")
    assert names(tmp_path) == ["kc.log"]
    done = ended(tmp_path, f"--port={taken}", "--log-file=gone/kc.log")
    assert done.stderr == (
        f"Error: Cannot write the log file {tmp_path}/gone/kc.log: No such file or directory\n"
    )


def test_the_socket_comes_before_the_token(tmp_path: Path, token: Path, taken: int) -> None:
    """A token that could not be used is not deleted; one that is no use is found out later."""
    done = ended(tmp_path, f"--port={taken}", "--token=token")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: Cannot listen on port {taken}: ")
    assert token.read_text() == "secret"
    token.write_text("")
    done = ended(tmp_path, "--token=token")
    assert (done.returncode, done.stderr) == (1, "Error: The token file token is empty\n")
    assert done.stdout.startswith("Listening at 127.0.0.1:")
    assert "Kallichore" not in done.stdout


def test_the_token_and_the_banner_come_before_the_connection_file(
    tmp_path: Path, token: Path
) -> None:
    arguments = ("--token=token", "--connection-file=gone/kc.json", "--socket-dir=.")
    done = ended(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Cannot write the connection file ")
    first, _, rest = done.stdout.partition("\n")
    assert first.startswith("Listening on Unix socket: /")
    assert "Kallichore" in rest
    assert not token.exists()
    assert names(tmp_path) == []


async def test_the_first_connection_to_a_reported_address_is_served(tmp_path: Path) -> None:
    """Asked the moment the file is there: the backlog holds who is early."""
    path = tmp_path / "kc.json"
    async with running(tmp_path, "--connection-file=kc.json") as command:
        await until_there(path)
        content = details(path)
        stream = await trio.open_unix_socket(str(content["socket_path"]))
        async with stream:
            await stream.send_all(b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join([bytes(part) async for part in stream])
        assert await command.end() == 0
    assert answer.startswith(b"HTTP/1.1 200")
    assert str(content["server_id"]).encode() in answer
    assert Path(str(content["server_path"])).is_absolute()


async def test_a_token_that_the_handshake_carries_is_not_logged(tmp_path: Path) -> None:
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(tmp_path / "h.sock"))
    sock.listen(8)
    arguments = ("--handshake-socket=h.sock", "--connection-file=kc.json", "-l", "trace")
    async with trio.SocketListener(sock) as listener, running(tmp_path, *arguments) as command:
        async with await listener.accept() as stream:
            content = json.loads(b"".join([bytes(part) async for part in stream]))
        await until_there(tmp_path / "kc.json")
        assert content == details(tmp_path / "kc.json")
        assert content["transport"] == "socket"
        with trio.move_on_after(0):
            await listener.accept()
            pytest.fail("it connects once")
        assert await command.end() == 0
    assert content["bearer_token"] not in command.log.read_text() + command.said


async def test_an_idle_server_ends_by_itself_in_order(tmp_path: Path) -> None:
    arguments = ("-i", "0", "--set", "idle_now_seconds=0.2", "--connection-file=kc.json")
    async with running(tmp_path, *arguments) as command:
        await command.listening()
        assert await command.process.wait() == 0
    assert names(tmp_path) == ["stderr"]
    assert "idle for 0.2 seconds" in command.log.read_text()
