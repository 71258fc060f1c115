"""The rules of the house that no linter knows: sizes, docstrings, imports, bounds, leftovers."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "kallichore").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
CONFIG = ROOT / "kallichore" / "config.py"
BOUNDS = ("Limits", "Deadlines", "ClientBounds")

BANNED_MODULES = {"asyncio", "anyio", "threading"}
BANNED_ATTRIBUTES = {"time.sleep", "sys.platform", "os.name"}
LEFTOVERS = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError|not (yet )?implemented)\b")
HOPES = {"pytest.skip", "pytest.xfail", "mark.skip", "mark.skipif", "mark.xfail", "time.sleep"}
SCRIPTS = {"kernels", "bench"}
"""Folders of tests whose files run as processes of their own, and may sleep in them."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), name_of(path))


def imported(tree: ast.Module) -> set[str]:
    """The top-level packages that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def dotted(tree: ast.Module) -> set[str]:
    """Everything like ``name.attribute`` in a module, imported by ``from`` or not."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            found.add(f"{owner}.{node.attr}")
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_short_sleep(node: ast.AST) -> bool:
    """Whether this is a ``trio.sleep`` of less than a second, which waits for luck."""
    return (
        isinstance(node, ast.Call)
        and ast.unparse(node.func) == "trio.sleep"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(seconds := node.args[0].value, float)
        and seconds < 1
    )


def bounds_of(class_name: str) -> dict[str, str]:
    """The fields of a class in config.py, and the docstring below each one."""
    for node in tree_of(CONFIG).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return _documented_fields(node)
    return {}


def _documented_fields(node: ast.ClassDef) -> dict[str, str]:
    fields: dict[str, str] = {}
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = str(following.value.value)
            fields[statement.target.id] = text
    return fields


@pytest.mark.parametrize("path", PACKAGE + TESTS, ids=name_of)
def test_a_file_can_be_read_at_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", PACKAGE + TESTS, ids=name_of)
def test_a_module_says_what_it_owns(path: Path) -> None:
    tree = tree_of(path)
    assert not tree.body or ast.get_docstring(tree)


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_a_module_keeps_to_trio_and_leaves_platforms_to_their_package(path: Path) -> None:
    tree = tree_of(path)
    assert not imported(tree) & BANNED_MODULES
    if path.parent.name != "_platform":
        assert not dotted(tree) & BANNED_ATTRIBUTES


@pytest.mark.parametrize("path", PACKAGE + TESTS, ids=name_of)
def test_nothing_is_left_for_later(path: Path) -> None:
    if path != Path(__file__):
        assert not LEFTOVERS.findall(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_a_test_neither_skips_nor_hopes(path: Path) -> None:
    tree = tree_of(path)
    if path.parent.name not in SCRIPTS:
        assert not dotted(tree) & HOPES
    assert [ast.unparse(node) for node in ast.walk(tree) if is_short_sleep(node)] == []


@pytest.mark.parametrize("class_name", BOUNDS)
def test_every_bound_says_what_it_bounds(class_name: str) -> None:
    fields = bounds_of(class_name)
    assert fields
    assert [name for name, text in fields.items() if not text] == []


@pytest.mark.parametrize("class_name", BOUNDS)
def test_every_bound_bounds_something(class_name: str) -> None:
    used = {
        node.attr
        for path in PACKAGE
        if path != CONFIG
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute)
    }
    assert [name for name in bounds_of(class_name) if name not in used] == []
