"""Kernels that are late or frozen, with the deadlines that a server really has (issue 6).

The clock is set forward where nothing happens, and slow otherwise, so that a loaded machine is not
taken for a kernel that misbehaves.
"""

from __future__ import annotations

import os
import signal

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kallichore.config import Deadlines
from tests.listening import Ear, words
from tests.puppets import open_meeting, start_puppet
from tests.serving import open_serving

SLOW = 0.1
"""Seconds of the tests' clock in one of the machine's."""


@pytest.fixture
def clock() -> MockClock:
    """What Trio goes by."""
    return MockClock(rate=1)


async def test_a_kernel_that_answers_after_29_seconds_has_started(clock: MockClock) -> None:
    assert Deadlines().connection_seconds == 30
    async with open_serving() as serving, open_meeting(serving.directory) as meeting:
        began = trio.current_time()

        async def start() -> None:
            await start_puppet(serving.client, ready=f"meet({meeting.path!r})")

        async with trio.open_nursery() as nursery:
            clock.rate = SLOW
            nursery.start_soon(start)
            await meeting.reached()
            clock.jump(29 - (trio.current_time() - began))
            await wait_all_tasks_blocked()
            assert serving.supervisor.get("one").status == "starting"
            await meeting.let_go()
        assert 29 <= trio.current_time() - began < 30
        clock.rate = 1
        async with serving.client.open_channel("one") as channel:
            assert "iopub:stream" in words(await Ear(channel).execute("say('on')"))


async def test_a_frozen_kernel_is_offline_within_7_seconds_and_back_within_2(
    clock: MockClock,
) -> None:
    async with open_serving() as serving:
        client = serving.client
        await start_puppet(client)
        async with client.open_channel("one") as channel:
            ear = Ear(channel)
            await ear.execute("pass")
            pid = (await client.get_session("one")).process_id
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            clock.rate = 0
            frozen = trio.current_time()
            while serving.supervisor.get("one").status != "offline":
                clock.jump(0.1)
                await wait_all_tasks_blocked(0.001)
            assert trio.current_time() - frozen <= 7.2  # as the clock is set forward in steps
            clock.rate = SLOW
            os.kill(pid, signal.SIGCONT)
            thawed = trio.current_time()
            await ear.until("status=idle")
            assert trio.current_time() - thawed <= 2
            clock.rate = 1
            await ear.execute("pass")
