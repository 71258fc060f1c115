"""The commands where stdin, stdout or stderr are closed, full, or read by nobody."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVER = shlex.join([sys.executable, "-m", "kallichore"])
CLIENT = shlex.join([sys.executable, "-m", "kallichore.client.command"])
FILE = "--connection-file kc.json"
PATIENCE = 30
ENVIRONMENT = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
"""What is buffered fails later, when it is flushed."""


def shell(directory: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell, to its end."""
    return subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=ENVIRONMENT,
    )


@contextmanager
def serving(directory: Path, redirected: str) -> Iterator[subprocess.Popen[str]]:
    """A server with its streams redirected, which ends in order; nothing is on its stderr."""
    line = f"exec {SERVER} {FILE} --log-level error --log-file log {redirected}"
    with subprocess.Popen(
        ["/bin/sh", "-c", line],
        cwd=directory,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, "XDG_RUNTIME_DIR": str(directory)},
    ) as process:
        try:
            wait = f"until [ -e kc.json ]; do kill -0 {process.pid} || exit 1; done"
            assert shell(directory, wait).returncode == 0
            yield process
            assert shell(directory, f"{CLIENT} {FILE} shutdown").returncode == 0
            assert process.communicate(timeout=PATIENCE)[1] == ""
        finally:
            process.kill()  # unless it has ended, or it would be waited for without end
    assert process.returncode == 0
    assert (directory / "log").read_text() == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_a_server_whose_streams_are_closed_is_one_like_others(tmp_path: Path, closed: str) -> None:
    with serving(tmp_path, closed):
        started = shell(tmp_path, f"{CLIENT} {FILE} start -s one")
        assert (started.returncode, started.stderr) == (0, "")
        ran = shell(tmp_path, f"{CLIENT} {FILE} execute -c 'print(6 * 7)'")
        assert (ran.returncode, ran.stdout) == (0, "42\n")


@pytest.mark.parametrize("nowhere", [">/dev/full", "| head -c 1 >/dev/null"])
def test_nobody_has_to_read_where_it_listens(tmp_path: Path, nowhere: str) -> None:
    with serving(tmp_path, nowhere):
        status = shell(tmp_path, f"{CLIENT} {FILE} --json status")
        assert json.loads(status.stdout)["sessions"] == 0


def test_a_client_whose_output_has_no_place_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, ">/dev/null"):
        full = shell(tmp_path, f"{CLIENT} {FILE} status >/dev/full")
        why = "Error: Cannot write the output: No space left on device.\n"
        assert (full.returncode, full.stderr) == (1, why)
        closed = shell(tmp_path, f"{CLIENT} {FILE} status >&-")
        assert (closed.returncode, closed.stderr) == (0, "")


def test_a_directory_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    line = "mkdir gone; cd gone; rmdir ../gone; "
    refused = shell(tmp_path, f"{line}{SERVER} {FILE}")
    assert refused.returncode == 2
    assert "the current directory: No such file or directory" in refused.stderr
    with serving(tmp_path, ">/dev/null"):
        file = f"--connection-file {shlex.quote(str(tmp_path / 'kc.json'))}"
        refused = shell(tmp_path, f"{line}{CLIENT} {file} start")
        why = "Error: The current directory: No such file or directory.\n"
        assert (refused.returncode, refused.stderr) == (1, why)
