"""The Quart application: routes from `operations`, bodies through msgspec, errors to answers.

In front of Quart stands a small ASGI layer, `Application`: it asks `access` who may come in, hands
paths on undecoded (a session id may contain a slash), and gives each answer its ``X-Span-ID``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug import exceptions as http

from kallichore.body import decode_body, decode_optional_body
from kallichore.errors import (
    BadRequest,
    BodyTooLarge,
    InternalError,
    KallichoreError,
    MethodNotAllowed,
    NotFound,
    SessionNotFound,
    StartupFailed,
)
from kallichore.log import current_session
from kallichore.models import Error
from kallichore.web.exchange import HEED_HANG_UP
from kallichore.web.operations import OPERATIONS, AdoptionFailed, Call, Operation
from kallichore.web.refusal import Refused, new_span

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trio
    from hypercorn.typing import (
        ASGIReceiveCallable,
        ASGIReceiveEvent,
        ASGISendCallable,
        HTTPScope,
    )

    from kallichore.config import Config
    from kallichore.session import Session
    from kallichore.supervisor import Supervisor
    from kallichore.web.access import Access

__all__ = ["Application"]

_OPEN = {
    (method, operation.path)
    for operation in OPERATIONS
    if operation.is_open
    for method in (operation.method, "HEAD")
}

_STARTS = {operation.operation_id for operation in OPERATIONS if operation.starts_kernel}
_BODY = "kallichore.body"
"""A scope extension: the request's `_Body`."""
_BODY_TOO_SLOW = "The request's body did not arrive in time"

log = logging.getLogger(__name__)


class _Body:
    """A request's body on its way to Quart, which never gets more than the limit of it.

    Quart has a limit too, but from 0.23 on only for bodies that announce their length.
    """

    def __init__(self, receive: ASGIReceiveCallable, limit: int) -> None:
        self.is_too_large = False
        self.is_over = False
        """Whether the caller is gone, or has its answer."""
        self._receive = receive
        self._left = limit

    async def receive(self) -> ASGIReceiveEvent:
        """The next part; a body that is too large ends early, and the rest of it is forgotten."""
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                self.is_over = True
                return message
            if self.is_too_large:
                continue
            self._left -= len(message["body"])
            if self._left >= 0:
                return message
            self.is_too_large = True
            return {"type": "http.request", "body": b"", "more_body": False}


