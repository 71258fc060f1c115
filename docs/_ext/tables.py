"""Tables of bounds and errors, and the help texts of the commands, from the code itself."""

from __future__ import annotations

import ast
import inspect
import os
import re
from contextlib import redirect_stdout, suppress
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import kallichore.errors
from kallichore import config
from kallichore.arguments import configuration
from kallichore.client.command import main as client_main
from kallichore.errors import KallichoreError

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH = 7919
"""How long a placeholder pretends to be, for messages that state a length."""


_COMMON = re.compile(r"  (-h|--json).*\n|  -s ID, .*\n +default: the first session\n?")
"""Options of kcclient's subcommands that most of them have."""


class _Placeholder(str):
    """A value that stands for itself in a message, whatever way it is formatted."""

    __slots__ = ()

    def __format__(self, _spec: str) -> str:
        return str(self)

    def encode(self, *_args: str, **_kwargs: str) -> bytes:
        return bytes(_LENGTH)


def command() -> str:
    """The help text of ``kcserver``."""
    return _fenced(_help_of(lambda: configuration(["--help"], {})))


def client_command() -> str:
    """The help text of ``kcclient``, and of each subcommand what is its own."""
    whole = _help_of(lambda: client_main(["--help"]))
    parts = [_fenced(whole)]
    for name in re.findall(r"^    ([a-z-]+) ", whole, re.MULTILINE):
        text = _help_of(lambda name=name: client_main([name, "--help"]))  # type: ignore[misc]
        summary, _, options = text.partition("\n\n")[2].partition("\n\n")
        own = _COMMON.sub("", options.partition("\nserver:\n")[0]).strip().removesuffix("options:")
        if own:
            parts.append(f"### {name}\n\n{summary}\n\n{_fenced(own)}")
    return "\n\n".join(parts)


def _help_of(run: Callable[[], object]) -> str:
    os.environ["COLUMNS"] = "100"
    os.environ["NO_COLOR"] = "1"
    said = StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        run()
    return said.getvalue()


def _fenced(text: str) -> str:
    return f"```text\n{text.strip()}\n```"


def limits() -> str:
    """`Limits`: name, standard value, meaning."""
    return _bounds("Limits")


def deadlines() -> str:
    """`Deadlines`: the same."""
    return _bounds("Deadlines")


def client_bounds() -> str:
    """`ClientBounds`: the same."""
    return _bounds("ClientBounds")


def _bounds(class_name: str) -> str:
    values = getattr(config, class_name)()
    rows = ["| name | default | what it bounds |", "|---|---|---|"]
    for name, text in _documented_fields(class_name):
        value = getattr(values, name)
        meaning = " ".join(text.split())
        rows.append(f"| `{name}` | {_readable(name, value)} | {meaning} |")
    return "\n".join(rows)


def _readable(name: str, value: float) -> str:
    if name.endswith("_seconds"):
        return f"{value:g} s"
    if "bytes" in name:
        for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
            if value >= size and value % size == 0:
                return f"{value // size:g} {unit}"
        return f"{value} bytes"
    return str(value)


def _documented_fields(class_name: str) -> list[tuple[str, str]]:
    """Each field of a class in config.py with the docstring below it."""
    tree = ast.parse(Path(inspect.getfile(config)).read_text(encoding="utf-8"))
    body = next(n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name)
    return [
        (field.target.id, ast.literal_eval(text.value))
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr)
    ]


def errors() -> str:
    """Every error a client can be told of: code, status, message, when."""
    classes = [
        thing
        for thing in vars(kallichore.errors).values()
        if inspect.isclass(thing) and issubclass(thing, KallichoreError)
        if thing is not KallichoreError
    ]
    rows = ["| code | HTTP status | message | when |", "|---|---|---|---|"]
    for error in sorted(classes, key=_order):
        when = " ".join((inspect.getdoc(error) or "").replace("``", "`").split())
        rows.append(f"| `{error.code}` | {error.status} | {_message(error)} | {when} |")
    return "\n".join(rows)


def _order(error: type[KallichoreError]) -> tuple[bool, int, str]:
    numbered = error.code.startswith("KS-")
    return not numbered, int(error.code.removeprefix("KS-")) if numbered else 0, error.code


def _message(error: type[KallichoreError]) -> str:
    """The message with its parameters' names in place of their values."""
    if error.empty_body:
        return "(empty body)"
    if "__init__" not in vars(error):
        return "a sentence"
    names = [name for name in inspect.signature(error).parameters if name != "details"]
    message = error(*(_Placeholder(f"{{{name}}}") for name in names)).message
    return f"`{message.replace(str(_LENGTH), '{length}')}`"
