"""How a kernel is started: environment, arguments, shells and their quoting."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kallichore.kernel.launch import (
    SESSION_MARK,
    Launch,
    ShellNoiseFilter,
    StartupStep,
    find_executable,
    find_shell,
    plan,
    resolve_env,
    startup_details,
    usable_directory,
)
from kallichore.models import (
    InterruptMode,
    NewSession,
    SessionMode,
    StartupEnvironment,
    VarAction,
    VarActionType,
)

SHELLS = [
    path
    for name in ("bash", "dash", "ksh", "zsh", "fish", "tcsh", "csh")
    if (path := shutil.which(name))
]
SAY = (
    "import json, os, sys;"
    "print(json.dumps([os.getpid(), os.environ.get('STARTUP'), os.getcwd(), sys.argv[1:]]))"
)
SETTERS = {"fish": "set -gx STARTUP {}", "csh": "setenv STARTUP {}", "tcsh": "setenv STARTUP {}"}
NASTY = [
    "",
    "a b",
    "it's",
    '"dq"',
    "$HOME `id` $(id)",
    "\\",
    "end\\",
    "\\'",
    "\\!",
    "new\nline\n",
    "\\\n",
    "bang!bang !! !$ !",
    "'!'\n'",
    "*?[a-z]{x,y}~",
    "~",
    "#c",
    "-n",
    "tab\there\r",
    "é😀",
    "%1 &;|<>()^",
    "=ls",
    "\x01\x7f",
    "x" * 5000,
]


def session(**changes: object) -> NewSession:
    fields: dict[str, object] = {
        "session_id": "s1",
        "display_name": "",
        "language": "",
        "username": "",
        "input_prompt": "",
        "continuation_prompt": "",
        "argv": [sys.executable, "-c", SAY],
        "session_mode": SessionMode.CONSOLE,
        "working_directory": "",
        "env": [],
        "interrupt_mode": InterruptMode.SIGNAL,
        "startup_environment": StartupEnvironment.NONE,
    }
    return NewSession(**(fields | changes))  # type: ignore[arg-type]


def planned(tmp_path: Path, shell: str | None = None, **changes: object) -> Launch:
    """Plan a start whose shell finds no startup files of a person."""
    env = {**os.environ, "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path)}
    env.pop("STARTUP", None)
    return plan(
        session(**changes),
        base_env=env,
        connection_file="/run/c.json",
        session_env={SESSION_MARK: "s1"},
        marker_path=str(tmp_path / "the marker"),
        shell=shell,
    )


def startup_succeeded(step: StartupStep) -> bool:
    return Path(step.marker_path).exists()


def run(launch: Launch) -> tuple[int, int, bytes, bytes]:
    with subprocess.Popen(
        launch.argv,
        env=launch.env,
        cwd=launch.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        out, err = process.communicate(timeout=30)
    noise = ShellNoiseFilter(launch.startup)
    quiet = b"".join([noise.feed(err[i : i + 1]) for i in range(len(err))]) + noise.finish()
    return process.pid, process.returncode, out, quiet


def test_the_connection_file_takes_its_place_inside_any_argument(tmp_path: Path) -> None:
    launch = planned(
        tmp_path, argv=["k", "-f", "{connection_file}", "--f={connection_file}", "{x}"]
    )
    assert launch.argv == ["k", "-f", "/run/c.json", "--f=/run/c.json", "{x}"]
    assert launch.startup is None
    assert launch.env[SESSION_MARK] == "s1"


def test_environment_actions_are_carried_out_in_order() -> None:
    base = {"A": "a", "B": "b"}
    actions = [
        VarAction(action=VarActionType.APPEND, name="A", value=":1"),
        VarAction(action=VarActionType.PREPEND, name="A", value="0:"),
        VarAction(action=VarActionType.REPLACE, name="B", value="new"),
        VarAction(action=VarActionType.APPEND, name="B", value="er"),
        VarAction(action=VarActionType.PREPEND, name="C", value="c"),
    ]
    assert resolve_env(base, actions) == {"A": "0:a:1", "B": "newer", "C": "c"}
    assert base == {"A": "a", "B": "b"}


def test_no_action_of_a_client_changes_our_marks(tmp_path: Path) -> None:
    action = VarAction(action=VarActionType.REPLACE, name=SESSION_MARK, value="other")
    assert planned(tmp_path, env=[action]).env[SESSION_MARK] == "s1"


def test_a_working_directory_that_is_gone_is_replaced_by_ours(tmp_path: Path) -> None:
    assert planned(tmp_path, working_directory=str(tmp_path)).cwd == str(tmp_path)
    assert planned(tmp_path, working_directory=str(tmp_path / "gone")).cwd == str(Path.cwd())
    assert planned(tmp_path, working_directory="").cwd == str(Path.cwd())
    assert usable_directory("") is None
    assert usable_directory(__file__) is None
    assert usable_directory("x" * 300) is None


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("kind", ["shell", "command"])
def test_every_argument_reaches_the_kernel_as_it_is(shell: str, kind: str, tmp_path: Path) -> None:
    launch = planned(
        tmp_path,
        shell,
        argv=[sys.executable, "-c", SAY, *NASTY],
        startup_environment=StartupEnvironment(kind),
        startup_environment_arg="true",
        working_directory=str(tmp_path),
    )
    pid, returncode, out, err = run(launch)
    assert (returncode, err) == (0, b"")
    assert json.loads(out) == [pid, None, str(tmp_path), NASTY]
    assert launch.startup is not None
    assert startup_succeeded(launch.startup)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("value", ["1", "two words", "it's", "a\\b", '"'])
def test_a_startup_command_is_heard_by_the_kernel(shell: str, value: str, tmp_path: Path) -> None:
    """The command is the shell's own language: several lines, quotes and all."""
    setter = SETTERS.get(Path(shell).name, "export STARTUP={}")
    quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if value in {"a\\b", '"'}:
        quoted = f"'{value}'"
    command = f"true\n{setter.format(quoted)}\n"
    launch = planned(
        tmp_path,
        shell,
        startup_environment=StartupEnvironment.COMMAND,
        startup_environment_arg=command,
    )
    pid, returncode, out, err = run(launch)
    assert (returncode, err) == (0, b"")
    assert json.loads(out)[:2] == [pid, value]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("absolute", [True, False])
