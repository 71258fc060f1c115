"""The execution queue (CONTRACT 3.6): one at a time, the others held, nothing lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from kallichore.config import Limits
from tests.listening import Ear, Frame, word, words
from tests.puppets import open_meeting, puppet, start_puppet
from tests.serving import open_serving

if TYPE_CHECKING:
    from tests.serving import Serving


def answers_to(frames: list[Frame], msg_id: str) -> list[Frame]:
    return [one for one in frames if (one.get("parent_header") or {}).get("msg_id") == msg_id]


def decoded(message: msgspec.Raw | msgspec.UnsetType) -> Any:
    assert isinstance(message, msgspec.Raw)
    return json.loads(bytes(message))


async def test_held_requests_run_one_after_the_other(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel, open_meeting(serving.directory) as meeting:
        ear = Ear(channel)
        codes = [f"meet({meeting.path!r}); say('0')", "say('1')", "say('2')"]
        ids = [await ear.send(code) for code in codes]
        await meeting.reached()
        await ear.until("executionQueued")
        await ear.until("executionQueued")
        queue = (await client.get_session("one")).execution_queue
        assert [decoded(one)["content"]["code"] for one in queue.pending] == codes[1:]
        assert queue.length == 2
        active = decoded(queue.active)
        assert (active["header"]["msg_id"], active["content"]["code"]) == (ids[0], codes[0])
        assert active["header"]["session"]
        await meeting.let_go()
        await ear.until("iopub:status=idle", parent=ids[2])
    queued = [frame["executionQueued"] for frame in ear.heard if "executionQueued" in frame]
    assert queued == ids[1:]
    texts = [one["content"]["text"] for one in ear.heard if word(one) == "iopub:stream"]
    assert texts == ["0", "1", "2"]


async def test_an_idle_of_something_else_does_not_advance_the_queue(serving: Serving) -> None:
    """Only the idle whose parent is the active request counts."""
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel, open_meeting(serving.directory) as meeting:
        ear = Ear(channel)
        fake = "kernel.status('idle', {'msg_id': 'other', 'msg_type': 'execute_request'})"
        first = await ear.send(f"{fake}; say('x'); meet({meeting.path!r})")
        await ear.send("say('second')")
        await ear.until("iopub:stream")
        await meeting.reached()
        assert (await client.get_session("one")).execution_queue.length == 1
        await meeting.let_go()
        await ear.until("iopub:status=idle", parent=first)
        await ear.until("iopub:stream")


async def test_an_error_aborts_what_is_held(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel, open_meeting(serving.directory) as meeting:
        ear = Ear(channel)
        await ear.send(f"meet({meeting.path!r}); fail()")
        held = [await ear.send("say('never')") for _ in range(2)]
        await meeting.reached()
        await ear.until("executionQueued")
        await ear.until("executionQueued")
        await meeting.let_go()
        await ear.until("iopub:status=idle", parent=held[1])
        frames = await ear.execute("say('after')")
    for msg_id in held:
        answered = answers_to(ear.heard, msg_id)
        assert words(answered) == [
            "iopub:status=busy",
            "shell:execute_reply=aborted",
            "iopub:status=idle",
        ]
        reply = answered[1]
        assert reply["parent_header"]["msg_type"] == "execute_request"
        assert reply["content"]["status"] == "aborted"
    assert "iopub:stream" in words(frames)


async def test_without_stop_on_error_the_queue_goes_on(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel, open_meeting(serving.directory) as meeting:
        ear = Ear(channel)
        await ear.send(f"meet({meeting.path!r}); fail()", stop_on_error=False)
        held = await ear.send("say('still')")
        await meeting.reached()
        await meeting.let_go()
        frames = await ear.until("iopub:status=idle", parent=held)
    assert "iopub:stream" in words(frames)


async def test_requests_before_the_start_wait_for_the_kernel_in_order(serving: Serving) -> None:
    client = serving.client
    await client.new_session(puppet())
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await channel.request("is_complete_request", {"code": "1"})
        ids = [await ear.send(f"say('{number}')") for number in range(3)]
        await client.start_session("one")
        await ear.until("iopub:status=idle", parent=ids[-1])
    texts = [one["content"]["text"] for one in ear.heard if word(one) == "iopub:stream"]
    assert texts == ["0", "1", "2"]
    assert "shell:is_complete_reply" in words(ear.heard)


async def test_a_request_to_an_exited_session_is_aborted_at_once(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    await client.kill_session("one")
    await serving.wait_until("exited")
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        msg_id = await ear.send("say('never')")
        await channel.request("is_complete_request", {"code": "1"})
        await ear.until("iopub:status=idle", parent=msg_id)
        assert words(answers_to(ear.heard, msg_id)) == [
            "iopub:status=busy",
            "shell:execute_reply=aborted",
            "iopub:status=idle",
        ]
        await client.start_session("one")
        frames = await ear.execute("say(str(kernel.count))")
    texts = [one["content"]["text"] for one in frames if word(one) == "iopub:stream"]
    assert texts == ["1"]
    assert "shell:is_complete_reply" not in words(frames)


async def test_what_is_held_never_reaches_the_next_kernel(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.send("say('go')\nwhile True: pass")
        await ear.until("iopub:stream")
        held = await ear.send("say('never')")
        await ear.until("executionQueued")
        await client.restart_session("one")
        await ear.until("status=starting")
        frames = await ear.execute("say('new')")
    texts = [one["content"]["text"] for one in frames if word(one) == "iopub:stream"]
    assert texts == ["new"]
    assert "shell:execute_reply=aborted" in words(answers_to(ear.heard, held))


async def test_beyond_its_bound_the_queue_answers_with_an_error() -> None:
    async with open_serving(limits=Limits(held_executions=2)) as serving:
        client = serving.client
        await start_puppet(client)
        async with (
            client.open_channel("one") as channel,
            open_meeting(serving.directory) as meeting,
        ):
            ear = Ear(channel)
            await ear.send(f"meet({meeting.path!r})")
            ids = [await ear.send("say('x')") for _ in range(3)]
            await meeting.reached()
            await ear.until("iopub:status=idle", parent=ids[2])
            assert words(answers_to(ear.heard, ids[2])) == [
                "iopub:status=busy",
                "shell:execute_reply=error",
                "iopub:status=idle",
            ]
            await meeting.let_go()
            await ear.until("iopub:status=idle", parent=ids[1])
        texts = [one for one in words(ear.heard) if one == "iopub:stream"]
        assert len(texts) == 2


async def test_other_requests_are_not_held(serving: Serving) -> None:
    """Control is answered while the kernel is busy; stdin and comms go through."""
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel, open_meeting(serving.directory) as meeting:
        ear = Ear(channel)
        await ear.send(f"meet({meeting.path!r})")
        await meeting.reached()
        await channel.request("kernel_info_request", {}, channel="control")
        await ear.until("control:kernel_info_reply")
        await meeting.let_go()


async def test_an_execute_request_on_control_goes_by_the_queue_too(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel, open_meeting(serving.directory) as meeting:
        ear = Ear(channel)
        await ear.send(f"meet({meeting.path!r})")
        await meeting.reached()
        await channel.request("execute_request", {"code": "1"}, channel="control")
        await ear.until("executionQueued")
        await meeting.let_go()
        await ear.until("control:execute_reply=ok")


async def test_an_execute_request_elsewhere_is_refused(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one", after=0) as channel:
        ear = Ear(channel)
        for name in ("stdin", "iopub", "hb"):
            await channel.request("execute_request", {"code": "say('x')"}, channel=name)
            (*_, refused) = await ear.until("error")
            assert refused["error"]["code"] == "bad_request"
        frames = await ear.execute("say('good')")
    assert words(frames).count("iopub:stream") == 1
    assert (await client.get_session("one")).execution_queue.length == 0
