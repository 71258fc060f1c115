"""Kernel processes: started, waited for, signalled, and ended with everything they have started."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from kallichore import _platform
from kallichore.config import Deadlines, Limits
from kallichore.kernel.launch import SERVER_MARK, SESSION_MARK, Launch
from kallichore.kernel.process import Process, Reaper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def reaper(nursery: trio.Nursery) -> AsyncIterator[Reaper]:
    reaper = Reaper(Limits(), Deadlines())
    await nursery.start(reaper.run)
    yield reaper
    assert reaper.strangers() == []


def python(code: str, *arguments: str, session: str = "s1") -> Launch:
    """Launch an interpreter that runs ``code``."""
    env = {**os.environ, SESSION_MARK: session, SERVER_MARK: "server"}
    return Launch(argv=[sys.executable, "-S", "-E", "-c", code, *arguments], env=env, cwd="/")


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def read_numbers(process: Process, count: int) -> list[int]:
    """Read as many pids as the process is going to write, one a line."""
    text = b""
    with trio.fail_after(10):
        while text.count(b"\n") < count:
            text += await process.stdout.receive_some()
    return [int(line) for line in text.split()]


def is_alive(pid: int) -> bool:
    return _platform.process_start_time(pid) is not None


async def test_exit_code_and_output(reaper: Reaper) -> None:
    process = reaper.spawn(
        python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    )
    async with process:
        assert await read_all(process.stdout) == b"out\n"
        assert await read_all(process.stderr) == b"err\n"
        assert await process.wait() == 3


TREE = """
import os, sys, time
def say(): os.write(1, b'%d\\n' % os.getpid())
def sleep():
    say()
    time.sleep(1000)
if os.fork() == 0: sleep()                       # plain
if os.fork() == 0: os.setsid(); sleep()          # in a session of its own
if os.fork() == 0:                               # double-forked daemon
    os.setsid()
    if os.fork() == 0: sleep()
    os._exit(0)
if os.fork() == 0:                               # no environment left
    os.execve(sys.executable, [sys.executable, '-S', '-E', '-c',
        'import os,time; os.write(1, b"%d\\\\n" % os.getpid()); time.sleep(1000)'], {})
if sys.argv[1] == 'stay': time.sleep(1000)
"""


@pytest.mark.parametrize("ending", ["stay", "exit"])
async def test_nothing_that_it_started_is_left(reaper: Reaper, ending: str) -> None:
    async with reaper.spawn(python(TREE, ending)) as process:
        pids = await read_numbers(process, 4)
        if ending == "exit":
            assert await process.wait() == 0
        assert all(map(is_alive, pids))
        await process.stop(term_seconds=0)
    assert not any(map(is_alive, pids))
    assert process.returncode == (0 if ending == "exit" else -signal.SIGTERM)
