"""The only entrance to the project's chores, for people and for CI alike: ``nox -s tests``.

The supported Pythons are the classifiers of pyproject.toml and stand nowhere else. Each one that
is on this machine is used, whether installed plainly or by pyenv or uv.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nox

if TYPE_CHECKING:
    from collections.abc import Iterator

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint", "types", "docs", "api"]
nox.options.reuse_venv = "yes"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
SUPPORTED = nox.project.python_versions(PROJECT)
CORE = ["kallichore/protocol/*", "kallichore/errors.py", "kallichore/models/*"]
"""Modules without I/O: their own tests cover every branch."""
CORE_TESTS = ["protocol", "contract", "test_errors.py", "test_models.py", "test_body.py"]
WORKERS = str(min((os.cpu_count() or 1) + 1, 8))
"""Tests wait for processes more than for the processor, so one more than there are cores."""
NOT_ASKED = {
    "ASYNC114": "113 knows our startable functions: they are called run",
    "ASYNC124": "tables of operations hold async functions, whether or not one of them waits",
    "ASYNC127": "httpx is what we test with; the choice of a successor is no matter of style",
    "ASYNC900": "@asynccontextmanager is not the only safe decorator",
    "ASYNC910": "not every async function has to wait",
    "ASYNC911": "the same for generators",
    "ASYNC912": "what is waited for under a deadline may have come already",
    "ASYNC913": "the same for loops",
    "ASYNC128": "task_status may be handed on",
}
"""Checks of flake8-async that we do without, and why."""


def interpreters() -> dict[str, Path]:
    """The supported Pythons of this machine, by version."""
    found: dict[str, Path] = {}
    for version in SUPPORTED:
        for candidate in _candidates(version):
            if _version_of(candidate) == version:
                found[version] = candidate
                break
    return found


def _candidates(version: str) -> Iterator[Path]:
    yield Path(sys.executable)
    roots = [Path.home() / ".pyenv"]
    for folder in os.get_exec_path():
        path = Path(folder) / f"python{version}"
        if path.exists():
            yield path
        if path.parent.name == "shims":  # pyenv's own stand-ins run the selected versions only
            roots.append(path.parent.parent)
    if "PYENV_ROOT" in os.environ:
        roots.append(Path(os.environ["PYENV_ROOT"]))
    for root in roots:
        yield from sorted(root.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)
    yield from (Path.home() / ".local/share/uv/python").glob(
        f"cpython-{version}.*/bin/python{version}"
    )


def _version_of(python: Path) -> str | None:
    ask = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [python, "-c", ask], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


FOUND = interpreters()
PYTHONS = list(FOUND) or [f"{sys.version_info.major}.{sys.version_info.minor}"]
# nox looks for pythonX.Y on the PATH, where one of pyenv's stand-ins may hide the real one.
os.environ["PATH"] = os.pathsep.join(
    [*dict.fromkeys(str(path.parent) for path in FOUND.values()), os.environ["PATH"]]
)


def install(session: nox.Session, *groups: str, extras: str = "") -> None:
    """Install the project itself, editable, and these dependency groups of it."""
    wanted = nox.project.dependency_groups(PROJECT, *groups)
    session.install("--editable", f".{extras}", *wanted)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests, on each Python; on the first one also measure how they cover the core."""
    missing = [version for version in SUPPORTED if version not in FOUND]
    if missing:
        session.warn(f"Not on this machine, hence not tested: Python {', '.join(missing)}")
    install(session, "tests")
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs)
        return
    session.run("python", "-m", "pytest", "--quiet", "-n", WORKERS)
    if session.python == PYTHONS[0]:
        env = {"COVERAGE_FILE": str(Path(session.create_tmp()) / "coverage")}
        core = [f"tests/{name}" for name in CORE_TESTS]
        session.run("coverage", "run", "-m", "pytest", "--quiet", *core, env=env)
        include = f"--include={','.join(CORE)}"
        session.run("coverage", "report", include, "--skip-covered", "--fail-under=100", env=env)


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest versions of our dependencies that we promise to work with."""
    floors = Path(session.create_tmp()) / "floors.txt"
    pairs = (
        re.fullmatch(r"([\w-]+)>=([\w.]+)", line) for line in PROJECT["project"]["dependencies"]
    )
    floors.write_text("".join(f"{pair[1]}=={pair[2]}\n" for pair in pairs if pair))
    wanted = nox.project.dependency_groups(PROJECT, "tests")
    session.install("--editable", ".", *wanted, "--constraint", str(floors))
    session.run("python", "-m", "pytest", "--quiet", "-n", WORKERS, *session.posargs)


@nox.session
def kernels(session: nox.Session) -> None:
    """Run the kernels' suite on those of R, Rust, Node and Go too, which it installs as it can."""
    install(session, "tests")
    cache = session.cache_dir / "kernels"
    session.run("python", "-m", "tests.kernels", str(cache), *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Search with hypothesis for much longer than the tests do, and elsewhere each time."""
    install(session, "tests")
    args = ["--hypothesis-profile=fuzz", "-m", "hypothesis", "-n", WORKERS, "--timeout=7200"]
    session.run("python", "-m", "pytest", "--quiet", *args, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, against floors measured in the same run; -- --quick takes two minutes."""
    install(session, "tests")
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Drive random clients, kernels and faults, and then audit; -- --minutes N --seed S."""
    install(session, "tests")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, Trio's pitfalls, and that imports keep to the layers."""
    install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    files = [str(path) for folder in ("kallichore", "tests") for path in Path(folder).rglob("*.py")]
    session.run("flake8-async", f"--disable={','.join(NOT_ASKED)}", *sorted(files))
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package, the tests and the tooling, strictly."""
    install(session, "types")
    session.run("mypy")
    session.run("mypy", "noxfile.py", "docs")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error. The result is docs/_build/index.html."""
    install(session, "docs")
    shutil.rmtree("docs/_build", ignore_errors=True)
    session.run("sphinx-build", "-W", "-n", "--keep-going", "-b", "html", "docs", "docs/_build")


@nox.session
def api(session: nox.Session) -> None:
    """Say whether kallichore.json, routes, models and client are in step, and if not, where."""
    install(session, "tests")
    session.run("python", "-m", "tests.contract.check", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Start a server and a kernel, run some code, and show what comes back."""
    session.install("--editable", ".[demo]")
    session.run("python", "-m", "kallichore.demo")
