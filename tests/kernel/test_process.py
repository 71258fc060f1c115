"""Kernel processes: started, waited for, signalled, and ended with everything they have started."""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from kallichore import _platform
from kallichore.config import Deadlines, Limits
from kallichore.kernel.launch import SERVER_MARK, SESSION_MARK, Launch, StartupStep
from kallichore.kernel.process import Process, Reaper
from kallichore.models import StartupEnvironment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


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


def descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


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


async def test_any_number_of_tasks_may_wait_and_later_ones_too(
    reaper: Reaper, nursery: trio.Nursery
) -> None:
    codes: list[int] = []

    async def wait() -> None:
        codes.append(await process.wait())

    async with reaper.spawn(python("import os; os.read(0, 1); os._exit(7)")) as process:
        for _ in range(3):
            nursery.start_soon(wait)
        assert await process.wait() == 7
        assert await process.wait() == 7
    await trio.testing.wait_all_tasks_blocked()
    assert codes == [7, 7, 7]


async def test_every_exit_code_is_right(reaper: Reaper) -> None:
    """A thousand processes, twenty at a time, half of them killed by a signal."""
    limiter = trio.CapacityLimiter(20)
    wrong: list[tuple[int, int]] = []

    async def one(number: int) -> None:
        signalled = number % 2
        expected = (
            -(signal.SIGTERM if number % 4 == 1 else signal.SIGKILL) if signalled else number % 256
        )
        script = f"kill -{-expected} $$" if signalled else f"exit {expected}"
        launch = Launch(argv=["/bin/sh", "-c", script], env={}, cwd="/")
        async with limiter, reaper.spawn(launch) as process:
            got = await process.wait()
            if got != expected:
                wrong.append((expected, got))

    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(one, number)
    assert wrong == []


@pytest.mark.parametrize(
    ("argv", "env", "cwd", "why"),
    [
        (["/no/such/program"], {}, "/", "No such file"),
        (["/etc/passwd"], {}, "/", "Permission denied"),
        (["/"], {}, "/", "Permission denied"),
        (["no-such-program"], {"PATH": "/nowhere"}, "/", "No such file"),
        ([sys.executable, "a\0b"], {}, "/", "null byte"),
        ([sys.executable], {"A=B": ""}, "/", "illegal environment"),
        ([sys.executable], {"A": "\udead\ud800"}, "/", "encode"),
        ([sys.executable], {}, "/no/such/directory", "No such file"),
    ],
)
async def test_what_cannot_be_started_leaves_nothing(
    reaper: Reaper, argv: list[str], env: dict[str, str], cwd: str, why: str
) -> None:
    before = descriptors()
    with pytest.raises(OSError, match=why):
        reaper.spawn(Launch(argv=argv, env=env, cwd=cwd))
    assert descriptors() == before
    assert _platform.children(os.getpid()) == []


@contextmanager
def unusual_circumstances() -> Iterator[None]:
    """Ignore and block signals, raise a limit and hold a descriptor that could be inherited."""
    ignored = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0] - 1, limits[1]))
    descriptor = os.dup(0)
    os.set_inheritable(descriptor, True)  # noqa: FBT003
    try:
        yield
    finally:
        os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)


async def test_a_kernel_inherits_nothing_unusual(reaper: Reaper) -> None:
    """A shell is looked at while it waits; Python would already have changed some of it."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    script = "echo ready; kill -STOP $$"
    with unusual_circumstances():
        process = reaper.spawn(Launch(argv=["/bin/sh", "-c", script], env={}, cwd="/"))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    async with process:
        assert await process.stdout.receive_some() == b"ready\n"
        home = Path(f"/proc/{process.pid}")
        assert sorted(path.name for path in (home / "fd").iterdir()) == ["0", "1", "2"]
        status = dict(line.split(":\t") for line in (home / "status").read_text().splitlines())
        ignored = {number for number in range(1, 65) if int(status["SigIgn"], 16) >> number - 1 & 1}
        # The C library keeps two signals to itself; whoever started us may have ignored those.
        assert not ignored & signal.valid_signals()
        assert int(status["SigBlk"], 16) == 0
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[0] == limit
        facts = _platform.process_facts(process.pid)
        assert facts is not None
        assert (facts.group, facts.session) == (process.pid, process.pid)


async def test_a_grandchild_that_holds_the_output_holds_up_nobody(reaper: Reaper) -> None:
    code = "import os, time\nif os.fork() == 0:\n os.setsid(); time.sleep(1000)\nos._exit(5)"
    with trio.fail_after(5):
        async with reaper.spawn(python(code)) as process:
            assert await process.wait() == 5
            with trio.move_on_after(0) as patience:
                await process.stdout.receive_some()
            assert patience.cancelled_caught
        with pytest.raises(trio.ClosedResourceError):
            await process.stdout.receive_some()


DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b'0\\n')
time.sleep(99)
"""


async def test_a_process_that_ignores_sigterm_is_killed(reaper: Reaper) -> None:
    async with reaper.spawn(python(DEAF)) as process:
        await read_numbers(process, 1)
        with trio.fail_after(5):
            await process.stop(term_seconds=0.1)
        assert process.returncode == -signal.SIGKILL


