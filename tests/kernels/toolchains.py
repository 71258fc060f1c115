"""Kernels that need another language's toolchain: how each is brought, and what is missing.

Everything but what Debian installs goes below one cache directory; in the home only Cargo keeps
what it has downloaded. Versions are fixed, so that a run tomorrow tests what today's did.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["TOOLCHAINS", "BringingFailed", "Missing", "Toolchain", "debian", "environment"]

EVCXR: Final = "evcxr_jupyter@0.22.0"
TSLAB: Final = ("tslab@1.0.22", "@types/node@20")
"""The newest @types/node is beyond tslab's own TypeScript: with it there is no ``console``."""
GONB: Final = ("github.com/janpfeifer/gonb", "v0.11.3")
GOIMPORTS: Final = ("golang.org/x/tools", "v0.30.0")
"""Without goimports, gonb runs nothing."""


class Missing(Exception):
    """This machine has not what a kernel needs."""


class BringingFailed(Exception):
    """It has, and yet an installation failed."""


@dataclass(frozen=True)
class Toolchain:
    """How one kernel is brought."""

    kernel: str
    needs: tuple[str, ...]
    """Commands that have to be there."""
    bring: Callable[[Path], None]
    """Install it below the cache directory, unless it is there."""


def environment(cache: Path) -> dict[str, str]:
    """Give the environment in which kernels of the cache are found, and keep to it."""
    folders = [str(cache / name / "bin") for name in ("rust", "go")]
    folders.append(str(cache / "node" / "node_modules" / ".bin"))
    return {
        **os.environ,
        "PATH": os.pathsep.join([*folders, os.environ["PATH"]]),
        "GOPATH": str(cache / "go"),
        "GOBIN": str(cache / "go" / "bin"),
        "GOCACHE": str(cache / "go" / "build"),
        "npm_config_cache": str(cache / "node" / "cache"),
    }


def debian(*packages: str) -> None:
    """Install packages of Debian, if we may.

    Raises:
        Missing: if we may not.
        BringingFailed: if it fails.
    """
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Missing(f"{', '.join(packages)} of Debian, installed by root")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)
    if subprocess.run(install, env=quiet, check=False, capture_output=True).returncode:
        _run("apt-get", "update", "-qq", env=quiet)
        _run(*install, env=quiet)


def _run(*command: str, env: dict[str, str], cwd: Path | None = None) -> None:
    """Run a command, and show what it says only if it fails."""
    print("+", *command, flush=True)
    done = subprocess.run(
        command, env=env, cwd=cwd, check=False, text=True, stdout=-1, stderr=subprocess.STDOUT
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-20:])
        raise BringingFailed(f"`{' '.join(command)}` says:\n{last}")


def _bring_r(cache: Path) -> None:
    """Install Debian's IRkernel, unless this R has one."""
    there = ("Rscript", "-e", "library(IRkernel)")
    if shutil.which("Rscript") and not subprocess.run(there, check=False, stderr=-1).returncode:
        return
    debian("r-cran-irkernel")


def _bring_rust(cache: Path) -> None:
    """Compile evcxr_jupyter, which takes minutes."""
    if not (cache / "rust" / "bin" / "evcxr_jupyter").exists():
        target = cache / "rust" / "target"
        places = ("--root", str(cache / "rust"), "--target-dir", str(target))
        _run("cargo", "install", "--quiet", "--locked", EVCXR, *places, env=environment(cache))
        shutil.rmtree(target)  # a gigabyte that nobody needs any more


def _bring_node(cache: Path) -> None:
    """Install tslab."""
    if not (cache / "node" / "node_modules" / ".bin" / "tslab").exists():
        (cache / "node").mkdir(parents=True, exist_ok=True)
        prefix = ("--prefix", str(cache / "node"))
        _run("npm", "install", "--no-audit", "--no-fund", *prefix, *TSLAB, env=environment(cache))


def _bring_go(cache: Path) -> None:
    """Compile gonb and goimports.

    By way of a module that requires these versions: ``go install name@version`` also asks for the
    list of all versions, which not every proxy has.
    """
    if (cache / "go" / "bin" / "gonb").exists():
        return
    module, env = cache / "go" / "module", environment(cache)
    shutil.rmtree(module, ignore_errors=True)
    module.mkdir(parents=True)
    requires = [f"-require={name}@{version}" for name, version in (GONB, GOIMPORTS)]
    _run("go", "mod", "init", "kernels.test", env=env, cwd=module)
    _run("go", "mod", "edit", *requires, env=env, cwd=module)
    packages = (f"{GOIMPORTS[0]}/cmd/goimports", GONB[0])
    _run("go", "install", "-mod=mod", *packages, env=env, cwd=module)


TOOLCHAINS: Final = [
    Toolchain("ir", (), _bring_r),
    Toolchain("evcxr", ("cargo", "rustc"), _bring_rust),
    Toolchain("tslab", ("node", "npm"), _bring_node),
    Toolchain("gonb", ("go",), _bring_go),
]
