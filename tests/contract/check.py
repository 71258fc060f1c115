"""``python -m tests.contract.check``: are document, models, routes and client in step?

Prints one line for each thing that is not, and exits with 1 if there is any.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from tests.contract.document import JSON, Document, Operation, check_document, load, operations
from tests.contract.shapes import check_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["check", "check_client", "check_routes", "main"]

CLIENT_METHODS = {
    "adopt-session": "adopt_session",
    "channels-upgrade": "channels_upgrade",
    "client-heartbeat": "client_heartbeat",
    "connection-info": "connection_info",
    "delete-session": "delete_session",
    "execute-code": "execute_code",
    "get-metrics": "get_metrics",
    "get-server-configuration": "get_server_configuration",
    "get-session": "get_session",
    "get-session-history": "get_session_history",
    "interrupt-session": "interrupt_session",
    "kill-session": "kill_session",
    "list-sessions": "list_sessions",
    "new-session": "new_session",
    "restart-session": "restart_session",
    "server-status": "server_status",
    "set-server-configuration": "set_server_configuration",
    "shutdown-server": "shutdown_server",
    "start-session": "start_session",
}
"""Which method of `kallichore.client.Client` asks for which operation."""


class Route(Protocol):
    """What the server's table of operations says of each."""

    @property
    def operation_id(self) -> str:
        """As in the document."""

    @property
    def method(self) -> str:
        """In capitals."""

    @property
    def path(self) -> str:
        """With ``{session_id}`` where the id goes."""

    @property
    def body(self) -> type | None:
        """The model of the request's body, if it has one."""

    @property
    def body_is_optional(self) -> bool:
        """Whether the body may be left out."""

    @property
    def is_open(self) -> bool:
        """Whether it needs no token."""


def check_routes(document: Document, routes: Iterable[Route]) -> Iterator[str]:
    """Operations of the document that the server does not have, and the other way round."""
    described = {(o.operation_id, o.method, o.path): o for o in operations(document)}
    served = {(r.operation_id, r.method, r.path): r for r in routes}
    for name, method, path in sorted({*described} - {*served}):
        yield f"{name}: no route {method} {path}"
    for name, method, path in sorted({*served} - {*described}):
        yield f"{name}: {method} {path} is served, but the document does not have it"
    for key in sorted({*served} & {*described}):
        yield from _check_route(described[key], served[key])


def _check_route(operation: Operation, route: Route) -> Iterator[str]:
    """An operation that both have: its body, and whether it needs a token."""
    name, node = operation.operation_id, operation.node
    described, served = _body_of(node), "none"
    if route.body is not None:
        served = f"{'optional' if route.body_is_optional else 'required'} {route.body.__name__}"
    if described != served:
        yield f"{name}: its body is {described} in the document and {served} in the server"
    if (node.get("security") == []) != route.is_open:
        yield f"{name}: document and server disagree on whether it needs a token"


def _body_of(node: Document) -> str:
    if "requestBody" not in node:
        return "none"
    body = node["requestBody"]
    needed = "required" if body.get("required", False) else "optional"
    return f"{needed} {body['content'][JSON]['schema']['$ref'].rpartition('/')[2]}"


def check_client(document: Document, client: type) -> Iterator[str]:
    """Operations that the client library has no method for."""
    names = {operation.operation_id for operation in operations(document)}
    for name in sorted(names):
        method = CLIENT_METHODS.get(name)
        if method is None:
            yield f"{name}: tests/contract/check.py does not say which client method it is"
        elif not callable(getattr(client, method, None)):
            yield f"{name}: kallichore.client.Client has no method {method}"
    for name in sorted({*CLIENT_METHODS} - names):
        yield f"{name}: tests/contract/check.py has it, but the document does not"


def check() -> Iterator[str]:
    """Everything that is out of step in this project."""
    document = load()
    yield from check_document(document)

    def models(module: object) -> Iterator[str]:
        names: list[str] = vars(module)["__all__"]
        yield from check_models(document, {name: vars(module)[name] for name in names})

    yield from _of("kallichore.models", models)
    yield from _of(
        "kallichore.web.operations", lambda m: check_routes(document, vars(m)["OPERATIONS"])
    )
    yield from _of("kallichore.client", lambda m: check_client(document, m.Client))  # type: ignore[attr-defined]


def _of(name: str, part: Callable[[object], Iterator[str]]) -> Iterator[str]:
    """One part of the check, on a module that may not even be importable."""
    try:
        module = import_module(name)
    except ImportError as exc:
        yield f"{name} cannot be imported: {exc}"
    else:
        yield from part(module)


def main() -> int:
    """Print what is out of step; 1 if anything is."""
    lines = list(check())
    for line in lines:
        print(line)
    if not lines:
        print("kallichore.json, models, routes and client are in step.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
