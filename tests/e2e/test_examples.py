"""What the documentation shows works: its examples, and the demo of the README's first screen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
EXPECTED = {"first.py": "42\n", "catch_up.py": "0\n1\n2\n3\n4\n"}


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with an empty home directory, as a newcomer's machine has one."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**kept, "HOME": str(home), "TMPDIR": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_example_has_an_expected_output() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_prints_what_it_promises(name: str, tmp_path: Path) -> None:
    done = run(str(EXAMPLES / name), home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, EXPECTED[name], "")


def test_the_demo_shows_each_kind_of_output_and_what_to_type_next(tmp_path: Path) -> None:
    done = run("-m", "kallichore.demo", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    shown = [
        r"server +process \d+, listening on /\S+\.sock  \d\.\d\d s",
        r"kernel +ipython [\d.]+, Python 3\.\d+\.\d+, process \d+  ",
        r"stream, stdout\n      one\n.*\n      two\n.*\n      three\n",
        r"execute_result, text/plain .*\n      5050\n",
        r"error\n(      .*\n)+      KeyError: 'server'\n",
        r"display_data, .*image/png",
        r"stopped +the kernel and the server",
        r"kcclient --connection-file kc.json execute",
    ]
    for pattern in shown:
        assert re.search(pattern, done.stdout), pattern
    assert list(tmp_path.glob("kc-*")) == []
