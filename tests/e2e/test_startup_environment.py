"""What runs before a kernel, in every shell that is here (CONTRACT 3.4), and its environment."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kallichore.client import StartFailed
from kallichore.models import ExecuteRequest, VarAction, VarActionType
from tests.listening import Ear
from tests.puppets import puppet, start_puppet
from tests.serving import Serving, open_serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SHELLS = [shell for shell in ("bash", "dash", "zsh", "fish", "tcsh") if shutil.which(shell)]
EVERY_SHELL = pytest.mark.parametrize("shell", SHELLS)
SET = {"fish": "set -x {} {}", "tcsh": "setenv {} {}"}
ODD = 'it\'s "odd" $HOME `x` \\n ! *\n&& ; é'
"""What no shell may touch on its way to the kernel."""


def setting(shell: str, name: str, value: str) -> str:
    """Say in a shell's language that an exported variable is to be set."""
    return SET.get(shell, "export {}={}").format(name, value)


@asynccontextmanager
async def shell_serving(shell: str, home: Path) -> AsyncIterator[Serving]:
    """Serve with the given ``$SHELL`` and an empty home directory."""
    environment = {**os.environ, "SHELL": str(shutil.which(shell)), "HOME": str(home)}
    async with open_serving(environment=environment) as serving:
        yield serving


def step(kind: str, argument: str | None = None, **changes: Any) -> dict[str, Any]:
    return {"startup_environment": kind, "startup_environment_arg": argument, **changes}


async def seen_by_kernel(serving: Serving, code: str) -> Any:
    reply = await serving.client.execute_code(
        "one", ExecuteRequest(code=f"import json; say(json.dumps({code}))")
    )
    return json.loads(reply.output[0].text or "null")


async def output_of(serving: Serving) -> str:
    """All raw output a client hears up to the end of the first execution."""
    async with serving.client.open_channel("one") as channel:
        frames = await Ear(channel).execute("pass")
    return "".join(one["output"][1] for one in frames if "output" in one)


@EVERY_SHELL
async def test_a_plain_shell_becomes_the_kernel(shell: str, tmp_path: Path) -> None:
    async with shell_serving(shell, tmp_path) as serving:
        await start_puppet(serving.client, "one", step("shell"), before=f"odd = {ODD!r}")
        pid = await seen_by_kernel(serving, "os.getpid()")
        assert (await serving.client.get_session("one")).process_id == pid
        assert await seen_by_kernel(serving, "odd") == ODD
        assert await output_of(serving) == ""


@EVERY_SHELL
async def test_a_command_comes_first(shell: str, tmp_path: Path) -> None:
    async with shell_serving(shell, tmp_path) as serving:
        command = setting(shell, "SAID", "'by the command'")
        await start_puppet(serving.client, "one", step("command", command), before=f"odd = {ODD!r}")
        assert await seen_by_kernel(serving, "os.environ['SAID']") == "by the command"
        assert await seen_by_kernel(serving, "odd") == ODD
        pid = await seen_by_kernel(serving, "[os.getpid(), os.getpgid(0), os.getsid(0)]")
        record = await serving.client.get_session("one")
        assert pid == [record.process_id] * 3
        assert await output_of(serving) == ""


@EVERY_SHELL
@pytest.mark.parametrize("relative", [True, False])
async def test_a_script_is_sourced(shell: str, tmp_path: Path, *, relative: bool) -> None:
    work = tmp_path / "it's my work"
    work.mkdir()
    script = work / "set up.sh"
    script.write_text(setting(shell, "SAID", "'by the script'") + "\necho heard\n")
    argument = script.name if relative else str(script)
    async with shell_serving(shell, tmp_path) as serving:
        changes = step("script", argument, working_directory=str(work))
        await start_puppet(serving.client, "one", changes)
        assert await seen_by_kernel(serving, "os.environ['SAID']") == "by the script"
        assert await seen_by_kernel(serving, "os.getcwd()") == str(work)
        assert await output_of(serving) == "heard\n"


async def failure(serving: Serving, changes: dict[str, Any], **options: object) -> StartFailed:
    await serving.client.new_session(puppet("one", changes, **options))
    with pytest.raises(StartFailed) as caught:
        await serving.client.start_session("one")
    return caught.value


@EVERY_SHELL
async def test_a_failing_command_is_told_from_a_failing_kernel(shell: str, tmp_path: Path) -> None:
    async with shell_serving(shell, tmp_path) as serving:
        failed = await failure(serving, step("command", "false"))
        assert failed.code == "KS-8"
        assert failed.details is not None
        assert failed.details.splitlines()[0] == f"Shell: {shutil.which(shell)}"
        assert failed.details.splitlines()[1].startswith("Startup command: ")
        assert failed.details.splitlines()[2] == "Startup command failed"
        assert "marker" not in f"{failed.output}{failed.details}".lower()


