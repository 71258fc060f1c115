"""Finding kernelspecs, and describing sessions with them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from kallichore import models
from kallichore.client import KernelspecNotFound, build_session, find_kernelspec, kernelspec
from kallichore.client.kernelspec import Kernelspec, kernelspec_directories

R: dict[str, Any] = {
    "argv": ["R", "-e", "x", "{connection_file}", "{resource_dir}/logo"],
    "display_name": "R",
    "language": "R",
    "interrupt_mode": "message",
    "env": {"A": "${KC_TEST}-${NOBODY}", "B": "b"},
    "metadata": {"debugger": True},
}


def install(directory: Path, name: str, spec: dict[str, Any]) -> Path:
    home = directory / "kernels" / name
    home.mkdir(parents=True)
    (home / "kernel.json").write_text(json.dumps(spec))
    return home


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Every directory of Jupyter's in a temporary one; no virtual environment."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "env"))
    return {
        "JUPYTER_PATH": os.pathsep.join([str(tmp_path / "one"), str(tmp_path / "two")]),
        "JUPYTER_DATA_DIR": str(tmp_path / "user"),
        "PROGRAMDATA": str(tmp_path / "system"),
    }


def relative(tmp_path: Path, env: dict[str, str]) -> list[str]:
    return [str(path.relative_to(tmp_path)) for path in kernelspec_directories(env)]


def test_directories_are_searched_in_jupyters_order(tmp_path: Path, env: dict[str, str]) -> None:
    places = ["one", "two", "user", "env/share/jupyter", "system/jupyter"]
    assert relative(tmp_path, env) == [f"{place}/kernels" for place in places]


def test_the_environment_may_come_before_the_user(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert relative(tmp_path, env | {"JUPYTER_PREFER_ENV_PATH": "1"})[2].startswith("env")
    monkeypatch.setattr(sys, "base_prefix", "/elsewhere")
    assert relative(tmp_path, env)[2].startswith("env")
    assert relative(tmp_path, env | {"JUPYTER_PREFER_ENV_PATH": "0"})[2].startswith("user")


def test_the_users_directory_follows_the_platforms(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert tmp_path / ".local/share/jupyter/kernels" in kernelspec_directories(home)
    assert tmp_path / "Library/Jupyter/kernels" in kernelspec_directories(home)
    assert Path("/x/jupyter/kernels") in kernelspec_directories(home | {"XDG_DATA_HOME": "/x"})
    assert Path("/a/jupyter/kernels") in kernelspec_directories(home | {"APPDATA": "/a"})
    assert Path("/usr/share/jupyter/kernels") in kernelspec_directories(home)


def test_the_first_directory_that_has_a_name_wins(tmp_path: Path, env: dict[str, str]) -> None:
    install(tmp_path / "user", "ir", R | {"display_name": "user's"})
    install(tmp_path / "two", "IR", R | {"display_name": "first"})
    spec = find_kernelspec("Ir", env)
    assert (spec.display_name, spec.name) == ("first", "ir")
    assert spec.resource_dir == str(tmp_path / "two" / "kernels" / "IR")


def test_a_kernelspec_can_be_named_by_its_directory(tmp_path: Path, env: dict[str, str]) -> None:
    assert find_kernelspec(str(install(tmp_path, "own", R)), env).language == "R"


def test_a_bare_python_is_the_one_that_is_running(tmp_path: Path, env: dict[str, str]) -> None:
    install(tmp_path / "one", "p", {"argv": ["python3", "-m", "python3"]})
    assert find_kernelspec("p", env).argv == [sys.executable, "-m", "python3"]
    install(tmp_path / "one", "q", {"argv": ["/usr/bin/python3"]})
    assert find_kernelspec("q", env).argv == ["/usr/bin/python3"]


def test_python3_is_this_interpreter_when_none_is_installed(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find_kernelspec("python3", env)
    assert spec.argv[:3] == [sys.executable, "-m", "ipykernel_launcher"]
    assert spec.argv[-1] == "{connection_file}"
    monkeypatch.setattr(kernelspec, "find_spec", lambda _: None)
    with pytest.raises(KernelspecNotFound):
        find_kernelspec("python3", env)


def test_an_unknown_name_is_answered_with_those_there_are(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with pytest.raises(KernelspecNotFound, match=r"'julia' \(installed: none\)"):
        find_kernelspec("julia", env)
    install(tmp_path / "one", "ir", R)
    with pytest.raises(KernelspecNotFound, match=r"'julia' \(installed: ir\)"):
        find_kernelspec("julia", env)


@pytest.mark.parametrize("content", ["", "{}", '{"argv": "x"}', '{"argv": [], "env": 3}'])
def test_a_broken_kernelspec_is_named(tmp_path: Path, env: dict[str, str], content: str) -> None:
    home = install(tmp_path / "one", "bad", R)
    (home / "kernel.json").write_text(content)
    with pytest.raises(KernelspecNotFound, match=r"bad/kernel\.json is no kernelspec"):
        find_kernelspec("bad", env)


def test_a_session_has_the_kernelspecs_command_environment_and_interrupt_mode(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KC_TEST", "value")
    home = install(tmp_path / "one", "ir", R)
    session = build_session(find_kernelspec("ir", env), "s", env={"C": "c"}, working_directory="/w")
    assert session.argv == ["R", "-e", "x", "{connection_file}", f"{home}/logo"]
    assert [(one.name, one.value) for one in session.env] == [
        ("A", "value-${NOBODY}"),
        ("B", "b"),
        ("C", "c"),
    ]
    assert session.interrupt_mode is models.InterruptMode.MESSAGE
    assert (session.session_id, session.display_name, session.language) == ("s", "R", "R")
    assert (session.working_directory, session.protocol_version) == ("/w", "5.3")


def test_a_session_gets_an_id_of_its_own() -> None:
    spec = Kernelspec(argv=[], name="ir")
    one, two = build_session(spec), build_session(spec)
    assert one.session_id.startswith("ir-")
    assert one.session_id != two.session_id
    assert one.username
