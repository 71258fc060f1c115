"""What the operating system is asked, against the real one."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kallichore import _platform
from kallichore._platform import MemoryEvidence, _linux, _linux_memory

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def no_strangers() -> None:
    """Reap what other tests have had this process adopt."""
    while _platform.reap(()) is not None:
        pass


SLEEPER: list[str | Path] = ["sleep", "1000"]


@contextmanager
def running(command: list[str | Path], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process, and whatever is in its group, for a while."""
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_facts_of_a_process() -> None:
    facts = _platform.process_facts(os.getpid())
    assert facts is not None
    assert facts.parent == os.getppid()
    assert facts.group == os.getpgid(0)
    assert facts.session == os.getsid(0)
    assert not facts.zombie
    assert facts.threads >= 1
    assert facts.resident_bytes > 1_000_000
    assert 0 < facts.cpu_seconds <= sum(os.times()[:2]) + 0.1


def test_a_name_with_parentheses_confuses_nobody(tmp_path: Path) -> None:
    program = tmp_path / ") 1 (2) S 3"
    program.symlink_to("/bin/sleep")
    with running([program, "1000"]) as process:
        facts = _platform.process_facts(process.pid)
    assert facts is not None
    assert facts.parent == os.getpid()


def test_a_process_that_is_gone_has_no_facts() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        facts = _platform.process_facts(process.pid)
        assert facts is not None
        assert facts.zombie
        assert _platform.process_start_time(process.pid) is None
    assert _platform.process_facts(process.pid) is None
    assert _platform.process_start_time(process.pid) is None
    assert _platform.children(process.pid) == []
    assert _platform.environment(process.pid) == b""
    assert _platform.current_directory(process.pid) is None


def test_a_start_time_tells_processes_apart_and_stays() -> None:
    first = _platform.process_start_time(os.getpid())
    assert first is not None
    assert _platform.process_start_time(os.getpid()) == first
    with running(SLEEPER) as process:
        later = _platform.process_start_time(process.pid)
    assert later is not None
    assert later > first


def test_children_and_descendants() -> None:
    script = "sleep 1000 & sh -c 'sleep 1000 & echo; wait' & wait"
    with running(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.pid in _platform.children(os.getpid())
        children = _platform.children(process.pid)
        assert len(children) == 2
        assert sorted(_linux.children_by_scan(process.pid)) == sorted(children)
        below = _platform.descendants(process.pid, 100)
        assert below[:2] == children
        assert len(below) == 3
        assert _platform.descendants(process.pid, 2) == below[:2]


def test_without_lists_of_children_all_processes_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_linux, "has_children_files", False)
    monkeypatch.setattr(_linux, "read_file", without_children_files)
    with running(SLEEPER) as process:
        assert process.pid in _platform.children(os.getpid())


def without_children_files(path: str) -> bytes:
    with suppress(FileNotFoundError):  # processes come and go, also while they are asked
        return b"" if path.endswith("/children") else Path(path).read_bytes()
    return b""


