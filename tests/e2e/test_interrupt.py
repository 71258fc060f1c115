"""Interrupting and killing kernels (CONTRACT 3.5)."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from kallichore.client import RequestFailed, SessionUnknown
from kallichore.kernel.channels import Channels
from kallichore.models import InterruptMode
from kallichore.protocol.message import Channel
from tests.listening import Ear, words
from tests.puppets import open_meeting, puppet, start_puppet

if TYPE_CHECKING:
    from tests.serving import Serving

BOTH_MODES = pytest.mark.parametrize("mode", list(InterruptMode))


@BOTH_MODES
async def test_a_busy_loop_is_interrupted(serving: Serving, mode: InterruptMode) -> None:
    client = serving.client
    await start_puppet(client, "one", {"interrupt_mode": mode})
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        msg_id = await ear.send("say('go')\nwhile True: pass")
        await ear.until("iopub:stream")
        await client.interrupt_session("one")
        frames = await ear.until("iopub:status=idle", parent=msg_id)
        assert "iopub:error" in words(frames)
        again = await ear.execute("say('on')")
    assert "iopub:stream" in words(again)


@BOTH_MODES
async def test_an_idle_kernel_takes_an_interrupt_and_lives(
    serving: Serving, mode: InterruptMode
) -> None:
    client = serving.client
    await start_puppet(client, "one", {"interrupt_mode": mode})
    pid = (await client.get_session("one")).process_id
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await client.interrupt_session("one")
        if mode is InterruptMode.MESSAGE:
            await ear.until("control:interrupt_reply")
        frames = await ear.execute("say('on')")
    assert "iopub:stream" in words(frames)
    assert (await client.get_session("one")).process_id == pid


async def test_an_interrupt_reaches_what_the_kernel_runs(serving: Serving) -> None:
    """As a terminal's Ctrl-C does: the whole process group is told."""
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        stay = "signal.signal(signal.SIGINT, lambda *_: None)"
        await ear.send(f"{stay}; pid = spawn(); say('go'); say(str(os.waitpid(pid, 0)[1]))")
        await ear.until("iopub:stream")
        await client.interrupt_session("one")
        (*_, stream) = await ear.until("iopub:stream")
    assert stream["content"]["text"] == str(int(signal.SIGINT))


async def test_an_interrupt_clears_what_is_held(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        first = await ear.send("say('go')\nwhile True: pass")
        await ear.until("iopub:stream")
        held = await ear.send("say('never')")
        await ear.until("executionQueued")
        await client.interrupt_session("one")
        frames = await ear.until("shell:execute_reply=aborted", parent=held)
        frames += await ear.until("iopub:status=idle", parent=first)
    assert "iopub:stream" not in words(frames)
    assert (await client.get_session("one")).execution_queue.length == 0


@pytest.mark.parametrize("operation", ["interrupt_session", "kill_session"])
async def test_without_a_kernel_there_is_nothing_to_stop(serving: Serving, operation: str) -> None:
    client = serving.client
    stop: Any = getattr(client, operation)
    with pytest.raises(SessionUnknown):
        await stop("one")
    await client.new_session(puppet())
    with pytest.raises(RequestFailed) as fresh:
        await stop("one")
    await client.start_session("one")
    await client.kill_session("one")
    await serving.wait_until("exited")
    with pytest.raises(RequestFailed) as ended:
        await stop("one")
    expected = "KS-3" if operation == "interrupt_session" else "KS-12"
    assert (fresh.value.status, fresh.value.code) == (400, expected)
    assert (ended.value.status, ended.value.code) == (400, "KS-3")


async def test_a_kill_is_seen_in_order(both_ways: Serving) -> None:
    client = both_ways.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        msg_id = await ear.send("print('raw', flush=True); say('go')\nwhile True: pass")
        await ear.until("iopub:stream")
        await client.kill_session("one")
        frames = await ear.until("exited=-1")
    said = words(frames)
    assert said[-2:] == ["status=exited", "exited=-1"]
    assert said.count("status=exited") == 1
    assert said.index("shell:execute_reply=aborted") < said.index("status=exited")
    reply = frames[said.index("shell:execute_reply=aborted")]
    assert reply["parent_header"]["msg_id"] == msg_id
    assert "output" in words(ear.heard)
    record = await client.get_session("one")
    assert (record.status, record.process_id) == ("exited", None)
    assert (record.execution_queue.length, bytes(record.kernel_info)[:1]) == (0, b"{")
    assert record.last_exit is not None
    assert (record.last_exit.signal, record.last_exit.requested) == ("SIGKILL", True)


async def test_a_kernel_that_is_stopped_is_killed_all_the_same(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    pid = (await client.get_session("one")).process_id
    assert pid is not None
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.send("os.kill(os.getpid(), signal.SIGSTOP)")
        await trio.to_thread.run_sync(os.waitid, os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        await client.kill_session("one")
        await ear.until("exited=-1")


async def test_interrupt_and_kill_do_not_wait_behind_a_start(serving: Serving) -> None:
    client = serving.client
    async with (
        open_meeting(serving.directory, "start") as start,
        open_meeting(serving.directory, "interrupt") as interrupt,
        trio.open_nursery() as nursery,
    ):
        tell = f"signal.signal(signal.SIGINT, lambda *_: meet({interrupt.path!r}))"
        ready = f"{tell}; meet({start.path!r})"
        nursery.start_soon(partial(start_puppet, client, ready=ready))
        await start.reached()
        await client.interrupt_session("one")
        await interrupt.pass_through()
        assert (await client.get_session("one")).status == "starting"
        await client.kill_session("one")
        await serving.wait_until("exited")
        nursery.cancel_scope.cancel()


async def test_a_question_is_answered_over_stdin(both_ways: Serving) -> None:
    client = both_ways.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        msg_id = await ear.send("say(question('name?') + '!')", allow_stdin=True)
        (*_, asked) = await ear.until("stdin:input_request")
        assert asked["parent_header"]["msg_id"] == msg_id
        assert asked["content"] == {"prompt": "name?", "password": False}
        await channel.request("input_reply", {"value": "Kalli"}, channel="stdin")
        (*_, stream) = await ear.until("iopub:stream")
    assert stream["content"]["text"] == "Kalli!"


async def test_a_question_right_after_the_start_is_heard(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel's ROUTER drops what it asks of somebody it does not know: so the start waits."""
    connect = Channels._connect

    def slow_on_stdin(self: Channels, channel: Channel, port: int, identity: bytes) -> Any:
        with monkeypatch.context() as patch:
            if channel is Channel.STDIN:
                patch.setattr("kallichore.kernel.channels.RECONNECT_MS", 400)
            return connect(self, channel, port, identity)

    monkeypatch.setattr(Channels, "_connect", slow_on_stdin)
    client = serving.client
    await client.new_session(puppet())
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.send("say(question('name?') + '!')", allow_stdin=True)
        await client.start_session("one")
        await ear.until("stdin:input_request")
        await channel.request("input_reply", {"value": "Kalli"}, channel="stdin")
        (*_, stream) = await ear.until("iopub:stream")
    assert stream["content"]["text"] == "Kalli!"