def test_a_startup_script_is_sourced(shell: str, absolute: bool, tmp_path: Path) -> None:  # noqa: FBT001
    script = tmp_path / "it's a!script"
    script.write_text(SETTERS.get(Path(shell).name, "export STARTUP={}").format("sourced") + "\n")
    launch = planned(
        tmp_path,
        shell,
        startup_environment=StartupEnvironment.SCRIPT,
        startup_environment_arg=str(script) if absolute else script.name,
        working_directory=str(tmp_path),
    )
    pid, returncode, out, err = run(launch)
    assert (returncode, err) == (0, b"")
    assert json.loads(out)[:2] == [pid, "sourced"]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("sh -c 'exit 7'", 7),
        ("no-such-command", None),
        ("if ( then", None),
        ("echo 'a", None),
        ("exit 0", 0),
        ("exit 5", 5),
    ],
)
def test_a_startup_command_that_fails_stops_the_start(
    shell: str, command: str, expected: int | None, tmp_path: Path
) -> None:
    launch = planned(
        tmp_path,
        shell,
        startup_environment=StartupEnvironment.COMMAND,
        startup_environment_arg=command,
    )
    _, returncode, out, _ = run(launch)
    assert out == b""
    assert returncode == expected or (expected is None and returncode > 0)
    assert launch.startup is not None
    assert not startup_succeeded(launch.startup)
    assert startup_details(launch.startup, succeeded=False) == (
        f"Shell: {shell}\nStartup command: {command}\nStartup command failed"
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_a_startup_script_that_is_not_there_stops_the_start(shell: str, tmp_path: Path) -> None:
    launch = planned(
        tmp_path,
        shell,
        startup_environment=StartupEnvironment.SCRIPT,
        startup_environment_arg="nowhere.sh",
    )
    _, returncode, out, err = run(launch)
    assert out == b""
    assert returncode > 0
    assert b"nowhere.sh" in err
    assert launch.startup is not None
    assert startup_details(launch.startup, succeeded=startup_succeeded(launch.startup)) == (
        f"Shell: {shell}\nStartup script: nowhere.sh\nStartup script failed"
    )


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("kind", list(StartupEnvironment)[1:])
def test_a_kernel_that_fails_is_not_taken_for_its_startup(
    shell: str, kind: StartupEnvironment, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    launch = planned(
        tmp_path,
        shell,
        argv=[sys.executable, "-c", "import sys; sys.exit(3)"],
        startup_environment=kind,
        startup_environment_arg="true" if kind == "command" else str(tmp_path / "empty"),
    )
    _, returncode, out, err = run(launch)
    assert (returncode, out, err) == (3, b"", b"")
    assert launch.startup is not None
    details = startup_details(launch.startup, succeeded=startup_succeeded(launch.startup))
    assert details.endswith("\nKernel failed to start")


def test_a_marker_that_cannot_be_left_does_not_stop_the_kernel(tmp_path: Path) -> None:
    launch = plan(  # noqa: S604 - a shell is what it is about
        session(startup_environment=StartupEnvironment.SHELL),
        base_env=os.environ,
        connection_file="",
        session_env={},
        marker_path=str(tmp_path / "gone" / "marker"),
        shell="/bin/sh",
    )
    assert run(launch)[1] == 0


def test_find_executable(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    assert find_executable("program", str(tmp_path)) is None
    program.chmod(0o700)
    assert find_executable("program", f"/nowhere:{tmp_path}") == str(program)
    assert find_executable("program", f"/{'x' * 300}:{tmp_path}") == str(program)
    assert find_executable(str(program), "") == str(program)
    assert find_executable("./program", "", str(tmp_path)) == str(program)
    assert find_executable(str(tmp_path), "") is None
    assert find_executable("", str(tmp_path)) is None
    assert find_executable("x" * 300, str(tmp_path)) is None
    assert find_executable("sh", None) is not None


def test_find_shell(tmp_path: Path) -> None:
    assert find_shell({"SHELL": "/bin/sh"}) == "/bin/sh"
    assert find_shell({}) in {"/bin/bash", "/bin/sh"}
    assert find_shell({"SHELL": str(tmp_path / "gone")}) in {"/bin/bash", "/bin/sh"}
    assert find_shell({"SHELL": "/bin/false"}) in {"/bin/bash", "/bin/sh"}


BASH_NOISE = (
    b"bash: cannot set terminal process group (-1): Inappropriate ioctl for device\n"
    b"bash: no job control in this shell\n"
)


def bash_step(shell: str = "/usr/bin/bash") -> StartupStep:
    return StartupStep(kind=StartupEnvironment.COMMAND, shell=shell, argument="", marker_path="")


@given(output=st.binary(), cuts=st.lists(st.integers(0, 200)), noisy=st.booleans())
@example(output=b"bash: no such thing\n", cuts=[], noisy=False)
@example(output=b"bash: cannot set terminal process group (12", cuts=[44], noisy=False)
@example(output=BASH_NOISE, cuts=[], noisy=True)
def test_only_what_the_shell_says_of_itself_is_taken_out(
    output: bytes,
    cuts: list[int],
    noisy: bool,  # noqa: FBT001
) -> None:
    noise = ShellNoiseFilter(bash_step())
    whole = BASH_NOISE + output if noisy else output
    edges = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})
    pieces = [whole[a:b] for a, b in itertools.pairwise(edges)]
    assert b"".join(noise.feed(piece) for piece in pieces) + noise.finish() == output


@pytest.mark.parametrize("first", [b"x", b"bash: x", b"bash: cannot set terminal process group (x"])
def test_other_output_is_not_held_back(first: bytes) -> None:
    noise = ShellNoiseFilter(bash_step())
    assert noise.feed(first) == first
    assert noise.feed(BASH_NOISE) == BASH_NOISE
    noise = ShellNoiseFilter(bash_step())
    assert noise.feed(BASH_NOISE) == b""
    assert noise.feed(b"b") == b"b"


def test_a_shell_may_call_itself_by_its_path() -> None:
    noise = ShellNoiseFilter(bash_step("/opt/my-2/bin/bash"))
    assert noise.feed(BASH_NOISE.replace(b"bash:", b"/opt/my-2/bin/bash:")) == b""
    assert ShellNoiseFilter(None).feed(BASH_NOISE) == BASH_NOISE


@pytest.mark.parametrize(
    ("shell", "login", "source"),
    [
        ("bash", "--login", "."),
        ("zsh", "--login", "."),
        ("csh", "-d", "source"),
        ("tcsh", "-d", "source"),
        ("sh", "-l", "."),
        ("ksh", "-l", "."),
        ("fish", "-l", "source"),
        ("strange", "-l", "."),
    ],
)
def test_each_shell_is_called_as_the_contract_has_it(
    shell: str, login: str, source: str, tmp_path: Path
) -> None:
    """Also those that are not here. What comes of it is seen above, in those that are."""
    calls = {
        kind: planned(
            tmp_path,
            f"/a/{shell}",
            startup_environment=kind,
            startup_environment_arg="do/it",
            working_directory=str(tmp_path),
        ).argv
        for kind in StartupEnvironment
    }
    assert calls[StartupEnvironment.NONE][0] == sys.executable
    assert calls[StartupEnvironment.SHELL][:3] == [f"/a/{shell}", login, "-c"]
    assert calls[StartupEnvironment.SHELL][3].startswith("exec ")
    assert calls[StartupEnvironment.COMMAND][:3] == [f"/a/{shell}", "-i", "-c"]
    assert calls[StartupEnvironment.SCRIPT][3].startswith(f"{source} '{tmp_path}/do/it'")