def test_children_of_another_thread_are_found() -> None:
    code = """
import subprocess, sys, threading
thread = threading.Thread(target=lambda: subprocess.Popen(["sleep", "1000"]).wait(), daemon=True)
thread.start()
sys.stdout.write("x\\n"); sys.stdout.flush()
sys.stdin.readline()
"""
    with running(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while not _platform.children(process.pid):
            assert process.poll() is None


def test_environment_and_directory_of_another_process(tmp_path: Path) -> None:
    environment = {"A": "1", "B": "two\nlines"}
    with running(["/bin/sleep", "1000"], env=environment, cwd=tmp_path) as process:
        while not _platform.environment(process.pid):  # it is still being set up
            assert process.poll() is None
        assert _platform.environment(process.pid) == b"A=1\0B=two\nlines\0"
        assert _platform.current_directory(process.pid) == str(tmp_path)
        tmp_path.rmdir()
        assert _platform.current_directory(process.pid) is None


def test_every_child_that_has_exited_is_reaped_once() -> None:
    assert _platform.reap(()) is None
    processes = {
        process.pid: process
        for process in (subprocess.Popen(["sh", "-c", f"exit {code}"]) for code in range(3))
    }
    codes: dict[int, int] = {}
    while len(codes) < 3:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        exited = _platform.reap(())
        assert exited is not None
        codes[exited[0]] = exited[1]
        processes[exited[0]].returncode = exited[1]
    assert [codes[pid] for pid in processes] == [0, 1, 2]
    assert _platform.reap(()) is None


def test_a_child_that_still_runs_is_not_reaped() -> None:
    with running(SLEEPER) as process:
        assert _platform.reap(()) is None
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert _platform.reap(()) == (process.pid, -signal.SIGKILL)
        process.returncode = -signal.SIGKILL


def test_orphans_are_adopted_and_the_name_is_set() -> None:
    code = """
import os
from kallichore import _platform
assert _platform.become_subreaper()
_platform.set_process_name("a-name-that-is-too-long")
parent = os.getpid()
reading, writing = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.read(reading, 1)
        os._exit(os.getppid() == parent)
    os._exit(0)
os.wait()
os.write(writing, b"x")
assert os.waitstatus_to_exitcode(os.wait()[1]) == 1
print(open("/proc/self/comm").read().strip())
"""
    assert run(code) == "a-name-that-is-"


def test_a_process_dies_with_its_parent() -> None:
    code = """
import os, signal
from kallichore import _platform
assert _platform.become_subreaper()
if os.fork() == 0:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        assert _platform.die_with_parent(signal.SIGUSR1)
        os.write(writing, b"x")
        signal.pause()
    os.read(reading, 1)
    os._exit(0)
os.wait()
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert run(code) == str(-signal.SIGUSR1)


def test_the_limit_of_open_files_is_ours_alone() -> None:
    code = """
import resource, subprocess
from kallichore import _platform
_platform.restore_descriptor_limit(1 << 22)
print(_platform.raise_descriptor_limit(), _platform.raise_descriptor_limit())
child = subprocess.Popen(["sleep", "1000"])
_platform.restore_descriptor_limit(child.pid)
print(resource.prlimit(child.pid, resource.RLIMIT_NOFILE)[0])
child.kill()
child.wait()
_platform.restore_descriptor_limit(child.pid)
"""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    raised = min(hard, 1 << 20)
    limited = ["bash", "-c", 'ulimit -S -n 512; exec "$@"', "bash"]
    assert run(code, *limited).split() == [str(raised), str(raised), "512"]


def run(code: str, *prefix: str) -> str:
    command = [*prefix, sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(
        command, env=env, check=True, capture_output=True, text=True, timeout=30
    ).stdout.strip()


def test_ephemeral_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1024 <= _platform.ephemeral_ports().start < _platform.ephemeral_ports().stop <= 65536
    monkeypatch.setattr(_linux, "read_file", lambda _path: b"")
    assert _platform.ephemeral_ports() == _linux.DEFAULT_EPHEMERAL


CGROUP = "0::/user.slice/app\n"
CGROUP_V1 = "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n"


@pytest.mark.parametrize(
    ("cgroup", "mount", "path", "content"),
    [
        (CGROUP, "cgroup2 cgroup rw", "user.slice/app/memory.events", "oom 5\noom_kill 3\n"),
        (CGROUP, "cgroup2 cgroup rw", "memory.events", "oom 5\noom_kill 3\n"),
        (CGROUP_V1, "cgroup cgroup rw,memory,cpu", "docker/abc/memory.oom_control", "oom_kill 3\n"),
        (CGROUP_V1, "cgroup cgroup rw,memory", "memory.oom_control", "under_oom 0\noom_kill 3\n"),
    ],
)
def test_the_counter_of_our_control_group_is_found(
    cgroup: str,
    mount: str,
    path: str,
    content: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counter = tmp_path / path
    counter.parent.mkdir(parents=True, exist_ok=True)
    counter.write_text(content)
    lines = {
        "/proc/self/cgroup": cgroup.splitlines(),
        "/proc/self/mountinfo": [
            f"30 20 0:1 / {tmp_path} rw,nosuid shared:4 - {mount}",
            "31 20 0:1 / /elsewhere rw - tmpfs tmpfs rw",
        ],
    }
    monkeypatch.setattr(_linux_memory, "lines", lines.__getitem__)
    assert _linux_memory.read_counters().group == 3


def test_where_nothing_can_be_read_nothing_is_known() -> None:
    assert _linux_memory.lines("/no/such/file") == []
    assert _linux_memory.counter("/no/such/file") is None
    assert _linux_memory.counter("/proc/self/cgroup") is None


LOG = (
    b"4,1,1,-;oom-kill:constraint=CONSTRAINT_MEMCG,task=python,pid=12,uid=0\n"
    b"3,2,2,-;Memory cgroup out of memory: Killed process 12 (python) total-vm:1kB, UID:0\n"
    b"3,3,3,-;Out of memory: Killed process 7, UID 0, (x) total-vm:1kB\n"
)


def watch_with(
    monkeypatch: pytest.MonkeyPatch,
    *counters: tuple[int | None, int | None],
    log: int | None = None,
) -> _linux_memory.LinuxMemoryWatch:
    readings = iter(_linux_memory.MemoryCounters(*counter) for counter in counters)
    monkeypatch.setattr(_linux_memory, "read_counters", lambda: next(readings))
    monkeypatch.setattr(_linux_memory, "open_kernel_log", lambda: log)
    return _linux_memory.LinuxMemoryWatch()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0, 0), (1, 1), MemoryEvidence.CERTAIN),
        ((1, 1), (1, 1), MemoryEvidence.NONE),
        ((1, 1), (1, 2), MemoryEvidence.LIKELY),
        ((None, 1), (None, 2), MemoryEvidence.LIKELY),
        ((None, None), (None, None), MemoryEvidence.NONE),
    ],
)
def test_counters_that_have_risen_are_evidence(
    before: tuple[int | None, int | None],
    after: tuple[int | None, int | None],
    expected: MemoryEvidence,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = watch_with(monkeypatch, before, after, after)
    assert watch.evidence(12) is expected
    assert watch.evidence(12) is MemoryEvidence.NONE
    watch.close()


def test_the_log_of_the_system_names_the_victims(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    watch = watch_with(monkeypatch, (0, 0), (2, 2), (2, 2), (2, 2), (3, 3), log=reading)
    os.write(writing, LOG)
    assert watch.evidence(99) is MemoryEvidence.NONE  # others have died
    assert watch.evidence(12) is MemoryEvidence.CERTAIN
    assert watch.evidence(12) is MemoryEvidence.NONE  # a later process with the same pid
    assert watch.evidence(5) is MemoryEvidence.LIKELY  # counted, and not (yet) in the log
    watch.close()
    watch.close()
    os.close(writing)


def test_the_real_log_is_read_from_its_end_where_it_is_readable() -> None:
    watch = _platform.open_memory_watch()
    assert watch.evidence(os.getpid()) is MemoryEvidence.NONE
    watch.close()


def test_a_log_that_is_not_ours_to_read_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_linux_memory, "KERNEL_LOG", str(tmp_path / "kmsg"))
    assert _linux_memory.open_kernel_log() is None
    (tmp_path / "kmsg").mkdir()
    monkeypatch.setattr(
        _linux_memory, "INITIAL_PID_NAMESPACE", str(Path("/proc/self/ns/pid").readlink())
    )
    assert _linux_memory.open_kernel_log() is None
    monkeypatch.setattr(_linux_memory, "INITIAL_PID_NAMESPACE", "pid:[0]")
    assert _linux_memory.open_kernel_log() is None
