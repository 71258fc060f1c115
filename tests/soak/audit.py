"""What a server has: descriptors, tasks, memory, processes, files, ports; and what grew."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import trio

from kallichore.client import Client
from tests.bench.machine import MIB, memory_bytes
from tests.soak.record import CheckFailed
from tests.soak.world import ours, pause, until

if TYPE_CHECKING:
    from kallichore.client import LaunchedServer

__all__ = ["Account", "Auditor"]

SETTLE_SECONDS = 20.0
"""Time for everything to go that a round has left."""
GROWTH_BYTES: Final = 24 * MIB
"""What memory may have grown by since the warm-up: the server gives back beyond 16 MiB."""
REST_SECONDS = 5.0
"""Two looks of the server at its own memory, before it is measured."""


BACKLOG: Final = re.compile(r"^kallichore_backlog_bytes\{.*\} (\S+)$", re.MULTILINE)

WORST_LAG: Final = re.compile(r'^kallichore_loop_lag_seconds\{when="worst"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Account:
    """What there is, by kind."""

    stage: str
    seconds: float
    """Since the server began."""
    descriptors: Counter[str]
    tasks: Counter[str]
    processes: dict[int, str]
    files: Counter[str]
    listening: Counter[str]
    backlog_bytes: float
    sessions: int
    memory_bytes: int
    worst_lag: float
    """How late the server's loop has ever been, in seconds."""

    def grown_since(self, before: Account) -> dict[str, object]:
        """What is there now and was not before; memory is judged elsewhere."""
        more: dict[str, object] = {
            "descriptors": dict(self.descriptors - before.descriptors),
            "tasks": dict(self.tasks - before.tasks),
            "processes": {
                pid: name for pid, name in self.processes.items() if pid not in before.processes
            },
            "files": dict(self.files - before.files),
            "listening sockets": dict(self.listening - before.listening),
            "backlog": self.backlog_bytes,
            "sessions": self.sessions,
        }
        return {kind: what for kind, what in more.items() if what}


class Auditor:
    """Looks at one server, from outside."""

    def __init__(self, server: LaunchedServer, directory: Path, log: Path, mark: str) -> None:
        """Look at ``server``, whose temporary directory and log are these."""
        self.server = server
        self.directory = directory
        self.log = log
        self.mark = mark
        self.began = trio.current_time()

    async def take(self, stage: str) -> Account:
        """Count everything, now."""
        pid = self.server.details.server_pid
        tasks = await self._tasks(pid)
        async with Client(self.server.client.target) as client:
            sessions = (await client.server_status()).sessions
            metrics = await client.get_metrics()
        backlog = sum(float(found) for found in BACKLOG.findall(metrics))
        await pause(0.1)  # the connection that we have just closed
        return Account(
            stage=stage,
            seconds=trio.current_time() - self.began,
            descriptors=_descriptors(pid),
            tasks=tasks,
            processes=ours(self.mark),
            files=self._files(),
            listening=_listening(pid),
            backlog_bytes=backlog,
            sessions=sessions,
            memory_bytes=memory_bytes(pid),
            worst_lag=max(float(found) for found in WORST_LAG.findall(metrics)),
        )

    async def settle(self, stage: str, before: Account) -> tuple[Account, dict[str, object]]:
        """Wait until nothing is left of what came since; give what there is, and what has grown."""
        await pause(REST_SECONDS)
        deadline = trio.current_time() + SETTLE_SECONDS
        while True:
            account = await self.take(stage)
            grown = account.grown_since(before)
            if not grown or trio.current_time() > deadline:
                return account, grown
            await pause(0.5)

    def left(self) -> dict[str, object]:
        """What is left when the server is gone."""
        directory = self.server.connection_file.parent
        files = sorted(path.name for path in directory.iterdir() if path.name not in OWN_FILES)
        found = {"processes": ours(self.mark), "temporary files": self._files(), "files": files}
        return {kind: what for kind, what in found.items() if what}

    def complaints(self) -> list[str]:
        """What the log has of errors and tracebacks."""
        return [
            f"{entry['level']} {entry['logger']}: {entry['message']} {entry.get('exception', '')}"
            for entry in self._entries(0)
            if entry["level"] == "error" or "exception" in entry
        ]

    def warnings(self) -> Counter[str]:
        """How often the log has warned, by logger."""
        return Counter(
            entry["logger"] for entry in self._entries(0) if entry["level"] in {"warn", "warning"}
        )

    def _entries(self, start: int) -> list[dict[str, Any]]:
        with self.log.open("rb") as file:
            file.seek(start)
            return [json.loads(line) for line in file if line.endswith(b"\n")]

    async def _tasks(self, pid: int) -> Counter[str]:
        """Have the server write its tree of tasks into its log, and read it there."""
        start = self.log.stat().st_size
        os.kill(pid, signal.SIGUSR1)

        async def written() -> list[str]:
            lines = [
                str(entry["message"])
                for entry in self._entries(start)
                if entry["logger"] == "kallichore.diagnostics" and "session_id" not in entry
            ]
            heads = [n for n, line in enumerate(lines) if line.startswith("diagnostics:")]
            return lines[heads[-1] + 1 :] if heads else []

        await until("the server writes its diagnostics", written, 5)
        await pause(0.1)  # the rest of the tree
        return Counter(line.strip() for line in await written())

    def _files(self) -> Counter[str]:
        return Counter(
            re.sub(r"[0-9a-f]{8,}|\d+", "N", str(path.relative_to(self.directory)))
            for path in self.directory.rglob("*")
        )


OWN_FILES: Final = {"output", "h.sock"}
"""What the client library itself has in the directory it made for the server."""


def _descriptors(pid: int) -> Counter[str]:
    """Count open descriptors by what they lead to, without the numbers in it."""
    found: Counter[str] = Counter()
    for number in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[re.sub(r"\d+", "N", str(number.readlink()))] += 1
        except OSError:
            continue
    return found


def _listening(pid: int) -> Counter[str]:
    """Count the ports and Unix sockets that the server listens on."""
    found: Counter[str] = Counter()
    for one in psutil.Process(pid).net_connections("all"):
        if one.status == psutil.CONN_LISTEN:
            found["TCP"] += 1
        elif one.family.name == "AF_UNIX" and one.laddr:
            found[f"Unix {re.sub('[0-9a-f]{8,}', 'N', str(one.laddr))}"] += 1
    return found


def check_memory(baseline: Account, now: Account) -> None:
    """See that memory has come back to where it was after the warm-up."""
    grown = now.memory_bytes - baseline.memory_bytes
    if grown > GROWTH_BYTES:
        raise CheckFailed(f"memory has grown by {grown / MIB:.1f} MiB since the warm-up")