async def test_cancelling_a_stop_skips_the_waiting_but_not_the_killing(reaper: Reaper) -> None:
    async with reaper.spawn(python(DEAF)) as process:
        await read_numbers(process, 1)
        with trio.fail_after(5), trio.move_on_after(0):
            await process.stop(term_seconds=1000)
        assert process.returncode == -signal.SIGKILL


async def test_a_process_that_is_stopped_hears_sigterm(reaper: Reaper) -> None:
    async with reaper.spawn(python("import signal, time; time.sleep(99)")) as process:
        process.signal_group(signal.SIGSTOP)
        with trio.fail_after(5):
            await process.stop(term_seconds=1000)
        assert process.returncode == -signal.SIGTERM


async def test_a_process_that_has_exited_is_not_signalled(reaper: Reaper) -> None:
    async with reaper.spawn(python("")) as process:
        await process.wait()
        with pytest.raises(ProcessLookupError):
            process.signal_group(signal.SIGINT)
        process.kill_tree()
        await process.stop(term_seconds=1000)


async def test_a_signal_reaches_the_whole_group(reaper: Reaper) -> None:
    code = "import os, time; os.fork(); os.write(1, b'%d\\n' % os.getpid()); time.sleep(99)"
    async with reaper.spawn(python(code)) as process:
        pids = await read_numbers(process, 2)
        process.signal_group(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        await process.sweep()
    assert not any(map(is_alive, pids))


async def test_sessions_side_by_side_do_not_notice_each_other(reaper: Reaper) -> None:
    """One session's orphans are killed, while those of the other go on."""
    async with (
        reaper.spawn(python(TREE, "exit", session="one")) as one,
        reaper.spawn(python(TREE, "stay", session="two")) as two,
    ):
        of_one, of_two = await read_numbers(one, 4), await read_numbers(two, 4)
        await one.wait()
        await one.sweep()
        assert not any(map(is_alive, of_one))
        assert all(map(is_alive, of_two))
        assert two.returncode is None


BOMB = """
import os, time
os.write(1, b'0\\n')
for _ in range(6):
    if os.fork() == 0: os.setsid()
while True:
    if os.fork() == 0: time.sleep(0.05); os._exit(0)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
    time.sleep(0.005)
"""


async def test_a_bomb_of_children_is_defused(reaper: Reaper) -> None:
    """64 processes, each in a session of its own, start children without end."""
    async with reaper.spawn(python(BOMB)) as process:
        await read_numbers(process, 1)
        size = 0
        while size < 100:
            await trio.lowlevel.checkpoint()
            size = len(_platform.descendants(process.pid, 1000))
        with trio.fail_after(2):
            await process.sweep()
        assert _platform.children(os.getpid()) == []


async def test_the_reaper_sees_its_processes_to_their_end() -> None:
    """A general shutdown: everything is cancelled at once, and the exit code is still known."""
    reaper = Reaper(Limits(), Deadlines())
    process: Process | None = None
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(reaper.run)
            process = reaper.spawn(python("import time; time.sleep(99)"))

            async def stop() -> None:
                assert process is not None
                try:
                    await trio.sleep_forever()
                finally:
                    await process.aclose()

            nursery.start_soon(stop)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel(reason="shutdown")
    assert process.returncode == -signal.SIGKILL


async def test_what_has_exited_before_the_reaper_runs_is_reaped(nursery: trio.Nursery) -> None:
    reaper = Reaper(Limits(), Deadlines())
    process = reaper.spawn(python("import signal; signal.pause()", session="early"))
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - at once
    assert process.returncode is None
    await nursery.start(reaper.run)
    async with process:
        assert await process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("marked", [True, False])
async def test_a_marker_tells_whether_the_startup_step_was_done(
    reaper: Reaper,
    tmp_path: Path,
    marked: bool,  # noqa: FBT001
) -> None:
    """A marker from an earlier run does not count, and none is left behind."""
    marker = tmp_path / "marker"
    marker.touch()
    step = StartupStep(
        kind=StartupEnvironment.COMMAND, shell="", argument="", marker_path=str(marker)
    )
    script = f": > {marker}; exit 1" if marked else "exit 1"
    launch = Launch(argv=["/bin/sh", "-c", script], env={}, cwd="/", startup=step)
    async with reaper.spawn(launch) as process:
        assert await process.wait() == 1
    assert process.startup_succeeded is marked
    assert not marker.exists()


class FakeMemoryWatch:
    """Blames memory for every death it is asked about."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def evidence(self, pid: int) -> _platform.MemoryEvidence:
        self.asked.append(pid)
        return _platform.MemoryEvidence.CERTAIN

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("how", "blamed"), [("outside", True), ("kill_tree", False), ("group", False), ("term", False)]
)
async def test_memory_is_suspected_only_when_a_sigkill_is_not_ours(
    reaper: Reaper,
    how: str,
    blamed: bool,  # noqa: FBT001
) -> None:
    watch = FakeMemoryWatch()
    reaper._memory.close()
    reaper._memory = watch
    async with reaper.spawn(python("import time; time.sleep(99)")) as process:
        if how == "kill_tree":
            process.kill_tree()
        elif how == "group":
            process.signal_group(signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGTERM if how == "term" else signal.SIGKILL)
        await process.wait()
    assert watch.asked == ([process.pid] if blamed else [])
    assert (process.out_of_memory is _platform.MemoryEvidence.CERTAIN) is blamed
