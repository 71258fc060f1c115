"""One HTTP exchange with a server: sends it, decodes the answer, and turns failure into our errors.

Everything that knows httpx is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

import httpx
import msgspec

from kallichore import models
from kallichore.client.errors import (
    RequestFailed,
    ServerGone,
    SessionUnknown,
    StartFailed,
    TokenRefused,
    UnexpectedAnswer,
    UnusableRequest,
)

if TYPE_CHECKING:
    from kallichore.client.target import Target
    from kallichore.config import ClientBounds

__all__ = ["Http"]

T = TypeVar("T")


class Http:
    """Keep-alive connections to one server.

    There are no time limits: how long an answer may take is the caller's to say, with
    `trio.fail_after`. Cancelling an exchange closes its connection and leaves the others alone.
    """

    def __init__(self, target: Target, bounds: ClientBounds) -> None:
        """Prepare connections to ``target``; none is opened before the first request."""
        self._target = target
        headers = {} if target.token is None else {"Authorization": f"Bearer {target.token}"}
        # The environment's proxies have no business between us and a loopback address.
        self._client = httpx.AsyncClient(
            base_url=target.base_url,
            headers=headers,
            transport=httpx.AsyncHTTPTransport(
                uds=target.socket_path,
                trust_env=False,
                limits=httpx.Limits(max_connections=bounds.connections),
            ),
            timeout=None,  # noqa: S113 - deadlines belong to the caller
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def ask_text(self, method: str, path: str) -> str:
        """Send a request and return its answer as text. Raises as `ask`."""
        return (await self._successful(method, path, None)).text

    async def ask(self, method: str, path: str, answer: type[T], body: object = None) -> T:
        """Send a request and decode its answer as ``answer``; ``body`` of None sends no body.

        Raises:
            ServerGone: if there is no connection, or it broke.
            RequestFailed: if the server refused.
            UnexpectedAnswer: if the answer is not of that type.
        """
        response = await self._successful(method, path, body)
        try:
            return msgspec.json.decode(response.content, type=answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise UnexpectedAnswer(
                f"{self._target} answered {method} {path} with something else than expected: {exc}."
            ) from exc

    async def _successful(self, method: str, path: str, body: object) -> httpx.Response:
        response = await self._exchange(method, path, body)
        if not response.is_success:
            raise refusal(response.status_code, response.content, path)
        return response

    async def _exchange(self, method: str, path: str, body: object) -> httpx.Response:
        try:
            content = None if body is None else msgspec.json.encode(body)
        except UnicodeEncodeError as exc:  # a file's name that is no UTF-8
            raise UnusableRequest(f"{exc.object!r} is no text that JSON could carry.") from exc
        headers = {} if content is None else {"Content-Type": "application/json"}
        try:
            return await self._client.request(method, path, content=content, headers=headers)
        except httpx.ConnectError as exc:
            raise ServerGone(f"No server answers at {self._target}.") from exc
        except httpx.TransportError as exc:
            why = str(exc).rstrip(".") or type(exc).__name__
            raise ServerGone(
                f"The server at {self._target} went away during {method} {path}: {why}."
            ) from exc


def refusal(status: int, content: bytes, path: str) -> RequestFailed:
    """Make the error of an answer that is no success; ``path`` is named where there is no body."""
    if status == httpx.codes.UNAUTHORIZED:
        return TokenRefused(
            status, "unauthorized", "The server wants a token, or another token than this one."
        )
    if status == httpx.codes.NOT_FOUND and not content:
        return SessionUnknown(status, "KS-1", f"There is no session {_session_in(path)}.")
    startup = _try(content, models.StartupError)
    if startup is not None:
        error = startup.error
        return StartFailed(
            status,
            error.code,
            error.message,
            error.details,
            exit_code=startup.exit_code,
            output=startup.output,
        )
    plain = _try(content, models.Error)
    if plain is not None:
        return RequestFailed(status, plain.code, plain.message, plain.details)
    text = " ".join(content[:200].decode("utf-8", "replace").split())
    return RequestFailed(status, f"http_{status}", f"The server answered {status} {text}".rstrip())


def _session_in(path: str) -> str:
    """Name the session of a path ``/sessions/{id}…``."""
    parts = path.split("/")
    return repr(unquote(parts[2])) if len(parts) > len(("", "sessions")) else "here"


def _try(content: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
