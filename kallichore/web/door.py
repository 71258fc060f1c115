"""The door: sorts what comes in on the server's listener and on the sockets of sessions.

On the main listener a request for a channel goes to its session, one for the server's status is
answered at once, and every other one goes through Hypercorn to the application. On a session's own
socket everything but a channel is refused. One task serves one connection; its failure ends nothing
else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from kallichore.config import Transport
from kallichore.errors import KallichoreError
from kallichore.log import current_session
from kallichore.nurseries import SessionGone
from kallichore.web import upgrade
from kallichore.web.access import Access
from kallichore.web.behind import Behind, asks_for_status, status_response
from kallichore.web.reception import Reception
from kallichore.web.refusal import Refused
from kallichore.web.websocket import WebSocket

if TYPE_CHECKING:
    from kallichore.config import Config
    from kallichore.session import Session
    from kallichore.supervisor import Supervisor
    from kallichore.web.app import Application
    from kallichore.web.inbound import Head
    from kallichore.web.reception import Connection

__all__ = ["Door"]

log = logging.getLogger(__name__)


class Door:
    """Where clients come in."""

    def __init__(self, config: Config, supervisor: Supervisor, token: str | None) -> None:
        """Guard ``supervisor`` with ``token``; None turns authentication off."""
        self._config = config
        self._supervisor = supervisor
        self._is_tcp = config.transport is Transport.TCP
        self._access = Access(token, loopback_hosts_only=self._is_tcp)
        self._behind = Behind(config, self._application)
        self._reception = Reception(config, self._serve)

    async def run(
        self,
        listener: trio.SocketListener,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve the main listener, which is ours from now on, until `close` has had its effect.

        Cancelling it closes every connection at once.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._behind.load, name="load the application")
            await self._reception.run(listener, task_status=task_status)
            nursery.cancel_scope.cancel(reason="the door is closed")

    def _application(self) -> Application:
        from kallichore.web.app import Application  # noqa: PLC0415 (see `Behind`)

        sessions = None if self._is_tcp else self.serve_session
        return Application(self._supervisor, self._access, self._config, sessions)

    def close(self) -> None:
        """Begin to close the main listener and its connections; `run` returns in bounded time."""
        self._reception.close()

    async def serve_session(self, session: Session, listener: trio.SocketListener) -> None:
        """Serve a session's own socket, which is ours from now on, until cancelled."""

        async def serve(connection: Connection) -> None:
            try:
                if (head := await connection.next_head()) is not None:
                    await self._attach(connection, session, upgrade.accept(head))
            except Refused as refused:
                await connection.refuse(refused)

        await Reception(self._config, serve).run(listener)

    async def _serve(self, connection: Connection) -> None:
        """Serve a connection to the main listener, one request after the other."""
        try:
            while (head := await connection.next_head()) is not None:
                self._supervisor.traffic.note(connection)
                if self._is_tcp and upgrade.asks_for_channel(head):
                    await self._serve_channel(connection, head)
                    return
                if not await self._answer(connection, head):
                    await connection.see_out()
                    return
        except Refused as refused:
            await connection.refuse(refused)

    async def _answer(self, connection: Connection, head: Head) -> bool:
        """Answer a request; whether the connection can be used for another one."""
        if not asks_for_status(head):
            return await self._behind.serve(connection, head)
        self._access.check(head.headers, token_needed=False)
        try:
            answer = status_response(self._supervisor.status(), head)
        except Exception:  # noqa: BLE001 (the application knows what to do about it)
            return await self._behind.serve(connection, head)
        connection.inbound.body_nowait()  # there is none
        await connection.write(answer)
        return not head.is_last

    async def _serve_channel(self, connection: Connection, head: Head) -> None:
        self._access.check(head.headers)
        accepted = upgrade.accept(head)
        try:
            session = self._supervisor.get(upgrade.session_id_in(head))
        except KallichoreError as error:
            raise Refused.by(error) from error
        await self._attach(connection, session, accepted)

    async def _attach(
        self, connection: Connection, session: Session, accepted: upgrade.Accepted
    ) -> None:
        """Complete an upgrade, and leave the connection to the session until it is over."""
        await connection.write(accepted.response)
        connection.give_up_place()
        current_session.set(session.id)
        trailing = connection.inbound.rest()
        websocket = WebSocket(connection.stream, trailing, self._config.limits)
        try:
            await session.attach(websocket, accepted.after)
        except SessionGone:
            log.debug("The session ended before its client did")
