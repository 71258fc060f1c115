"""The guardian: nothing outlives the supervisor, and signals reach it once."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kallichore import _platform, guardian
from kallichore.guardian_process import Charge, kill_groups, remove

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = str(Path(__file__).parent.parent)
HEAD = """
import os, signal, subprocess, sys, time
from kallichore import guardian
guardian.guard()
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""
FAMILY = """
def sleep():
    say(os.getpid())
    time.sleep(1000)
if os.fork() == 0: os.setsid(); sleep()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: os.setsid(); sleep()
    sleep()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if os.fork() == 0: sleep()
        os._exit(0)
    os.wait()
    os._exit(0)
"""


class Server:
    """A supervisor under a guardian, as a front end sees them."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._unread = b""

    def read(self) -> list[str]:
        """Read one line of what the supervisor says."""
        assert self.process.stdout is not None
        while b"\n" not in self._unread:
            assert select.select([self.process.stdout], [], [], 10)[0], "nothing is said"
            piece = os.read(self.process.stdout.fileno(), 4096)
            assert piece, "nobody is left to say anything"
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode().split()

    def end(self) -> int:
        """Wait until the guardian has ended, which it does last, and return its exit code."""
        return self.process.wait(10)


@contextmanager
def serve(code: str, *arguments: object, prefix: tuple[str, ...] = ()) -> Iterator[Server]:
    """Run a supervisor that does ``code``."""
    command = [*prefix, sys.executable, "-c", HEAD + code, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


def is_alive(pid: int) -> bool:
    return _platform.process_start_time(pid) is not None


def name(pid: int | str) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.mark.parametrize("code", [0, 3])
def test_the_guardian_ends_with_the_exit_code_of_the_supervisor(code: int) -> None:
    with serve("sys.exit(int(sys.argv[1]))", code) as server:
        assert server.end() == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_whatever_kills_the_supervisor_nothing_of_it_is_left(
    number: signal.Signals, tmp_path: Path
) -> None:
    """Kernels in sessions of their own, their children, daemons; files and directories."""
    directory = tmp_path / "runtime"
    (directory / "deeper").mkdir(parents=True)
    (directory / "deeper" / "kernel.json").touch()
    (directory / "outside").symlink_to(tmp_path)
    file = tmp_path / "connection.json"
    file.touch()
    code = """
guardian.remember(sys.argv[1])
guardian.remember(sys.argv[2])
say("remembered")
signal.pause()
"""
    with serve(FAMILY + code, directory, file) as server:
        said = [server.read()[0] for _ in range(5)]
        said.remove("remembered")
        pids = [int(pid) for pid in said]
        assert all(map(is_alive, pids))
        (supervisor,) = _platform.children(server.process.pid)
        os.kill(supervisor, number)
        assert server.end() == -number
        assert not any(map(is_alive, pids))
    assert list(tmp_path.iterdir()) == []


def test_what_an_orderly_supervisor_leaves_is_swept_too() -> None:
    code = """
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(4))
signal.pause()
"""
    with serve(FAMILY + code) as server:
        pids = [int(server.read()[0]) for _ in range(4)]
        assert all(map(is_alive, pids))
        server.process.send_signal(signal.SIGUSR1)
        assert server.end() == 4
        assert not any(map(is_alive, pids))


def test_only_our_own_files_are_removed(tmp_path: Path) -> None:
    """One is forgotten, one has been replaced by somebody else's, one is gone, one is ours."""
    for file in ("forgotten", "replaced", "gone", "ours", "with space"):
        (tmp_path / file).touch()
    code = """
os.chdir(sys.argv[1])
for name in os.listdir(): guardian.remember(name)
guardian.forget("forgotten")
open("new", "w").close()
os.replace("new", "replaced")
os.unlink("gone")
"""
    with serve(code, tmp_path) as server:
        assert server.end() == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["forgotten", "replaced"]


COUNT = """
counts = {}
def count(number, frame):
    counts[number] = counts.get(number, 0) + 1
    say("heard")
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, count)
say("ready", os.getpid())
while signal.SIGTERM not in counts: signal.pause()
say(*(f"{signal.Signals(n).name}={c}" for n, c in sorted(counts.items())))
"""


def test_signals_reach_the_supervisor_once_each_and_leave_the_guardian_alone() -> None:
    with serve(COUNT) as server:
        assert server.read()[0] == "ready"
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
            server.process.send_signal(number)
            assert server.read() == ["heard"]
        assert server.read() == ["SIGHUP=1", "SIGINT=1", "SIGUSR1=1", "SIGTERM=1"]
        assert server.end() == 0


def test_a_signal_before_anything_is_set_up_is_not_lost() -> None:
    with serve("say('ready'); signal.pause()") as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.end() == -signal.SIGTERM