class Application:
    """The API as an ASGI application."""

    def __init__(
        self,
        supervisor: Supervisor,
        access: Access,
        config: Config,
        serve_session: Callable[[Session, trio.SocketListener], Awaitable[None]] | None,
    ) -> None:
        self._supervisor = supervisor
        self._access = access
        self._body_bytes = config.limits.body_bytes
        self._serve_session = serve_session
        self._quart = self._build(config)

    async def __call__(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Answer one request."""
        fields = dict(scope["headers"])
        span = fields.get(b"x-span-id") or new_span()
        path = scope["raw_path"].decode("ascii")

        async def respond(message: Any) -> None:  # noqa: ANN401 (any of ASGI's messages)
            if message["type"] == "http.response.start":
                log.debug("%s %s: %s", scope["method"], path, message["status"])
                message["headers"] = [*message["headers"], (b"x-span-id", span)]
            await send(message)

        try:
            token_needed = (scope["method"], path) not in _OPEN
            self._access.check(tuple(scope["headers"]), token_needed=token_needed)
            if path.startswith("//"):
                raise Refused.by(NotFound(path))  # the router would take it for one slash
        except Refused as refused:
            await _refuse(refused, respond)
            return
        fields[b"host"] = b"localhost"  # it has been judged, and may be any on a Unix socket
        body = _Body(receive, self._body_bytes)
        inner: Any = {
            **scope,
            "path": path,
            "headers": list(fields.items()),
            "extensions": {**scope["extensions"], _BODY: {"body": body}},
        }
        try:
            await self._quart(inner, body.receive, respond)
        except Exception as error:
            if not body.is_over:
                raise
            log.debug("Nobody waits for the answer any more: %r", error)  # Quart 0.23 says so

    def _build(self, config: Config) -> QuartTrio:
        app = QuartTrio("kallichore", static_folder=None)
        app.config.update(
            BODY_TIMEOUT=config.deadlines.body_seconds,
            MAX_CONTENT_LENGTH=self._body_bytes,
            PROVIDE_AUTOMATIC_OPTIONS=False,
            RESPONSE_TIMEOUT=None,
        )
        app.url_map.merge_slashes = False
        for operation in OPERATIONS:
            app.add_url_rule(
                operation.path.replace("{", "<").replace("}", ">"),
                operation.operation_id,
                self._view(operation),
                methods=[operation.method],
            )
        app.register_error_handler(Exception, self._answer_to_error)
        return app

    def _view(self, operation: Operation[Any]) -> Callable[..., Awaitable[Response]]:
        """What Quart calls for an operation: first the body, then the session, then the rest."""

        async def view(session_id: str = "") -> Response:
            if operation.ends_with_caller and HEED_HANG_UP in request.scope["extensions"]:
                request.scope["extensions"][HEED_HANG_UP]["heed"]()
            body = await _read_body(operation)
            session_id = _decoded(session_id)
            current_session.set(session_id or None)
            call = Call(
                supervisor=self._supervisor,
                session_id=session_id,
                body=body,
                serve_session=self._serve_session,
            )
            value = await operation.carry_out(call)
            if isinstance(value, bytes):
                return Response(value, 200, content_type=operation.content_type)
            return _json(200, value)

        return view

    async def _answer_to_error(self, error: Exception) -> Response:
        """Every error becomes an answer here."""
        if isinstance(error, http.HTTPException):
            return self._answer_to_http_error(error)
        if isinstance(error, Refused):
            return _refusal(error)
        if isinstance(error, AdoptionFailed):
            return _json(500, error.error.to_model())
        if not isinstance(error, KallichoreError | StartupFailed):
            log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
            error = InternalError()
        if isinstance(error, KallichoreError) and error.status == 500 and _starts_kernel():  # noqa: PLR2004
            error = StartupFailed(error)
        if isinstance(error, StartupFailed):
            return _json(error.status, error.to_model())
        return _empty(error.status) if error.empty_body else _json(error.status, error.to_model())

    def _answer_to_http_error(self, error: http.HTTPException) -> Response:
        """Quart's own errors, in our words."""
        if isinstance(error, http.NotFound):
            return _json(404, NotFound(request.scope["path"]).to_model())
        if isinstance(error, http.MethodNotAllowed):
            answer = _json(405, MethodNotAllowed(request.method, request.scope["path"]).to_model())
            answer.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
            return answer
        if isinstance(error, http.RequestEntityTooLarge):
            return _json(413, BodyTooLarge(self._body_bytes).to_model())
        if isinstance(error, http.RequestTimeout):
            return _json(408, Error(code="timeout", message=_BODY_TOO_SLOW))
        return _json(400, BadRequest(error.description or error.name).to_model())


def _starts_kernel() -> bool:
    rule = request.url_rule
    return rule is not None and rule.endpoint in _STARTS


async def _read_body(operation: Operation[Any]) -> msgspec.Struct | None:
    if operation.body is None:
        return None
    data = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    if request.scope["extensions"][_BODY]["body"].is_too_large:
        raise http.RequestEntityTooLarge
    decode = decode_optional_body if operation.body_is_optional else decode_body
    return decode(operation.body, data)


def _decoded(session_id: str) -> str:
    try:
        return unquote(session_id, errors="strict")
    except UnicodeDecodeError:
        raise SessionNotFound(session_id) from None


def _json(status: int, value: object) -> Response:
    return Response(msgspec.json.encode(value), status, content_type="application/json")


def _empty(status: int) -> Response:
    answer = Response(b"", status)
    del answer.headers["Content-Type"]
    return answer


def _refusal(refused: Refused) -> Response:
    answer = _json(refused.status, refused.error) if refused.error else _empty(refused.status)
    for name, value in refused.headers:
        answer.headers[name.decode()] = value.decode()
    return answer


async def _refuse(refused: Refused, respond: Callable[[Any], Awaitable[None]]) -> None:
    """Answer in place of Quart."""
    body = b"" if refused.error is None else msgspec.json.encode(refused.error)
    headers = [(b"content-length", b"%d" % len(body)), *refused.headers]
    if body:
        headers.append((b"content-type", b"application/json"))
    await respond({"type": "http.response.start", "status": refused.status, "headers": headers})
    await respond({"type": "http.response.body", "body": body, "more_body": False})
