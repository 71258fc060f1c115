"""Bring other languages' kernels and run the suite on them: ``python -m tests.kernels DIR``.

What is below DIR already is used again. `nox -s kernels` is this.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.kernels.toolchains import (
    TOOLCHAINS,
    BringingFailed,
    Missing,
    Toolchain,
    debian,
    environment,
)

SHELLS: Final = ("zsh", "fish", "tcsh")
SUITE: Final = (
    "tests/kernels",
    "tests/e2e/test_registration.py",
    "tests/e2e/test_startup_environment.py",
)


def main() -> int:
    """Give the exit code: 0 if every kernel whose toolchain is here passed, and there was one."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=__doc__)
    parser.add_argument("cache", type=Path, metavar="DIR", help="where kernels are installed")
    args, options = parser.parse_known_args()
    cache: Path = args.cache.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    bring_shells()
    found, failed = [], False
    for one in TOOLCHAINS:
        try:
            bring(one, cache)
        except Missing as exc:
            print(f"Not on this machine, hence not tested: {one.kernel} (needs {exc})", flush=True)
        except BringingFailed as exc:
            print(f"Not installed, hence not tested: {one.kernel}: {exc}", flush=True)
            failed = True
        else:
            found.append(one.kernel)
    if not found:
        print("No kernel of another toolchain could be run")
        return 1
    env = environment(cache) | {"KALLICHORE_KERNELS": ",".join(found)}
    print(f"Kernels of other toolchains: {', '.join(found)}", flush=True)
    pytest = (sys.executable, "-m", "pytest", "--quiet", *(options or SUITE))
    return subprocess.run(pytest, env=env, check=False).returncode or int(failed)


def bring(one: Toolchain, cache: Path) -> None:
    """Install one kernel."""
    for command in one.needs:
        if shutil.which(command) is None:
            raise Missing(command)
    one.bring(cache)


def bring_shells() -> None:
    """Install more shells for the start-up environments, where we may."""
    missing = [shell for shell in SHELLS if shutil.which(shell) is None]
    if missing:
        try:
            debian(*missing)
        except (Missing, BringingFailed) as exc:
            print(f"Not on this machine, hence not tested: {', '.join(missing)} ({exc})")


if __name__ == "__main__":
    sys.exit(main())
