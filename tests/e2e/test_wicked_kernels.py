"""Kernels that misbehave (issue 6): each harms only itself."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from kallichore.config import Deadlines, Limits
from kallichore.models import ExecuteRequest
from tests.listening import Ear, word, words
from tests.puppets import open_meeting, start_puppet
from tests.serving import open_serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.serving import Serving

QUICK_HEART = Deadlines(
    heartbeat_pause_seconds=0.05, heartbeat_patience_seconds=0.2, idle_seconds=0.2
)
SWALLOW = "kernel.status = lambda *_: kernel.__dict__.pop('status')"
"""Code whose idle is not sent, as though the socket had no room for it."""
SWALLOW_NEXT = """
status, sent = kernel.status, ['idle', 'busy']
def once(state, parent):
    if sent:
        sent.remove(state)
        status(state, parent)
    else:
        del kernel.status
kernel.status = once
"""
"""The same, for the request that follows."""


@pytest.fixture
async def quick() -> AsyncIterator[Serving]:
    """A server whose heartbeats are quick."""
    async with open_serving(deadlines=QUICK_HEART) as opened:
        yield opened


def texts(frames: list[dict[str, object]]) -> list[str]:
    return [one["content"]["text"] for one in frames if word(one) == "iopub:stream"]  # type: ignore[index]


async def test_a_frozen_kernel_is_offline_and_comes_back(quick: Serving) -> None:
    client = quick.client
    await start_puppet(client)
    pid = (await client.get_session("one")).process_id
    assert pid is not None
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.execute("pass")
        os.kill(pid, signal.SIGSTOP)
        (*_, lost) = await ear.until("status=offline")
        assert lost["status"]["reason"] == "lost heartbeat"
        await ear.send("say('late')")
        os.kill(pid, signal.SIGCONT)
        with trio.fail_after(2):
            (*_, back) = await ear.until("status=idle")
            # Whichever comes first: the answer to the heartbeat, or the late execution.
            back_by = {"heartbeat detected after offline", "execute_request"}
            assert back["status"]["reason"] in back_by
        if "late" not in texts(ear.heard):
            await ear.until("iopub:stream")
        assert texts(await ear.execute("say('on')"))[-1:] == ["on"]
    assert texts(ear.heard) == ["late", "on"]


async def test_a_kernel_frozen_at_work_is_busy_when_it_comes_back(quick: Serving) -> None:
    client = quick.client
    await start_puppet(client)
    async with client.open_channel("one") as channel, open_meeting(quick.directory) as meeting:
        ear = Ear(channel)
        msg_id = await ear.send(f"meet({meeting.path!r}, os.getpid())")
        pid = await meeting.reached()
        os.kill(pid, signal.SIGSTOP)
        await ear.until("status=offline")
        os.kill(pid, signal.SIGCONT)
        await ear.until("status=busy")
        await meeting.let_go()
        await ear.until("iopub:status=idle", parent=msg_id)


async def test_a_frozen_kernel_can_be_killed_and_started_again(quick: Serving) -> None:
    client = quick.client
    await start_puppet(client)
    pid = (await client.get_session("one")).process_id
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await quick.wait_until("offline")
    await client.kill_session("one")
    await quick.wait_until("exited")
    await client.start_session("one")


async def test_a_kernel_without_a_heartbeat_is_offline_but_still_talks(quick: Serving) -> None:
    client = quick.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.execute("pass")
        await ear.send("kernel.deaf = True")
        await ear.until("status=offline")
        assert texts(await ear.execute("say('still')")) == ["still"]
        await client.kill_session("one")


@pytest.mark.parametrize("name", ["iopub", "stdin"])
async def test_a_kernel_that_closes_a_socket_and_lives_can_still_be_ended(
    serving: Serving, name: str
) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.send(f"close({name!r})")
        if name != "iopub":
            await client.execute_code("one", ExecuteRequest(code="1"))
        await client.kill_session("one")
        await ear.until("exited=-1")
    await client.start_session("one")


CUT = "from deeds import cut; cut(kernel.connection['{}_port'])"


@pytest.mark.parametrize("name", ["shell", "control", "stdin", "hb"])
async def test_a_connection_that_breaks_under_a_living_kernel_is_made_again(
    serving: Serving, name: str
) -> None:
    """What was under way on it is lost, and nothing else: the kernel goes on with what follows."""
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.send(CUT.format(name))
        assert texts(await ear.execute("say('on')"))[-1:] == ["on"]
        await channel.request("kernel_info_request", {}, channel="control")
        await ear.until("control:kernel_info_reply")
    await client.restart_session("one")


async def test_an_idle_that_is_lost_is_made_up_for(quick: Serving) -> None:
    """The client sees one all the same, and what waits behind it goes out."""
    client = quick.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        lost = await ear.send(SWALLOW)
        held = await ear.send("say('on')")
        first = await ear.until("iopub:status=idle")
        assert first[-1]["parent_header"]["msg_id"] == lost
        change = next(one for one in first if word(one) == "status=idle")
        assert change["status"]["reason"] == "kernel_info_request"
        assert texts(await ear.until("iopub:status=idle", parent=held)) == ["on"]
        reply = await client.execute_code("one", ExecuteRequest(code=SWALLOW))
        assert reply.status == "ok"
        assert "shell:kernel_info_reply" not in words(ear.heard)


async def test_a_session_does_not_stay_busy_because_an_idle_is_lost(quick: Serving) -> None:
    client = quick.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.execute(SWALLOW_NEXT)
        await channel.request("comm_msg", {"comm_id": "c", "data": {}})
        await ear.until("status=busy")
        await ear.until("status=idle")
        assert "iopub:status=busy" in words(ear.heard)


async def test_a_kernel_whose_iopub_broke_at_work_goes_on(quick: Serving) -> None:
    """The idle after the first question may be lost as well: it is asked again."""
    client = quick.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        msg_id = await ear.send(CUT.format("iopub"))
        assert texts(await ear.execute("say('on')")) == ["on"]
        first = next(one for one in ear.heard if word(one) == "iopub:status=idle")
        assert first["parent_header"]["msg_id"] == msg_id


async def test_a_kernel_whose_iopub_broke_at_work_can_be_restarted(serving: Serving) -> None:
    """Its idle is lost, so what follows is held; all else goes on, and a restart helps."""
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        # On a slow machine the connection might be there again before the idle is sent.
        msg_id = await ear.send(CUT.format("iopub") + "\n" + SWALLOW)
        await ear.until("shell:execute_reply=ok", parent=msg_id)
        held = await ear.send("say('on')")
        await channel.request("kernel_info_request", {}, channel="control")
        await ear.until("control:kernel_info_reply")
        await client.restart_session("one")
        if "shell:execute_reply=aborted" not in words(ear.heard):
            await ear.until("shell:execute_reply=aborted", parent=held)
        assert texts(await ear.execute("say('on')")) == ["on"]


async def test_a_kernel_that_does_not_read_blocks_neither_itself_nor_others(
    serving: Serving,
) -> None:
    """Messages to it wait; its iopub, its control and another session go on."""
    client = serving.client
    for name in ("one", "two"):
        await start_puppet(client, name)
    async with (
        client.open_channel("one") as channel,
        client.open_channel("two") as other,
        open_meeting(serving.directory) as meeting,
    ):
        ear = Ear(channel)
        tick = f"meet({meeting.path!r})\nfor n in range(100): say(str(n))\nmeet({meeting.path!r})"
        await ear.send(tick)
        await meeting.reached()
        for _ in range(200):
            await channel.request("comm_msg", {"comm_id": "c", "data": {}}, buffers=[bytes(10**5)])
        await meeting.let_go()
        await meeting.reached()
        while "99" not in texts(ear.heard):
            await ear.next()
        await channel.request("kernel_info_request", {}, channel="control")
        await ear.until("control:kernel_info_reply")
        assert texts(await Ear(other).execute("say('on')")) == ["on"]
        await meeting.let_go()
        for _ in range(200):
            await ear.until("iopub:comm_msg")


async def test_more_than_may_wait_for_a_kernel_is_refused_in_words() -> None:
    limits = Limits(client_messages_waiting=5)
    async with open_serving(limits=limits) as serving:
        client = serving.client
        async with (
            open_meeting(serving.directory) as meeting,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(lambda: start_puppet(client, ready=f"meet({meeting.path!r})"))
            await meeting.reached()
            async with client.open_channel("one", after=0) as channel:
                ear = Ear(channel)
                for _ in range(6):
                    await channel.request("is_complete_request", {"code": "1"})
                (*_, refused) = await ear.until("error")
                assert "is_complete_request" in refused["error"]["message"]
                msg_id = await ear.send("1")
                await ear.until("shell:execute_reply=error", parent=msg_id)
                await meeting.let_go()
                for _ in range(5):
                    await ear.until("shell:is_complete_reply")


async def test_a_flood_on_iopub_loses_nothing_and_delays_nobody(serving: Serving) -> None:
    client = serving.client
    for name in ("one", "two"):
        await start_puppet(client, name)
    async with client.open_channel("one") as channel, client.open_channel("two") as other:
        ear, quiet = Ear(channel), Ear(other)
        await quiet.execute("pass")
        msg_id = await ear.send("for n in range(20000): say(str(n))")
        await ear.until("iopub:stream")
        with trio.fail_after(2):
            await quiet.execute("say('on')")
        await ear.until("iopub:status=idle", parent=msg_id)
    assert texts(ear.heard) == [str(number) for number in range(20000)]


async def test_a_hundred_megabytes_on_stdout_without_a_newline_are_bounded() -> None:
    """Nobody is connected; what is kept in memory and on disk stays within its bounds."""
    limits = Limits(outbox_memory_bytes=2**20, outbox_disk_bytes=8 * 2**20)
    async with open_serving(limits=limits) as serving:
        client = serving.client
        await start_puppet(client)
        code = "for _ in range(100): os.write(1, b'x' * 2**20)"
        await client.execute_code("one", ExecuteRequest(code=code))
        outbox = serving.supervisor.get("one").talk.outbox
        assert outbox.spooled_bytes <= 8 * 2**20
        async with client.open_channel("one") as channel:
            frames = await Ear(channel).execute("say('end')")
        assert any("dropped" in text for text in texts(frames))
        assert texts(frames)[-1] == "end"
        await client.kill_session("one")
        await serving.wait_until("exited")


async def test_a_kernel_that_exits_while_it_is_being_ended(serving: Serving) -> None:
    """It is asked to shut down, and dies of something else meanwhile."""
    client = serving.client
    die = "signal.signal(signal.SIGUSR2, lambda *_: os._exit(9))"
    await start_puppet(client, ready=die)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await client.restart_session("one")
        frames = await ear.until("exited=9")
    assert words(frames).count("status=exited") == 1


async def test_a_kernel_busy_for_ever_is_interrupted_then_restarted() -> None:
    deadlines = Deadlines(
        restart_shutdown_seconds=0.2, kernel_shutdown_seconds=0.2, term_seconds=0.2
    )
    async with open_serving(deadlines=deadlines) as serving:
        client = serving.client
        deaf = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
        deaf += "; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
        await start_puppet(client, polite=False, ready=deaf)
        async with client.open_channel("one") as channel:
            ear = Ear(channel)
            await ear.send("say('on')\nwhile True: pass")
            await ear.until("iopub:stream")
            await client.interrupt_session("one")
            await client.restart_session("one")
            await ear.until("exited=-1")
            assert texts(await ear.execute("say('free')")) == ["free"]


async def test_a_clock_that_is_set_back_changes_nothing(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serving.client
    await start_puppet(client)
    monkeypatch.setattr("time.time", lambda: 0.0)
    reply = await client.execute_code("one", ExecuteRequest(code="say('on')", timeout_seconds=5))
    assert reply.output[0].text == "on"
