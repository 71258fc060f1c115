"""The documentation keeps to the truth where that can be checked: names, links, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kallichore.config import Deadlines, Limits

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
README = ROOT / "README.md"

TEST_NAME = re.compile(r"`(test_\w+)`")
TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
BOUND = re.compile(r"--set (\w+)=")
SOURCE = re.compile(r"`((?:kallichore|tests|protocol|kernel|web)/[\w/.]+\.py)`")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in TEST.findall(path.read_text(encoding="utf-8"))
    }
    assert set(TEST_NAME.findall(page.read_text(encoding="utf-8"))) - there == set()


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [page.parent / link for link in LINK.findall(text)]
    sources = [
        ROOT / name if name.startswith(("kallichore", "tests")) else ROOT / "kallichore" / name
        for name in SOURCE.findall(text)
    ]
    assert [path for path in links + sources if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_bound_that_a_page_sets_is_one(page: Path) -> None:
    known = set(Limits.__annotations__) | set(Deadlines.__annotations__)
    assert set(BOUND.findall(page.read_text(encoding="utf-8"))) - known == set()


@pytest.mark.parametrize("marker", ["demo command", "test command"])
def test_the_readme_has_one_line_for_each_of_its_two_commands(marker: str) -> None:
    block = README.read_text(encoding="utf-8").partition(f"<!-- {marker} -->\n```sh\n")[2]
    line, _, rest = block.partition("\n")
    assert line.startswith("python3 -m venv ")
    assert rest.startswith("```")
