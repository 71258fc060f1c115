"""Real answers against the document: what comes back must be what ``kallichore.json`` says."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from typing import Final, NoReturn

from tests.contract.document import JSON, Document, load, mismatches, operations, resolve

__all__ = ["check_response", "response_problems"]

OF_NO_OPERATION: Final = {
    "description": "An answer given before, or for want of, an operation.",
    "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
}
WITHOUT_OPERATION: Final = {"400", "403", "404", "405", "408", "413", "426", "431", "500", "503"}


def check_response(
    operation_id: str | None, status: int, content_type: str | None, body: bytes
) -> None:
    """Fail unless this answer is one that the document has for the operation.

    An answer to a request that is no operation's (an unknown path, a wrong method, a bad head) is
    checked with None.
    """
    problems = response_problems(operation_id, status, content_type, body)
    assert not problems, "\n".join([f"{operation_id} answered {status}:", *problems])


def response_problems(
    operation_id: str | None, status: int, content_type: str | None, body: bytes
) -> list[str]:
    """What is not as the document says."""
    document = _strict()
    response = _documented(document, operation_id, str(status))
    if response is None:
        return [f"the document has no {status} for {operation_id}"]
    content = resolve(document, response).get("content")
    if content is None:
        return [f"the body should be empty, and is {_clipped(body)}"] if body else []
    media = (content_type or "").partition(";")[0].strip().lower()
    if media not in content:
        return [f"the content type should be one of {', '.join(content)}, and is {content_type}"]
    return _body_problems(document, content[media]["schema"], media, body)


@cache
def _strict() -> Document:
    """The document, with no room for fields it does not name: clients may send them, not we."""
    document = deepcopy(load())
    _close(document)
    return document


def _close(node: object) -> None:
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            node.setdefault("additionalProperties", False)
        for member in node.values():
            _close(member)
    elif isinstance(node, list):
        for member in node:
            _close(member)


def _documented(document: Document, operation_id: str | None, status: str) -> Document | None:
    if operation_id is None:
        if status == "401":
            return {"description": "A missing or wrong token."}
        return OF_NO_OPERATION if status in WITHOUT_OPERATION else None
    found = [o.node["responses"] for o in operations(document) if o.operation_id == operation_id]
    assert found, f"the document has no operation {operation_id}"
    responses: Document = found[0]
    return responses.get(status)


def _body_problems(document: Document, schema: Document, media: str, body: bytes) -> list[str]:
    if media != JSON:
        return list(mismatches(document, schema, body.decode()))
    try:
        value = json.loads(body.decode(), parse_constant=_no_constant)
    except ValueError as exc:
        return [f"the body should be JSON, and is {_clipped(body)}: {exc}"]
    if value is None and body != b"null":
        return [f"the body should be the four bytes null, and is {_clipped(body)}"]
    if value == {} and schema.get("nullable"):
        return ["the body should be null, and is an empty object"]
    return list(mismatches(document, schema, value))


def _no_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _clipped(body: bytes) -> str:
    return repr(body[:100])
