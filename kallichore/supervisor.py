"""All sessions: made, found, counted, and ended together."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

import trio

from kallichore import __version__
from kallichore import log as logs
from kallichore._platform import process_start_time
from kallichore.config import LogLevel
from kallichore.errors import (
    KernelPathNotFound,
    ServerStopping,
    SessionExists,
    SessionNotFound,
    TooManySessions,
)
from kallichore.kernel import launch
from kallichore.models import ServerConfiguration, ServerStatus, Status
from kallichore.nurseries import Activity, contain
from kallichore.outbox import MemoryBudget
from kallichore.resources import Sampler
from kallichore.session import Session
from kallichore.stamps import now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from uuid import UUID

    from kallichore.config import Config, Configurable
    from kallichore.kernel.run import RunTools
    from kallichore.models import NewSession, ResourceUsage

__all__ = ["Supervisor"]

log = logging.getLogger(__name__)
_HOUR: Final = 3600
_SHORTEST_INTERVAL_MS: Final = 100


class Supervisor:
    """The sessions of one server."""

    def __init__(
        self, config: Config, tools: RunTools, server_id: UUID, socket_directories: list[Path]
    ) -> None:
        """Begin without sessions."""
        self.config = config
        self.settings: Configurable = config.initial
        self.sessions: dict[str, Session] = {}
        self.activity = Activity()
        """That clients or kernels came or went, or settings changed."""
        self._last_use = trio.current_time()
        self.stop_requested = trio.Event()
        self.stop_reason = ""
        self.hurry = trio.Event()
        """Set when the polite part of the shutdown is to be skipped."""
        self.tally = tools.tally
        self._tools = tools
        self.traffic = tools.traffic
        self._server_id = server_id
        self._socket_directories = socket_directories
        self.budget = MemoryBudget(config.limits.outbox_total_memory_bytes)
        self.sampler = Sampler(
            self._to_be_measured, self._report_usage, self.settings, config.limits
        )
        self._measured: dict[str, tuple[bool, int | None]] = {}
        self._nursery: trio.Nursery | None = None
        self._started = now()
        self._since = trio.current_time()
        self._client: tuple[int, int | None] | None = None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run sessions until `stop`; then end them in order, within `Deadlines.shutdown_seconds`.

        Cancelling it ends them at once.
        """
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await self.stop_requested.wait()
            with trio.move_on_after(self.config.deadlines.shutdown_seconds):
                async with trio.open_nursery() as ending:
                    ending.start_soon(self._hurry, ending.cancel_scope)
                    await self._end_sessions()
                    ending.cancel_scope.cancel(reason="all kernels have ended")
            self._nursery.cancel_scope.cancel(reason=self.stop_reason)

    async def _hurry(self, polite: trio.CancelScope) -> None:
        await self.hurry.wait()
        polite.cancel(reason="told to hurry")

    async def _end_sessions(self) -> None:
        async with trio.open_nursery() as nursery:
            for session in self.sessions.values():
                nursery.start_soon(contain, "ending a session", session.control.shut_down)

    def stop(self, reason: str) -> None:
        """Begin the orderly shutdown; a second call skips its polite part (CONTRACT 1.7)."""
        if self.stopping:
            self.hurry.set()
            return
        log.info("shutting down: %s", reason)
        self.stop_reason = reason
        self.stop_requested.set()

    @property
    def stopping(self) -> bool:
        """Whether the shutdown has begun."""
        return self.stop_requested.is_set()

    # -- sessions -------------------------------------------------------------------------------

    def create(self, new: NewSession) -> Session:
        """Make a session without a kernel.

        Raises:
            SessionExists, KernelPathNotFound, TooManySessions, ServerStopping: It was refused.
        """
        if self.stopping or self._nursery is None:
            raise ServerStopping
        if new.session_id in self.sessions:
            raise SessionExists(new.session_id)
        if len(self.sessions) >= self.config.limits.max_sessions:
            raise TooManySessions(self.config.limits.max_sessions)
        if new.argv:
            env = launch.resolve_env(self._tools.environment, new.env)
            if launch.find_executable(new.argv[0], env.get("PATH"), new.working_directory) is None:
                raise KernelPathNotFound(new.argv[0])
        session = Session(new, self._tools, self.budget, self._socket_directories, self._noticed)
        self.sessions[session.id] = session
        self._nursery.start_soon(self._run_session, session, name=f"session {session.id}")
        log.info("the session is created", extra={"session_id": session.id})
        return session

    async def _run_session(self, session: Session) -> None:
        logs.current_session.set(session.id)
        try:
            await contain("a session", session.run)
        finally:
            why = self.stop_reason if self.stopping else "deleted"
            log.info("the session has ended", extra={"session_id": session.id, "reason": why})
            self._forget(session)

    def _forget(self, session: Session) -> None:
        if self.sessions.get(session.id) is session:
            del self.sessions[session.id]
            self._measured.pop(session.id, None)
            self.tally.gone.add(session.talk.counters)

    def _noticed(self, session: Session) -> None:
        """A session's client or kernel came or went, or it is idle now, which is on the road."""
        self._last_use = trio.current_time()
        measured = (session.connected, session.control.process_id)
        if self._measured.get(session.id) != measured:
            self._measured[session.id] = measured
            self.sampler.wake()
            self.activity.note()

    def _to_be_measured(self) -> Iterator[tuple[Session, int]]:
        for session in self.sessions.values():
            pid = session.control.process_id
            if session.connected and pid is not None:
                yield session, pid

    def _report_usage(self, session: Session, usage: ResourceUsage) -> None:
        session.control.resource_usage = usage
        session.talk.announce("resourceUsage", usage)

    def get(self, session_id: str) -> Session:
        """Find a session. Raises `SessionNotFound`."""
        try:
            return self.sessions[session_id]
        except KeyError:
            raise SessionNotFound(session_id) from None

    async def delete(self, session_id: str) -> None:
        """End a session whose kernel is gone. Raises `SessionNotFound`, `SessionRunning`."""
        session = self.get(session_id)
        await session.delete()
        self._forget(session)

    # -- the server as a whole ------------------------------------------------------------------

    def status(self) -> ServerStatus:
        """Give the server's status."""
        at = trio.current_time()
        sessions = self.sessions.values()
        busy = [s.talk.status_since for s in sessions if s.status is Status.BUSY]
        idle = [s.talk.status_since for s in sessions if s.status is Status.IDLE]
        return ServerStatus(
            sessions=len(sessions),
            active=sum(session.status is not Status.EXITED for session in sessions),
            busy=bool(busy),
            idle_seconds=0 if busy else int(at - max(idle, default=self._since)),
            busy_seconds=int(at - min(busy)) if busy else 0,
            uptime_seconds=int(at - self._since),
            version=__version__,
            process_id=os.getpid(),
            started=self._started,
            server_id=self._server_id,
        )

    def configuration(self) -> ServerConfiguration:
        """Give the settings that can be changed."""
        return ServerConfiguration(
            idle_shutdown_hours=self.settings.idle_shutdown_hours,
            resource_sample_interval_ms=self.settings.resource_sample_interval_ms,
            resource_include_children=self.settings.resource_include_children,
            log_level=str(self.settings.log_level),
        )

    def configure(self, changes: ServerConfiguration) -> None:
        """Change settings; what is left out stays. The body was checked whole before."""
        settings = self.settings
        if changes.idle_shutdown_hours is not None:
            settings.idle_shutdown_hours = max(changes.idle_shutdown_hours, -1)
        if changes.resource_sample_interval_ms is not None:
            wanted = changes.resource_sample_interval_ms
            settings.resource_sample_interval_ms = wanted and max(wanted, _SHORTEST_INTERVAL_MS)
        if changes.resource_include_children is not None:
            settings.resource_include_children = changes.resource_include_children
        if changes.log_level is not None:
            settings.log_level = LogLevel(changes.log_level)
            logs.set_level(settings.log_level)
        self._last_use = trio.current_time()
        self.activity.note()
        self.sampler.wake()

    def client_heartbeat(self, process_id: int | None) -> None:
        """A client is alive; the server stays while its process lives."""
        if process_id is not None:
            self._client = (process_id, process_start_time(process_id))
        self._last_use = trio.current_time()

    # -- idle shutdown --------------------------------------------------------------------------

    async def watch_idleness(self) -> None:
        """Stop the server when nothing has happened for as long as the setting says (CONTRACT 1.8).

        Use is only noted, and looked at when time would be up: it is far too frequent to wake for.
        """
        while True:
            hours = self.settings.idle_shutdown_hours
            seconds = hours * _HOUR if hours else self.config.deadlines.idle_now_seconds
            with trio.move_on_at(self._last_use + seconds if hours >= 0 else float("inf")) as time:
                await self.activity.next()
            if not time.cancelled_caught or trio.current_time() < self._last_use + seconds:
                continue
            if not self._in_use():
                self.stop(f"idle for {seconds:g} seconds")
                return
            self._last_use = trio.current_time()

    def _in_use(self) -> bool:
        return self._client_lives() or any(
            session.connected or session.status in {Status.BUSY, Status.STARTING}
            for session in self.sessions.values()
        )

    def _client_lives(self) -> bool:
        if self._client is None:
            return False
        process_id, start_time = self._client
        return start_time is not None and process_start_time(process_id) == start_time