def test_what_nohup_has_had_ignored_stays_ignored() -> None:
    prefix = ("sh", "-c", 'trap "" HUP; exec "$0" "$@"')
    with serve("say('ready'); signal.pause()", prefix=prefix) as server:
        assert server.read() == ["ready"]
        server.process.send_signal(signal.SIGHUP)
        server.process.send_signal(signal.SIGUSR1)
        assert server.end() == -signal.SIGUSR1


def test_an_interrupt_key_reaches_the_supervisor_once() -> None:
    """The terminal sends SIGINT to the whole foreground group, of which only the guardian is."""
    controller, terminal = pty.openpty()
    code = HEAD + COUNT.replace("SIGTERM not in counts", "SIGINT not in counts")
    starter = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter, code],
        env={**os.environ, "PYTHONPATH": ROOT},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ) as process:
        os.close(terminal)
        said = b""
        while b"ready" not in said:
            said += os.read(controller, 1000)
        os.write(controller, b"\x03")
        while b"SIGINT=" not in said:
            said += os.read(controller, 1000)
        assert b"SIGINT=1" in said
        assert process.wait(10) == 0
    os.close(controller)


def test_the_supervisor_notices_when_the_guardian_is_gone() -> None:
    """It is told twice: by SIGTERM and by the end of the connection."""
    code = """
import trio
async def main():
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            say(os.getpid(), guardian.guardian_pid())
            with trio.fail_after(10):
                await guardian.guardian_gone()
                assert await anext(signals) == signal.SIGTERM
    guardian.forget("/nobody/listens")
    say("done")
trio.run(main)
"""
    with serve(code) as server:
        supervisor, guardian_pid = map(int, server.read())
        assert guardian_pid == server.process.pid
        assert name(supervisor) == "kcserver"
        server.process.kill()
        assert server.read() == ["done"]


def test_the_guardian_is_small_and_says_who_it_is() -> None:
    with serve("say(os.getpid()); signal.pause()") as server:
        assert name(server.read()[0]) == "kcserver"
        server.process.send_signal(signal.SIGUSR1)  # it is passed on once all is set up
        assert server.end() == -signal.SIGUSR1
    code = "signal.signal(signal.SIGUSR1, lambda *_: say('heard')); say('ready'); "
    with serve(code + "signal.pause(); signal.pause()") as server:
        server.read()
        server.process.send_signal(signal.SIGUSR1)
        server.read()
        assert name(server.process.pid) == "kc-guardian"
        facts = _platform.process_facts(server.process.pid)
        assert facts is not None
        assert facts.resident_bytes < 12_000_000
        assert facts.threads == 1


def test_children_from_before_are_none_of_its_business() -> None:
    prefix = ("sh", "-c", 'sleep 1000 & echo $!; exec "$0" "$@"')
    with serve("", prefix=prefix) as server:
        bystander = int(server.read()[0])
        assert server.end() == 0
        assert is_alive(bystander)
        os.kill(bystander, signal.SIGKILL)


def test_a_guardian_that_is_stopped_does_not_hold_up_the_supervisor(tmp_path: Path) -> None:
    code = """
say("ready")
os.kill(guardian.guardian_pid(), signal.SIGSTOP)
path = sys.argv[1]
for _ in range(5_000): guardian.remember(path); guardian.forget(path)
os.kill(guardian.guardian_pid(), signal.SIGCONT)
guardian.remember(path)
while guardian._link._unsent: guardian.forget("/x")
"""
    (tmp_path / "file").touch()
    with serve(code, tmp_path / "file") as server:
        assert server.end() == 0
    assert list(tmp_path.iterdir()) == []


def test_without_a_guardian_telling_it_does_nothing(tmp_path: Path) -> None:
    assert guardian.guardian_pid() is None
    guardian.remember(tmp_path)
    guardian.forget(tmp_path)
    guardian.remember_group(1, 2)
    guardian.forget_group(1)


def test_a_charge_survives_the_command_line() -> None:
    charge = Charge(12, 3, 1.5, {signal.SIGUSR1}, {7, 8}, adopting=True)
    assert vars(Charge.from_words(charge.words())) == vars(charge)
    empty = Charge(12, 3, 2, (), (), adopting=False)
    assert vars(Charge.from_words(empty.words())) == vars(empty)


def test_a_group_is_killed_unless_its_leader_is_somebody_else() -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        started = _platform.process_start_time(process.pid)
        assert started is not None
        kill_groups({process.pid: started + 1})
        assert process.poll() is None
        kill_groups({process.pid: started})
        assert process.wait(10) == -signal.SIGKILL


def test_removing_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "link").symlink_to("kept")
    remove(os.fsencode(tmp_path / "link"))
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "file"]
