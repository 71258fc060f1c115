"""`kcclient` against the real server: a whole working day, one command at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from kallichore.client import open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kallichore.client import LaunchedServer

PATIENCE = 90
COMMAND = [sys.executable, "-m", "kallichore.client.command"]


@pytest.fixture
async def server() -> AsyncIterator[LaunchedServer]:
    with trio.fail_after(PATIENCE):
        async with open_server() as opened:
            yield opened


async def kcclient(server: LaunchedServer, *arguments: str) -> tuple[int, str, str]:
    done = await trio.run_process(
        [*COMMAND, *arguments],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=os.environ | {"KALLICHORE_CONNECTION_FILE": str(server.connection_file)},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_a_session_is_started_used_and_deleted(server: LaunchedServer) -> None:
    code, out, err = await kcclient(server, "start", "-k", "python3", "-s", "day")
    assert (code, err) == (0, "")
    assert out.startswith("Started day (ipython ")

    source = "import sys\nprint('out'); print('err', file=sys.stderr)\n6 * 7"
    code, out, err = await kcclient(server, "execute", "-c", source, "-w")
    assert (code, out, err) == (0, "out\n42\n", "err\n")

    code, out, err = await kcclient(server, "execute", "-c", "1 / 0", "-w")
    assert (code, out) == (1, "")
    assert err.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "\x1b" not in err

    code, out, _ = await kcclient(server, "list", "--json")
    (session,) = json.loads(out)["sessions"]
    assert (session["session_id"], session["connected"]) == ("day", False)

    assert (await kcclient(server, "restart"))[0] == 0
    code, out, _ = await kcclient(server, "execute", "-c", "print('again')", "-w")
    assert (code, out) == (0, "again\n")

    code, _, err = await kcclient(server, "delete")
    assert (code, "kcclient kill" in err) == (1, True)
    assert (await kcclient(server, "kill"))[:2] == (0, "Killed the kernel of day.\n")


async def test_what_execute_has_shown_is_still_there_for_listen(server: LaunchedServer) -> None:
    await kcclient(server, "start", "-s", "one")
    done = await kcclient(server, "execute", "-c", "print('kept')")
    assert done == (0, "kept\n", "")
    process = await trio.lowlevel.open_process(
        [*COMMAND, "--connection-file", str(server.connection_file), "listen"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdout, process.stderr:
        heard = b""
        while b"kept\n" not in heard:
            heard += await process.stdout.receive_some()
        process.send_signal(signal.SIGINT)
        said = b"".join([bytes(chunk) async for chunk in process.stderr])
        assert b"Error" not in said
        assert await process.wait() == 130


async def test_ctrl_c_interrupts_the_kernel_and_not_only_us(server: LaunchedServer) -> None:
    await kcclient(server, "start", "-s", "one")
    process = await trio.lowlevel.open_process(
        [
            *COMMAND,
            *("--connection-file", str(server.connection_file)),
            *("execute", "-w", "-c", "print('go')\nwhile True: pass"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdout, process.stderr:
        assert await process.stdout.receive_some() == b"go\n"
        process.send_signal(signal.SIGINT)
        said = b"".join([bytes(chunk) async for chunk in process.stderr])
        assert b"KeyboardInterrupt" in said
        assert await process.wait() == 1
    assert (await kcclient(server, "execute", "-w", "-c", "print('alive')"))[1] == "alive\n"


async def test_a_kernel_that_does_not_start_is_shown_with_its_words(
    server: LaunchedServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("spec")
    argv = [sys.executable, "-c", "raise SystemExit('no such luck')", "{connection_file}"]
    (home / "kernel.json").write_text(json.dumps({"argv": argv, "language": "python"}))
    code, out, err = await kcclient(server, "start", "-k", str(home))
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert err.endswith("no such luck\n")
    assert (await kcclient(server, "list"))[1] == "There are no sessions.\n"


async def test_shutdown_ends_the_server(server: LaunchedServer) -> None:
    await kcclient(server, "start")
    code, out, _ = await kcclient(server, "shutdown")
    assert (code, out) == (0, "The server is shutting down.\n")
    assert await server.process.wait() == 0
    code, _, err = await kcclient(server, "status")
    assert (code, err.startswith("Error: Cannot find ")) == (1, True)


async def test_a_directory_that_is_none_is_told(server: LaunchedServer, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    code, _, err = await kcclient(server, "start", "-s", "one", "-d", str(gone))
    assert code == 0
    assert err.startswith("Note: the kernel runs in /")
    assert err.endswith(f", not in {gone}.\n")
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    assert await kcclient(server, "restart", "-d", str(link)) == (0, "Restarted one.\n", "")
    code, _, err = await kcclient(server, "restart", "-d", str(gone))
    assert (code, err) == (0, f"Note: the kernel runs in {tmp_path}, not in {gone}.\n")
