"""Code run through `POST …/execute`, and what is remembered of executions (CONTRACT 2.3)."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from kallichore.client import RequestFailed, new_message
from kallichore.config import Deadlines
from kallichore.models import ExecuteReply, ExecuteRequest
from tests.listening import Ear, words
from tests.puppets import open_meeting, puppet, start_puppet
from tests.serving import open_serving

if TYPE_CHECKING:
    from kallichore.client import Client
    from tests.serving import Serving


async def execute(client: Client, code: str, **options: Any) -> ExecuteReply:
    return await client.execute_code("one", ExecuteRequest(code=code, **options))


async def test_outputs_and_result_are_in_the_answer(both_ways: Serving) -> None:
    await start_puppet(both_ways.client)
    code = (
        "say('a'); say('b'); say('c', 'stderr'); say('d', 'log')\n"
        "display({'text/plain': 'x', 'application/json': {'n': [1, 2.50]}}, {'w': 1})\n"
        "show({'text/plain': '42', 'application/x': [1, {'k': None}]})"
    )
    reply = await execute(both_ways.client, code)
    assert (reply.status, reply.execution_count) == ("ok", 1)
    assert [(one.type, one.stream_name, one.text) for one in reply.output] == [
        ("stream", "stdout", "ab"),
        ("stream", "stderr", "c"),
        ("stream", "stdout", "d"),
        ("display_data", None, None),
    ]
    shown = reply.output[3]
    assert shown.data == {"text/plain": "x", "application/json": '{"n": [1, 2.5]}'}
    assert json.loads(bytes(shown.metadata)) == {"w": 1}  # type: ignore[arg-type]
    assert reply.data == {"text/plain": "42", "application/x": '[1, {"k": null}]'}
    assert (reply.error_name, reply.error_message) == (None, None)


async def test_an_error_of_the_code_is_no_error_of_the_operation(serving: Serving) -> None:
    await start_puppet(serving.client)
    reply = await execute(serving.client, "say('before'); fail('Oops', 'it failed')")
    assert (reply.status, reply.execution_count) == ("error", 1)
    assert (reply.error_name, reply.error_message) == ("Oops", "it failed")
    assert reply.error_traceback == ["Oops('it failed')"]
    assert [one.type for one in reply.output] == ["stream", "error"]
    assert reply.output[1].error_name == "Oops"


async def test_the_kernel_is_asked_as_the_caller_says(serving: Serving) -> None:
    await start_puppet(serving.client)
    tell = (
        "import json\n"
        "given = kernel.request_content\n"
        "say(json.dumps([given[k] for k in "
        "('silent', 'store_history', 'stop_on_error', 'allow_stdin')]))"
    )
    plain = await execute(serving.client, tell)
    other = await execute(
        serving.client, tell, silent=True, store_history=False, stop_on_error=False
    )
    assert json.loads(plain.output[0].text or "") == [False, True, True, False]
    assert json.loads(other.output[0].text or "") == [True, False, False, False]


async def test_the_client_is_told_before_it_sees_what_comes_of_it(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.until("status=idle")
        await execute(client, "say('hello')")
        (announced, *frames) = await ear.until("iopub:status=idle")
    assert words([announced]) == ["executionRequested"]
    event = announced["executionRequested"]
    assert event["code"] == "say('hello')"
    assert event["attribution"]["source"]
    assert event["requested_at"].endswith("Z")
    assert {one["parent_header"]["msg_id"] for one in frames if one["kind"] == "jupyter"} == {
        event["msg_id"]
    }


async def test_it_waits_its_turn_behind_the_clients_code(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with (
        client.open_channel("one") as channel,
        open_meeting(serving.directory) as meeting,
        trio.open_nursery() as nursery,
    ):
        ear = Ear(channel)
        await ear.send(f"meet({meeting.path!r}); say('first')")
        await meeting.reached()
        nursery.start_soon(execute, client, "say('second')")
        await ear.until("executionQueued")
        await meeting.let_go()
        await ear.until("iopub:stream")
        (*_, stream) = await ear.until("iopub:stream")
    assert stream["content"]["text"] == "second"


@pytest.mark.parametrize("ended", [False, True])
async def test_without_a_kernel_it_fails_at_once(serving: Serving, *, ended: bool) -> None:
    client = serving.client
    await client.new_session(puppet())
    if ended:
        await client.start_session("one")
        await client.kill_session("one")
        await serving.wait_until("exited")
    with pytest.raises(RequestFailed) as caught:
        await execute(client, "1")
    assert (caught.value.status, caught.value.code) == (400, "session_not_ready")


async def test_while_a_kernel_is_offline_it_fails_at_once() -> None:
    quick = Deadlines(heartbeat_pause_seconds=0.05, heartbeat_patience_seconds=0.2)
    async with open_serving(deadlines=quick) as serving:
        await start_puppet(serving.client)
        pid = (await serving.client.get_session("one")).process_id
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await serving.wait_until("offline")
        with pytest.raises(RequestFailed) as caught:
            await execute(serving.client, "1")
        assert (caught.value.status, caught.value.code) == (400, "session_not_ready")
        await serving.client.kill_session("one")


async def test_a_starting_kernel_is_waited_for(serving: Serving) -> None:
    client = serving.client
    async with open_meeting(serving.directory) as meeting, trio.open_nursery() as nursery:
        replies = []

        async def ask() -> None:
            replies.append(await execute(client, "say('here')"))

        nursery.start_soon(partial(start_puppet, client, ready=f"meet({meeting.path!r})"))
        await meeting.reached()
        nursery.start_soon(ask)
        await client.get_session("one")
        await meeting.let_go()
    assert replies[0].output[0].text == "here"


async def test_a_kernel_that_starts_for_too_long_is_not_ready() -> None:
    async with (
        open_serving(deadlines=Deadlines(execute_start_seconds=0.1)) as serving,
        open_meeting(serving.directory) as meeting,
        trio.open_nursery() as nursery,
    ):
        begin = partial(start_puppet, serving.client, ready=f"meet({meeting.path!r})")
        nursery.start_soon(begin)
        await meeting.reached()
        with pytest.raises(RequestFailed) as caught:
            await execute(serving.client, "1")
        await meeting.let_go()
    assert (caught.value.status, caught.value.code) == (400, "session_not_ready")


async def test_a_kernel_that_fails_to_start_fails_it_at_once(serving: Serving) -> None:
    client = serving.client
    async with open_meeting(serving.directory) as meeting, trio.open_nursery() as nursery:
        codes = []

        async def ask() -> None:
            with pytest.raises(RequestFailed) as caught:
                await execute(client, "1")
            codes.append(caught.value.code)
            nursery.cancel_scope.cancel()

        before = f"meet({meeting.path!r}); sys.exit(1)"
        await client.new_session(puppet(before=before))
        nursery.start_soon(failing_start, client)
        await meeting.reached()
        nursery.start_soon(ask)
        await client.get_session("one")
        await meeting.let_go()
    assert codes == ["session_not_ready"]


async def failing_start(client: Client) -> None:
    with pytest.raises(RequestFailed):
        await client.start_session("one")


async def test_a_kernel_that_dies_answers_who_waits(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    before = time.monotonic()
    with pytest.raises(RequestFailed) as caught:
        await execute(client, "os._exit(3)")
    assert time.monotonic() - before < 1
    assert (caught.value.status, caught.value.code) == (400, "session_not_ready")


async def test_history_is_kept_oldest_first_and_across_restarts(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    began = time.time() * 1000
    await execute(client, "say('out')")
    await execute(client, "say('silent')", silent=True)
    await execute(client, "fail('Oops', 'it failed')")
    await client.restart_session("one")
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        content = {"code": "show({'text/plain': '42'})", "silent": False}
        origin = {"attribution": {"source": "agent", "agent_name": "helper"}}
        message = new_message("execute_request", content, metadata=origin)
        await channel.send(message)
        await ear.until("iopub:status=idle", parent=message.header.msg_id)
    await execute(client, "'its turn comes when the one before is over'", silent=True)
    history = await client.get_session_history("one")
    assert [(one.input, one.output) for one in history] == [
        ("say('out')", "out"),
        ("fail('Oops', 'it failed')", ""),
        ("show({'text/plain': '42'})", "42"),
    ]
    assert history[1].error is not None
    assert (history[1].error.name, history[1].error.message) == ("Oops", "it failed")
    assert history[1].error.traceback == ["Oops('it failed')"]
    assert (history[2].source, history[2].agent) == ("agent", "helper")
    assert not any(one.truncated for one in history)
    assert began - 1000 < history[0].timestamp <= history[2].timestamp < began + 60_000
    recent = (await client.get_session("one")).history
    assert list(recent) == history[-3:]


async def test_long_texts_are_clipped_in_the_middle(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    await execute(client, f"say('<' + 'é' * 5000 + '>') # {'x' * 5000}")
    (entry,) = await client.get_session_history("one")
    assert entry.truncated
    first, notice, last = entry.output.partition("\n[... ")
    assert first == "<" + "é" * 1023
    omitted, _, last = last.partition(" bytes omitted ...]\n")
    assert last == "é" * 1023 + ">"
    assert notice
    assert int(omitted) == len(("<" + "é" * 5000 + ">").encode()) - len((first + last).encode())
    assert len(entry.input) < 4096 + 40
    assert entry.input.startswith("say('<'")


async def test_history_keeps_the_last_hundred(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    for number in range(105):
        await execute(client, f"{number}")
    history = await client.get_session_history("one")
    assert [one.input for one in history] == [str(number) for number in range(5, 105)]
    assert list((await client.get_session("one")).history) == history[-3:]


async def test_a_reply_without_idle_is_waited_for_and_an_idle_without_reply_too(
    serving: Serving,
) -> None:
    """Both must have come, in whichever order."""
    client = serving.client
    await start_puppet(client)
    async with open_meeting(serving.directory) as meeting, trio.open_nursery() as nursery:
        replies = []

        async def ask() -> None:
            replies.append(await execute(client, early))

        early = (
            "kernel.status('idle', kernel.parent); "
            f"meet({meeting.path!r}); say('late'); kernel.count = 7"
        )
        nursery.start_soon(ask)
        await meeting.reached()
        await client.get_session("one")
        assert replies == []
        await meeting.let_go()
    assert replies[0].execution_count == 7
