"""``kallichore.json`` itself: reading it, following its references, and what must hold in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openapi_schema_validator import OAS30Validator, oas30_format_checker
from openapi_spec_validator import OpenAPIV30SpecValidator

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "JSON",
    "METHODS",
    "Document",
    "Operation",
    "check_document",
    "load",
    "mismatches",
    "operations",
    "resolve",
    "spelled",
]

PATH = Path(__file__).parents[2] / "kallichore.json"
METHODS = ("get", "put", "post", "delete", "patch", "head", "options", "trace")
JSON = "application/json"

Document = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """One operation of the document, and where it stands."""

    operation_id: str
    method: str
    path: str
    node: Document


def load() -> Document:
    """The document of this project."""
    document: Document = json.loads(PATH.read_text(encoding="utf-8"))
    return document


def resolve(document: Document, node: Document) -> Document:
    """The node itself, or what its ``$ref`` stands for."""
    while "$ref" in node:
        target = document
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = target
    return node


def operations(document: Document) -> Iterator[Operation]:
    """All operations, in the document's order."""
    for path, item in document["paths"].items():
        for method, node in item.items():
            if method in METHODS:
                yield Operation(node.get("operationId", ""), method.upper(), path, node)


def spelled(path: Iterable[str | int]) -> str:
    """A JSON path as people write it."""
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in path]
    return "".join(steps).removeprefix(".")


def mismatches(document: Document, schema: Document, value: object) -> Iterator[str]:
    """In what ways a value is not as its schema says."""
    whole = {**schema, "components": document["components"]}
    for error in OAS30Validator(whole, format_checker=oas30_format_checker).iter_errors(value):
        place = spelled(error.absolute_path)
        yield f"{place}: {error.message}" if place else error.message


def check_document(document: Document) -> Iterator[str]:
    """What is wrong with the document by itself."""
    yield from _invalid(document)
    yield from _conventions(document)
    for place, holder, media in _examples_wanted(document):
        values = list(_examples(document, holder))
        if media and not values:
            yield f"{place}: there is no example"
        for value in values:
            for what in mismatches(document, holder["schema"], value):
                yield f"{place}: the example does not fit its schema: {what}"


def _invalid(document: Document) -> Iterator[str]:
    if document["openapi"] != "3.0.1":
        yield f"the document says OpenAPI {document['openapi']}, and 3.0.1 was agreed"
    for error in OpenAPIV30SpecValidator(document).iter_errors():
        what = error.message.partition("\n")[0]
        yield f"{spelled(error.absolute_path) or 'the document'}: {what}"


def _conventions(document: Document) -> Iterator[str]:
    """What front ends' generators need of it, beyond being valid."""
    if "tags" in document:
        yield "the document has tags, which rename the classes that front ends generate"
    for operation in operations(document):
        yield from _unconventional(operation)
    for name, schema in document["components"]["schemas"].items():
        yield from _undescribed(name, schema)


def _unconventional(operation: Operation) -> Iterator[str]:
    name, node = operation.operation_id, operation.node
    is_open = node.get("security") == []
    for key in ("operationId", "summary", "description"):
        if not node.get(key):
            yield f"{operation.method} {operation.path}: there is no {key}"
    if "tags" in node:
        yield f"{name}: has tags, which rename the classes that front ends generate"
    if is_open and name != "server-status":
        yield f"{name}: only server-status is open to all"
    if not is_open and "401" not in node["responses"]:
        yield f"{name}: needs a token, but does not say what comes without one (401)"


def _undescribed(place: str, schema: Document) -> Iterator[str]:
    if "description" not in schema:
        yield f"{place}: there is no description"
    for name, member in schema.get("properties", {}).items():
        if "$ref" not in member:
            yield from _undescribed(f"{place}.{name}", member)


def _examples_wanted(document: Document) -> Iterator[tuple[str, Document, bool]]:
    """All that has a schema and may have an example: parameters, headers, bodies."""
    for operation in operations(document):
        name, node = operation.operation_id, operation.node
        item = document["paths"][operation.path]
        for parameter in [*item.get("parameters", []), *node.get("parameters", [])]:
            found = resolve(document, parameter)
            yield f"{name} {found['name']}", found, False
        if "requestBody" in node:
            yield from _media(document, f"{name} request", node["requestBody"])
        for status, response in node["responses"].items():
            yield from _media(document, f"{name} {status}", response)
            for header, found in resolve(document, response).get("headers", {}).items():
                yield f"{name} {status} {header}", resolve(document, found), False


def _media(
    document: Document, place: str, holder: Document
) -> Iterator[tuple[str, Document, bool]]:
    for media in resolve(document, holder).get("content", {}).values():
        yield place, media, True


def _examples(document: Document, holder: Document) -> Iterator[object]:
    if "example" in holder:
        yield holder["example"]
    for example in holder.get("examples", {}).values():
        yield resolve(document, example)["value"]