@EVERY_SHELL
async def test_a_kernel_that_fails_after_its_command(shell: str, tmp_path: Path) -> None:
    async with shell_serving(shell, tmp_path) as serving:
        failed = await failure(
            serving, step("command", "echo ready"), before="print('boo', flush=True); sys.exit(5)"
        )
        assert (failed.code, failed.exit_code) == ("KS-8", 5)
        assert failed.output == "ready\nboo\n"
        assert failed.details == (
            f"Shell: {shutil.which(shell)}\nStartup command: echo ready\nKernel failed to start"
        )


@EVERY_SHELL
async def test_a_script_that_is_not_there(shell: str, tmp_path: Path) -> None:
    async with shell_serving(shell, tmp_path) as serving:
        failed = await failure(serving, step("script", "/no/such/script"))
        assert failed.details == (
            f"Shell: {shutil.which(shell)}\nStartup script: /no/such/script\nStartup script failed"
        )


@EVERY_SHELL
async def test_a_plain_shell_with_a_failing_kernel(shell: str, tmp_path: Path) -> None:
    async with shell_serving(shell, tmp_path) as serving:
        failed = await failure(serving, step("shell"), before="sys.exit(6)")
        assert failed.exit_code == 6
        assert failed.details == f"Shell: {shutil.which(shell)}\nKernel failed to start"


async def test_a_login_shell_reads_the_profile_and_an_interactive_one_its_rc(
    tmp_path: Path,
) -> None:
    (tmp_path / ".bash_profile").write_text("export READ=profile\n")
    (tmp_path / ".bashrc").write_text("export READ=rc\n")
    async with shell_serving("bash", tmp_path) as serving:
        await start_puppet(serving.client, "one", step("shell"))
        assert await seen_by_kernel(serving, "os.environ['READ']") == "profile"
        await serving.client.kill_session("one")
        await serving.wait_until("exited")
        await serving.client.delete_session("one")
        await start_puppet(serving.client, "one", step("command", "true"))
        assert await seen_by_kernel(serving, "os.environ['READ']") == "rc"


async def test_a_shell_that_is_none_is_replaced(tmp_path: Path) -> None:
    environment = {**os.environ, "SHELL": "/no/such/shell", "HOME": str(tmp_path)}
    async with open_serving(environment=environment) as serving:
        failed = await failure(serving, step("command", "false"))
        assert failed.details is not None
        assert failed.details.startswith("Shell: /bin/bash\n")


async def test_a_startup_step_can_be_interrupted_by_time(tmp_path: Path) -> None:
    async with shell_serving("bash", tmp_path) as serving:
        failed = await failure(serving, step("command", "sleep 60", connection_timeout=1))
        assert failed.details is not None
        assert failed.details.endswith("Startup command failed")


async def test_environment_actions_are_carried_out_in_order(serving: Serving) -> None:
    replace, append, prepend = (VarActionType(one) for one in ("replace", "append", "prepend"))
    actions = [
        VarAction(action=replace, name="A", value="b"),
        VarAction(action=append, name="A", value="c"),
        VarAction(action=prepend, name="A", value="a"),
        VarAction(action=append, name="NEW", value="x"),
        VarAction(action=prepend, name="HOME", value="/before:"),
        VarAction(action=replace, name="EMPTY", value=""),
        VarAction(action=replace, name="ODD", value=ODD),
    ]
    await start_puppet(serving.client, "one", {"env": actions})
    names = "A NEW HOME EMPTY ODD PATH"
    values = await seen_by_kernel(serving, f"[os.environ.get(n) for n in {names!r}.split()]")
    home = "/before:" + os.environ["HOME"]
    assert values == ["abc", "x", home, "", ODD, os.environ["PATH"]]
    initial = (await serving.client.get_session("one")).initial_env
    assert initial is not None
    assert [initial[name] for name in names.split()] == values


async def test_only_the_connection_file_is_substituted(serving: Serving) -> None:
    new = puppet()
    odd = [
        "a{connection_file}b{connection_file}",
        "{other}",
        "$HOME",
        "",
        "{}",
        "{{connection_file}}",
    ]
    argv = [*new.argv, *odd]

    await serving.client.new_session(msgspec.structs.replace(new, argv=argv))
    await serving.client.start_session("one")
    path, *rest = await seen_by_kernel(serving, "[sys.argv[1], *sys.argv[3:]]")
    assert rest == [f"a{path}b{path}", "{other}", "$HOME", "", "{}", "{" + path + "}"]
    assert (await serving.client.get_session("one")).argv == argv


async def test_a_working_directory_that_has_vanished_is_replaced_by_the_servers(
    serving: Serving, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    await start_puppet(serving.client, "one", {"working_directory": str(gone)})
    assert await seen_by_kernel(serving, "os.getcwd()") == os.getcwd()  # noqa: PTH109
    assert (await serving.client.get_session("one")).working_directory == os.getcwd()  # noqa: PTH109
