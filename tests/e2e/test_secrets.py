"""What is never shown (docs/explanation/security.md), and what a log shows instead."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from kallichore.client import RequestFailed, StartFailed, open_server
from kallichore.models import ExecuteRequest, VarAction, VarActionType
from kallichore.web.operations import OPERATIONS
from tests.listening import Ear
from tests.puppets import puppet, session_of

if TYPE_CHECKING:
    from pathlib import Path

    from kallichore.client import LaunchedServer

OURS = "a-secret-of-the-servers-environment"
THEIRS = "a-secret-of-the-sessions-environment"
CODE = "a-secret-in-the-code"


async def live(server: LaunchedServer) -> list[str]:
    """Have all kinds of things happen, good and bad; give what is secret."""
    client = server.client
    env = [VarAction(action=VarActionType.REPLACE, name="SECRET", value=THEIRS)]
    await client.new_session(puppet("one", {"env": env}))
    await client.start_session("one")
    connection = await client.connection_info("one")
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.execute(f"say({CODE!r})")
        await ear.send(f"kernel.raw(b'<IDS|MSG>', b'wrong', {CODE.encode()!r}, b'', b'', b'')")
        await ear.execute("kernel.key = 'wrong'; say('1'); kernel.key = kernel.connection['key']")
        await channel.request("comm_msg", {"data": CODE}, channel="control")
    async with client.open_channel("one", after=0):
        pass
    await client.execute_code("one", ExecuteRequest(code=f"say({CODE!r})"))
    await client.interrupt_session("one")
    await client.restart_session("one")
    with pytest.raises(RequestFailed):
        await client.start_session("one")
    await client.new_session(session_of(["/bin/sh", "-c", "exit 1"], "two", env=env))
    with pytest.raises(StartFailed):
        await client.start_session("two")
    await client.kill_session("one")
    token = server.details.bearer_token
    assert token is not None
    return [token, connection.key]


async def ask_without_token(port: int) -> bytes:
    """Ask for everything, and wrongly too; give all that is answered."""
    answers = b""
    asked = [(one.method, one.path.replace("{session_id}", "one")) for one in OPERATIONS]
    for method, path in [*asked, ("GET", "/nothing"), ("BREW", "/status"), ("GET", "no-path")]:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        for token in ("", "Authorization: Bearer wrong\r\n"):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(f"{head}{token}Content-Length: 2\r\n\r\n{{}}".encode())
                answers += b"".join([bytes(some) async for some in stream])
    return answers


EVENTS = [
    ("the session is created", None),
    ("the session is starting", "start API called"),
    ("the session is exited", "The kernel was shut down"),
    ("a client has come", None),
    ("a client has come", "it resumes"),
    ("a client has gone", None),
    ("the kernel is interrupted", None),
    ("a restart is asked for", None),
    ("the kernel is killed", None),
    ("the session has ended", "deleted"),
]
"""What the log of the session says of what `live` does, and why."""


@pytest.mark.parametrize("form", ["text", "json"])
async def test_no_secret_is_in_the_log_at_any_level_nor_in_an_open_answer(
    tmp_path: Path, form: str
) -> None:
    """At ``trace``, which includes all others; and each event that matters has its line."""
    log = tmp_path / "kc.log"
    arguments = ["--transport=tcp", "-l", "trace", "--log-format", form, "--log-file", str(log)]
    with trio.fail_after(30):
        async with open_server(*arguments, env={**os.environ, "SECRET": OURS}) as server:
            secrets = [*await live(server), OURS, THEIRS, CODE]
            assert server.details.port is not None
            answers = await ask_without_token(server.details.port)
            server.process.send_signal(signal.SIGUSR1)
            while "watch_loop" not in log.read_text():  # noqa: ASYNC110 - another process writes it
                await trio.lowlevel.checkpoint()
            await server.client.delete_session("two")
            await server.client.shutdown_server()
            await server.process.wait()
        shown = [log.read_text(), str(server.output), answers.decode("latin-1")]
    assert [secret for secret in secrets for text in shown if secret in text] == []
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert "diagnostics: 2 sessions" in shown[0]
    assert "bad_signatures=2" in shown[0]
    if form == "json":
        lines = [json.loads(line) for line in shown[0].splitlines()]
        told = {(one["message"], one.get("reason")) for one in lines if "session_id" in one}
        assert set(EVENTS) - told == set()
