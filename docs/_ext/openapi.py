"""The HTTP reference, from kallichore.json."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = Path(__file__).parents[2] / "kallichore.json"
METHODS = ("get", "put", "post", "delete")
HEADING = re.compile(r"^(#+ )", re.MULTILINE)

Node = dict[str, Any]


@cache
def _document() -> Node:
    document: Node = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    return document


def operations() -> str:
    """Every operation: what it takes, what it answers, examples."""
    blocks = [
        block
        for path, item in _document()["paths"].items()
        for method in METHODS
        if method in item
        for block in _operation(method, path, item)
    ]
    return "\n\n".join(blocks)


def schemas() -> str:
    """Every schema: its fields, or its words."""
    named = _document()["components"]["schemas"]
    return "\n\n".join(block for name, schema in named.items() for block in _schema(name, schema))


def _operation(method: str, path: str, item: Node) -> Iterator[str]:
    operation = item[method]
    yield f"({operation['operationId']})=\n### {operation['operationId']}"
    yield f"```http\n{method.upper()} {path} HTTP/1.1\n```"
    yield _text(operation)
    parameters = [
        _resolved(part) for part in [*item.get("parameters", []), *operation.get("parameters", [])]
    ]
    if parameters:
        yield _table(
            ("parameter", "in", "type", "meaning"),
            [(f"`{p['name']}`", p["in"], _type(p["schema"]), _cell(_text(p))) for p in parameters],
        )
    if "requestBody" in operation:
        body = _resolved(operation["requestBody"])
        need = "Body" if body.get("required") else "Body (optional)"
        yield from _content(f"**{need}**", body)
    yield from _responses(operation["responses"])


def _responses(responses: Node) -> Iterator[str]:
    for status, response in responses.items():
        resolved = _resolved(response)
        yield from _content(f"**{status}** {resolved['description']}", resolved)


def _content(title: str, holder: Node) -> Iterator[str]:
    kinds = holder.get("content", {})
    if not kinds:
        yield title
    for media_type, content in kinds.items():
        note = "" if media_type == "application/json" else f" ({media_type})"
        yield f"{title} — {_type(content.get('schema', {}))}{note}"
        yield from _examples(content)


def _examples(content: Node) -> Iterator[str]:
    examples = {"": content} if "example" in content else content.get("examples", {})
    for example in examples.values():
        resolved = _resolved(example)
        value = resolved.get("value", resolved.get("example"))
        if "summary" in resolved:
            yield f"{resolved['summary']}:"
        yield f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"


def _schema(name: str, schema: Node) -> Iterator[str]:
    yield f"(schema-{name})=\n### {name}"
    yield _text(schema)
    if "properties" in schema:
        required = schema.get("required", [])
        yield _table(
            ("field", "type", "", "meaning"),
            [
                (
                    f"`{field}`",
                    _type(part),
                    "required" if field in required else "",
                    _cell(_text(part)),
                )
                for field, part in schema["properties"].items()
            ],
        )
    else:
        yield _type(schema)
    if "example" in schema:
        yield from _examples(schema)


def _type(schema: Node) -> str:
    """What a value looks like, in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#schema-{name})"
    if "allOf" in schema:
        return " and ".join(_type(part) for part in schema["allOf"])
    if "oneOf" in schema or "anyOf" in schema:
        return " or ".join(_type(part) for part in schema.get("oneOf") or schema["anyOf"])
    if "enum" in schema:
        return ", ".join("null" if word is None else f"`{word}`" for word in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return _plain_type(schema)


def _plain_type(schema: Node) -> str:
    words: str = schema.get("type", "any JSON")
    bounds = [f"≥ {schema['minimum']}"] if "minimum" in schema else []
    if "maximum" in schema:
        bounds.append(f"≤ {schema['maximum']}")
    if "maxLength" in schema:
        bounds.append(f"at most {schema['maxLength']} characters")
    if "default" in schema:
        bounds.append(f"default `{json.dumps(schema['default'])}`")
    if schema.get("nullable"):
        bounds.append("or null")
    return f"{words} {', '.join(bounds)}".strip()


def _resolved(node: Node) -> Node:
    """The node itself, or what its reference points to."""
    while "$ref" in node:
        target: Node = _document()
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = target
    return node


def _text(node: Node) -> str:
    """Summary and description, whichever there are; its headings are below that of their owner."""
    parts = [node.get("summary", "").rstrip("."), node.get("description", "")]
    return HEADING.sub(r"#\1", ". ".join(part for part in parts if part))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
