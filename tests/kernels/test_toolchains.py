"""What `nox -s kernels` does where a toolchain is missing, or fails."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def run_with(commands: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run the chore where nothing but some commands is on the PATH."""
    argv = [sys.executable, "-m", "tests.kernels", str(cache)]
    env = {**os.environ, "PATH": str(commands)}
    return subprocess.run(argv, env=env, check=False, capture_output=True, text=True)


def test_what_is_missing_is_said_and_without_a_kernel_it_fails(tmp_path: Path) -> None:
    done = run_with(tmp_path, tmp_path / "cache")
    said = "Not on this machine, hence not tested: "
    assert done.stdout.splitlines() == [
        f"{said}zsh, fish, tcsh (zsh, fish, tcsh of Debian, installed by root)",
        f"{said}ir (needs r-cran-irkernel of Debian, installed by root)",
        f"{said}evcxr (needs cargo)",
        f"{said}tslab (needs node)",
        f"{said}gonb (needs go)",
        "No kernel of another toolchain could be run",
    ]
    assert done.returncode == 1


def test_an_installation_that_fails_is_told_from_a_toolchain_that_is_missing(
    tmp_path: Path,
) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho 'no such module'\nexit 1\n")
    go.chmod(0o755)
    done = run_with(tmp_path, tmp_path / "cache")
    assert (
        "Not installed, hence not tested: gonb: `go mod init kernels.test` says:\n" in done.stdout
    )
    assert "no such module" in done.stdout
    assert done.returncode == 1
