"""What is behind the door, Hypercorn and the application, loaded when it is first needed.

Importing the two takes longer than everything else at start together, and a client that waits for
the server asks for nothing but its status, which the door answers by itself.
"""

from __future__ import annotations

from email.utils import formatdate
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec
import trio

from kallichore.memory import keep_what_is_loaded
from kallichore.web.refusal import new_span

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.config import Config as HypercornConfig

    from kallichore.config import Config
    from kallichore.models import ServerStatus
    from kallichore.web.app import Application
    from kallichore.web.inbound import Head
    from kallichore.web.reception import Connection

__all__ = ["MODULES", "Behind", "asks_for_status", "status_response"]

MODULES = ("kallichore.web.app", "kallichore.web.exchange")
"""What the first request but `/status` needs: Quart and Hypercorn."""


def asks_for_status(head: Head) -> bool:
    """Whether it is nothing but a request for the server's status."""
    if head.method != "GET" or head.path != "/status":
        return False
    return not (head.values(b"transfer-encoding") or head.values(b"content-length"))


def status_response(status: ServerStatus, head: Head) -> bytes:
    """The whole answer to it, as the application would give it."""
    body = msgspec.json.encode(status)
    lines = [
        b"HTTP/1.1 200 OK",
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-span-id: " + (head.span or new_span()),
        b"date: " + formatdate(usegmt=True).encode(),
    ]
    if head.is_last:
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, b"", body])


class Behind:
    """The application and Hypercorn, for exchanges that the door does not serve by itself."""

    def __init__(self, config: Config, make: Callable[[], Application]) -> None:
        """Load nothing yet; ``make`` makes the application once its modules are there."""
        self._config = config
        self._make = make
        self._loading = trio.Lock()
        self._app: Application | None = None
        self._hypercorn: HypercornConfig | None = None

    async def load(self) -> None:
        """Import what it takes, in another thread, so that channels and `/status` go on.

        Cancelling it is harmless: whoever calls it next begins anew.
        """
        async with self._loading:
            if self._app is None:
                for module in MODULES:
                    await trio.to_thread.run_sync(import_module, module, abandon_on_cancel=True)
                from kallichore.web.exchange import hypercorn_config  # noqa: PLC0415

                self._hypercorn = hypercorn_config(self._config.limits)
                self._app = self._make()
                keep_what_is_loaded()

    async def serve(self, connection: Connection, head: Head) -> bool:
        """Serve a request; whether the connection can be used for another one.

        Raises:
            Refused: The body is malformed, and no answer has left yet.

        """
        await self.load()
        assert self._app is not None  # noqa: S101 (loaded above)
        assert self._hypercorn is not None  # noqa: S101 (the same)
        from kallichore.web.exchange import Exchange  # noqa: PLC0415

        exchange = Exchange(connection, head, self._config.deadlines)
        return await exchange.run(self._app, self._hypercorn)
