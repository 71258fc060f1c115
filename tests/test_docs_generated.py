"""The generated parts of the documentation: all of kallichore.json, all of the transition table."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kallichore.models import Status
from kallichore.protocol.lifecycle import TRANSITIONS
from tests.contract.document import load, operations

if TYPE_CHECKING:
    from types import ModuleType

DOCS = Path(__file__).parent.parent / "docs"
REFERENCE = DOCS / "reference"
PAGES = {
    "1 the server command": (REFERENCE / "command.md", "command"),
    "2 HTTP API": (REFERENCE / "http.md", "operations schemas"),
    "2.1 errors": (REFERENCE / "errors.md", "errors"),
    "3.1 states": (REFERENCE / "states.md", "states-drawing states-table"),
    "3.2 start, registration, restart": (REFERENCE / "starting.md", ""),
    "3.4 startup environments": (DOCS / "how-to" / "startup-environments.md", ""),
    "3.5 adopt": (DOCS / "how-to" / "adopt-a-kernel.md", ""),
    "3 session life": (DOCS / "explanation" / "lifecycle.md", ""),
    "1.7 shutdown": (DOCS / "explanation" / "shutdown.md", ""),
    "4 resource usage": (REFERENCE / "resources.md", ""),
    "5 the channel": (REFERENCE / "channel.md", ""),
    "5.4 delivery": (DOCS / "explanation" / "backpressure.md", ""),
    "6 ZeroMQ side": (REFERENCE / "zeromq.md", ""),
    "7 the client command": (DOCS / "how-to" / "use-kcclient.md", "client-command"),
    "bounds": (REFERENCE / "bounds.md", "limits deadlines client-bounds"),
}


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Sphinx extension that fills in the generated parts."""
    monkeypatch.setattr(sys, "path", [str(DOCS / "_ext"), *sys.path])
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    module: ModuleType = importlib.import_module("generated")
    return module


def filled(generated: Any, path: Path) -> str:
    """A page as it is built."""
    source = [path.read_text(encoding="utf-8")]
    generated.fill_in(None, path.stem, source)
    return source[0]


@pytest.mark.parametrize("part", PAGES)
def test_every_part_of_the_contract_has_a_page_in_the_book(part: str) -> None:
    path, _ = PAGES[part]
    assert path.read_text(encoding="utf-8").startswith("# ")
    indexes = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("index.md"))
    assert path.stem in indexes


def test_what_a_page_asks_for_is_generated_and_nothing_is_generated_in_vain(generated: Any) -> None:
    asked = [
        mark
        for page in DOCS.rglob("*.md")
        if "_build" not in page.parts
        for mark in generated.MARK.findall(page.read_text(encoding="utf-8"))
    ]
    assert sorted(asked) == sorted(generated.PARTS)
    for path, parts in PAGES.values():
        assert set(parts.split()) <= set(generated.MARK.findall(path.read_text(encoding="utf-8")))


def test_the_http_reference_is_the_whole_document(generated: Any) -> None:
    page = filled(generated, REFERENCE / "http.md")
    for operation in operations(load()):
        assert f"### {operation.operation_id}\n" in page
        section = page.partition(f"### {operation.operation_id}\n")[2].partition("\n### ")[0]
        for status in operation.node["responses"]:
            assert f"\n**{status}** " in section
    for name, schema in load()["components"]["schemas"].items():
        section = page.partition(f"(schema-{name})=")[2].partition("(schema-")[0]
        assert section
        for field in schema.get("properties", {}):
            assert f"| `{field}` |" in section
    for example in re.findall(r"```json\n(.*?)\n```", page, re.DOTALL):
        json.loads(example)


def test_the_states_are_drawn_from_the_table_of_transitions(generated: Any) -> None:
    page = filled(generated, REFERENCE / "states.md")
    for status in Status:
        assert f">\n{status}</text>" in page or f">{status}</text>" in page
    titles = re.findall(r"<title>(\w+) to (\w+): (.*?)</title>", page)
    drawn = {(start, end): causes.split("; ") for start, end, causes in titles}
    wanted: dict[tuple[str, str], list[str]] = {}
    for start, moves in TRANSITIONS.items():
        for cause, end in moves.items():
            if start is not end:
                wanted.setdefault((start, end), []).append(cause.value)
            assert re.search(
                rf"\| {re.escape(cause.value)} \| [^|]*`{start}`[^|]* \| `{end}` \|", page
            )
    assert drawn == wanted
