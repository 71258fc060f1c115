"""What a kernel starts ends with it (issue 6): children, strays, and those that hold its output.

`open_serving` counts at the end of every test that no process is left at all.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from kallichore import _platform
from kallichore.config import Deadlines
from kallichore.models import ExecuteRequest
from tests.listening import Ear
from tests.puppets import start_puppet
from tests.serving import open_serving, take_account

if TYPE_CHECKING:
    from kallichore.client import Client
    from tests.serving import Serving

SPAWN = "import json; say(json.dumps([spawn(kind) for kind in ('plain', 'setsid', 'double')]))"


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if _platform.process_start_time(pid) is not None]


async def spawned(client: Client, code: str = SPAWN) -> list[int]:
    """Have the kernel start processes, and give their pids."""
    reply = await client.execute_code("one", ExecuteRequest(code=code))
    pids: list[int] = json.loads(reply.output[0].text or "")
    assert alive(pids) == pids
    return pids


async def ends_by_kill(serving: Serving) -> None:
    await serving.client.kill_session("one")
    await serving.wait_until("exited")


async def ends_by_restart(serving: Serving) -> None:
    await serving.client.restart_session("one")


async def ends_by_itself(serving: Serving) -> None:
    async with serving.client.open_channel("one") as channel:
        await Ear(channel).send("os._exit(0)")
        await serving.wait_until("exited")


async def ends_by_signal(serving: Serving) -> None:
    pid = (await serving.client.get_session("one")).process_id
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await serving.wait_until("exited")


@pytest.mark.parametrize(
    "end", [ends_by_kill, ends_by_restart, ends_by_itself, ends_by_signal], ids=lambda f: f.__name__
)
async def test_what_a_kernel_started_ends_with_it(serving: Serving, end: Any) -> None:
    await start_puppet(serving.client)
    pids = await spawned(serving.client)
    with trio.fail_after(2):
        await end(serving)
    assert alive(pids) == []


async def test_what_has_shed_its_environment_ends_too(serving: Serving) -> None:
    await start_puppet(serving.client)
    code = "import json; say(json.dumps([spawn('plain', env={}), spawn('setsid', env={})]))"
    pids = await spawned(serving.client, code)
    with trio.fail_after(2):
        await ends_by_kill(serving)
    assert alive(pids) == []


async def test_what_a_failed_start_left_ends_too(serving: Serving) -> None:
    before = "[spawn(kind) for kind in ('plain', 'setsid', 'double')]; sys.exit(1)"
    with pytest.raises(Exception, match="KS-8"), trio.fail_after(2):
        await start_puppet(serving.client, before=before)


async def test_a_grandchild_that_holds_the_output_delays_nothing(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    await client.execute_code("one", ExecuteRequest(code="spawn('double', hold_output=True)"))
    with trio.fail_after(2):
        await ends_by_kill(serving)


async def test_one_sessions_processes_are_not_anothers(serving: Serving) -> None:
    for name in ("one", "two"):
        await start_puppet(serving.client, name)
    reply = await serving.client.execute_code("two", ExecuteRequest(code=SPAWN))
    pids = json.loads(reply.output[0].text or "")
    await ends_by_kill(serving)
    assert alive(pids) == pids


async def test_a_stop_of_the_server_leaves_nothing_and_is_bounded() -> None:
    """Kernels that obey, that ignore SIGTERM, that are frozen, and a client on two of them."""
    deadlines = Deadlines(kernel_shutdown_seconds=0.3, term_seconds=0.3)
    with trio.CancelScope() as patience:
        async with open_serving(deadlines=deadlines) as serving:
            client = serving.client
            stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
            await start_puppet(client, "obeys")
            await start_puppet(client, "stubborn", polite=False, ready=stubborn)
            await start_puppet(client, "one", polite=False)
            pids = await spawned(client)
            await start_puppet(client, "frozen")
            pid = (await client.get_session("frozen")).process_id
            assert pid is not None
            pids.append(pid)
            os.kill(pid, signal.SIGSTOP)
            async with client.open_channel("one"), client.open_channel("obeys"):
                patience.deadline = trio.current_time() + 4
                await client.shutdown_server()
                await serving.supervisor.stop_requested.wait()
    assert not patience.cancelled_caught
    assert alive(pids) == []


async def test_a_kernel_that_forks_without_end_is_ended(serving: Serving) -> None:
    """A bounded fork bomb: each child starts another, in a session of its own."""
    client = serving.client
    await start_puppet(client)
    bomb = (
        "def bomb(n):\n"
        "    while n:\n"
        "        if os.fork() == 0: os.setsid(); time.sleep(0.001); n -= 1\n"
        "        else: time.sleep(60)\n"
        "    time.sleep(60)\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0: bomb(100)\n"
        "say('lit')"
    )
    await client.execute_code("one", ExecuteRequest(code=bomb))
    with trio.fail_after(5):
        await ends_by_kill(serving)


async def test_a_kernel_gets_no_descriptor_of_ours_and_no_token(serving: Serving) -> None:
    code = (
        "import json, os\n"
        "fds = {n: os.readlink(f'/proc/self/fd/{n}') for n in ('0', '1', '2')}\n"
        "others = [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')"
        " if int(n) > 2 and os.path.exists(f'/proc/self/fd/{n}')]\n"
        "say(json.dumps([fds, others, dict(os.environ)]))"
    )
    client = serving.client
    await start_puppet(client, before="had = os.listdir('/proc/self/fd')", info={})
    reply = await client.execute_code("one", ExecuteRequest(code=code))
    standard, _, environment = json.loads(reply.output[0].text or "")
    assert standard["0"] == "/dev/null"
    assert standard["1"].startswith("pipe:")
    assert standard["2"].startswith("pipe:")
    assert serving.target.token is not None
    assert serving.target.token not in json.dumps(environment)
    had = await client.execute_code("one", ExecuteRequest(code="say(str(len(had)))"))
    assert int(had.output[0].text or "") <= 5  # three, the listing's own, and the epoll of libzmq


async def test_a_session_that_ends_takes_everything_with_it(serving: Serving) -> None:
    """Tasks and descriptors are what they were before, while the server goes on."""
    client = serving.client
    accounts = []
    for _ in range(3):
        await start_puppet(client)
        async with client.open_channel("one") as channel:
            await Ear(channel).execute("say('1')")
        await ends_by_kill(serving)
        await client.delete_session("one")
        await trio.testing.wait_all_tasks_blocked(0.05)
        accounts.append(take_account())
    assert accounts[2].grown_since(accounts[0]) == {}
