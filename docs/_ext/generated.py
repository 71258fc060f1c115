"""A Sphinx extension that fills in the parts of pages that are written elsewhere already.

A page says ``<!-- generated: NAME -->`` where a part belongs. So the HTTP reference is
kallichore.json, the states are the transition table, and nothing is written twice.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import openapi
import states
import tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from sphinx.application import Sphinx

PARTS: dict[str, Callable[[], str]] = {
    "command": tables.command,
    "client-command": tables.client_command,
    "deadlines": tables.deadlines,
    "client-bounds": tables.client_bounds,
    "errors": tables.errors,
    "limits": tables.limits,
    "operations": openapi.operations,
    "schemas": openapi.schemas,
    "states-drawing": states.drawing,
    "states-table": states.table,
}
MARK = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)


def fill_in(_app: Sphinx, _name: str, source: list[str]) -> None:
    """Put each generated part where the page asks for it."""
    source[0] = MARK.sub(lambda mark: PARTS[mark[1]](), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Have every page pass through `fill_in`."""
    app.connect("source-read", fill_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
