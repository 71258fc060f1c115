"""Code run through `POST …/execute` that its caller gives up (CONTRACT 2.3)."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio

from kallichore.client import RequestFailed
from kallichore.models import ExecuteReply, ExecuteRequest
from tests.listening import Ear, words
from tests.puppets import open_meeting, puppet, start_puppet

if TYPE_CHECKING:
    from kallichore.client import Client
    from tests.serving import Serving


async def execute(client: Client, code: str, **options: Any) -> ExecuteReply:
    return await client.execute_code("one", ExecuteRequest(code=code, **options))


async def test_what_takes_too_long_is_interrupted(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        with pytest.raises(RequestFailed) as caught:
            await execute(client, "say('on')\nwhile True: pass", timeout_seconds=0.2)
        assert (caught.value.status, caught.value.code) == (408, "timeout")
        await ear.until("iopub:error")
        await ear.until("iopub:status=idle")
    assert (await client.get_session("one")).status == "idle"


async def test_what_comes_after_a_timeout_is_not_aborted(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    for _ in range(5):
        with pytest.raises(RequestFailed):
            await execute(client, "while True: pass", timeout_seconds=0.05)
        reply = await execute(client, "say('on')")
        assert (reply.status, reply.output[0].text) == ("ok", "on")


async def test_what_waits_behind_a_timeout_is_not_aborted(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel, trio.open_nursery() as nursery:
        ear = Ear(channel)

        async def run_out_of_time() -> None:
            with pytest.raises(RequestFailed):
                await execute(client, "say('on')\nwhile True: pass", timeout_seconds=0.5)

        nursery.start_soon(run_out_of_time)
        await ear.until("iopub:stream")
        frames = await ear.execute("say('behind')")
    texts = [one["content"]["text"] for one in frames if words([one]) == ["iopub:stream"]]
    assert texts == ["behind"]


async def test_the_time_runs_while_the_kernel_starts(serving: Serving) -> None:
    client = serving.client
    async with open_meeting(serving.directory) as meeting, trio.open_nursery() as nursery:
        await client.new_session(puppet(before=f"meet({meeting.path!r})"))
        nursery.start_soon(client.start_session, "one")
        await meeting.reached()
        with pytest.raises(RequestFailed) as caught:
            await execute(client, "say('never')", timeout_seconds=0.1)
        assert (caught.value.status, caught.value.code) == (408, "timeout")
        await meeting.let_go()
    assert (await execute(client, "say('on')")).output[0].text == "on"


async def test_what_waits_too_long_is_withdrawn(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel, open_meeting(serving.directory) as meeting:
        ear = Ear(channel)
        await ear.send(f"meet({meeting.path!r}); say('first')")
        await meeting.reached()
        with pytest.raises(RequestFailed) as caught:
            await execute(client, "say('never')", timeout_seconds=0.1)
        assert caught.value.code == "timeout"
        assert (await client.get_session("one")).execution_queue.length == 0
        await meeting.let_go()
        await ear.until("iopub:stream")
        frames = await ear.execute("say('second')")
    texts = [one["content"]["text"] for one in frames if words([one]) == ["iopub:stream"]]
    assert texts == ["second"]


async def test_a_caller_that_hangs_up_interrupts_what_runs(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(execute, client, "say('on')\nwhile True: pass")
            await ear.until("iopub:stream")
            nursery.cancel_scope.cancel()
        (*_, error) = await ear.until("iopub:error")
        assert error["content"]["ename"] == "KeyboardInterrupt"
        await ear.until("iopub:status=idle")
        assert "iopub:stream" in words(await ear.execute("say('free')"))


async def test_a_caller_that_hangs_up_at_once_interrupts_what_has_not_begun(
    serving: Serving,
) -> None:
    """A frozen kernel gets the signal before it has even read the request."""
    client = serving.client
    await start_puppet(client)
    pid = (await client.get_session("one")).process_id
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    talk = serving.supervisor.get("one").talk
    async with trio.open_nursery() as nursery:
        nursery.start_soon(execute, client, "while True: pass")
        while talk.state.queue.active is None:
            await client.get_session("one")
        active = talk.state.queue.active
        nursery.cancel_scope.cancel()
    while not active.withdrawn:
        await client.get_session("one")
    os.kill(pid, signal.SIGCONT)
    with trio.fail_after(5):
        while not active.finished:
            await talk.status_changed.next()
        assert (await execute(client, "say('free')")).output


async def test_a_caller_that_hangs_up_withdraws_what_waits(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel, open_meeting(serving.directory) as meeting:
        ear = Ear(channel)
        await ear.send(f"meet({meeting.path!r})")
        await meeting.reached()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(execute, client, "say('never')")
            await ear.until("executionQueued")
            nursery.cancel_scope.cancel()
        await ear.until("shell:execute_reply=aborted")
        await meeting.let_go()
        assert words(await ear.execute("pass"), "iopub").count("iopub:stream") == 0
