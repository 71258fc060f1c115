"""Running `kcclient` as a process, against the scripted server."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from tests.client.fake_server import FakeServer

__all__ = ["all_of", "first_line", "kcclient", "open_kcclient"]

COMMAND = [sys.executable, "-m", "kallichore.client.command"]


async def kcclient(
    *arguments: str, stdin: bytes = b"", env: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run it, and return exit code, stdout and stderr."""
    done = await trio.run_process(
        [*COMMAND, *arguments],
        stdin=stdin,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=dict(os.environ) | (env or {}),
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def open_kcclient(server: FakeServer, *arguments: str) -> trio.Process:
    return await trio.lowlevel.open_process(
        [*COMMAND, "-u", server.address, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def all_of(stream: trio.abc.ReceiveStream | None) -> str:
    assert stream is not None
    async with stream:
        return b"".join([bytes(chunk) async for chunk in stream]).decode()


async def first_line(stream: trio.abc.ReceiveStream | None) -> str:
    assert stream is not None
    line = b""
    while not line.endswith(b"\n"):
        line += await stream.receive_some(1)
    return line.decode()
