"""Kernels that somebody else runs, and a session adopts (CONTRACT 3.5)."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from kallichore.client import RequestFailed
from kallichore.config import Deadlines
from kallichore.kernel.launch import Launch
from kallichore.kernel.probe import listens
from kallichore.models import InterruptMode
from tests.listening import Ear, words
from tests.loopback import LOOPBACKS
from tests.puppets import PUPPET, open_meeting, puppet, session_of, start_puppet
from tests.serving import Serving, open_serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kallichore.kernel.process import Process
    from kallichore.models import ConnectionInfo

QUICK = Deadlines(
    heartbeat_pause_seconds=0.05, heartbeat_patience_seconds=0.1, adopted_lost_seconds=0.3
)


@asynccontextmanager
async def foreign_kernel(
    serving: Serving, connection: ConnectionInfo, **options: Any
) -> AsyncIterator[Process]:
    """Run a puppet that the server knows nothing of, at a given connection."""
    file = serving.directory / "foreign.json"
    file.write_bytes(msgspec.json.encode(connection))
    argv = [sys.executable, PUPPET, str(file), json.dumps(options)]
    async with serving.tools.reaper.spawn(Launch(argv=argv, env={}, cwd="/")) as process:
        try:
            yield process
        finally:
            file.unlink()


async def new_connection(serving: Serving) -> ConnectionInfo:
    """Create a session for adoption, as the usual flow has it."""
    await serving.client.new_session(session_of([]))
    return await serving.client.connection_info("one")


async def test_a_kernel_is_adopted_with_the_connection_we_gave_it(both_ways: Serving) -> None:
    client = both_ways.client
    connection = await new_connection(both_ways)
    assert await client.connection_info("one") == connection
    async with foreign_kernel(both_ways, connection):
        info = await client.adopt_session("one", connection)
        assert info["implementation"] == "puppet"
        record = await client.get_session("one")
        assert (record.status, record.process_id) == ("idle", None)
        async with client.open_channel("one") as channel:
            frames = await Ear(channel).execute("say('1')")
    assert words(frames, "iopub") == [
        "status=idle",
        "status=busy",
        "iopub:status=busy",
        "iopub:execute_input",
        "iopub:stream",
        "status=idle",
        "iopub:status=idle",
    ]


async def test_the_key_and_ports_given_are_used(serving: Serving) -> None:
    """Not those that the session would have shown."""
    client = serving.client
    own = await new_connection(serving)
    ports = serving.tools.ports.reserve(5)
    names = ("control_port", "shell_port", "stdin_port", "hb_port", "iopub_port")
    given = msgspec.structs.replace(own, key="another key", **dict(zip(names, ports, strict=True)))
    async with foreign_kernel(serving, given):
        await client.adopt_session("one", given)
        assert await client.connection_info("one") == given
        async with client.open_channel("one") as channel:
            assert "iopub:stream" in words(await Ear(channel).execute("say('1')"))
    serving.tools.ports.release(ports)


@LOOPBACKS
async def test_a_kernel_is_adopted_and_its_end_noticed_at_any_address(host: str) -> None:
    async with open_serving(deadlines=QUICK) as serving:
        client = serving.client
        given = msgspec.structs.replace(await new_connection(serving), ip=host)
        before = "import zmq; kernel.context.setsockopt(zmq.IPV6, 1)"
        async with foreign_kernel(serving, given, before=before) as process:
            await client.adopt_session("one", given)
            assert await client.connection_info("one") == given
            async with client.open_channel("one") as channel:
                assert "iopub:stream" in words(await Ear(channel).execute("say('1')"))
            process.signal_group(signal.SIGKILL)
            with trio.fail_after(5):
                await serving.wait_until("exited")


async def test_a_kernel_at_no_host_is_not_adopted(serving: Serving) -> None:
    given = msgspec.structs.replace(await new_connection(serving), ip="no such host")
    with pytest.raises(RequestFailed) as caught:
        await serving.client.adopt_session("one", given)
    assert (caught.value.status, caught.value.code) == (500, "KS-6")
    assert (await serving.client.get_session("one")).status == "uninitialized"


async def test_a_kernel_without_a_key_is_adopted(serving: Serving) -> None:
    given = msgspec.structs.replace(await new_connection(serving), key="")
    async with foreign_kernel(serving, given):
        info = await serving.client.adopt_session("one", given)
    assert info["implementation"] == "puppet"


@pytest.mark.parametrize("wrong", [{"transport": "ipc"}, {"signature_scheme": "hmac-md5"}])
async def test_what_we_do_not_speak_is_refused(serving: Serving, wrong: dict[str, str]) -> None:
    given = msgspec.structs.replace(await new_connection(serving), **wrong)
    with pytest.raises(RequestFailed, match=next(iter(wrong))) as caught:
        await serving.client.adopt_session("one", given)
    assert caught.value.code == "bad_request"


async def test_a_failed_adoption_leaves_the_session_as_it_was(serving: Serving) -> None:
    client = serving.client
    await client.new_session(session_of([], connection_timeout=1))
    connection = await client.connection_info("one")
    with pytest.raises(RequestFailed) as caught:
        await client.adopt_session("one", connection)
    assert (caught.value.status, caught.value.code) == (500, "KS-7")
    record = await client.get_session("one")
    assert (record.status, bytes(record.kernel_info), record.last_exit) == (
        "uninitialized",
        b"{}",
        None,
    )
    async with (
        open_meeting(serving.directory) as meeting,
        foreign_kernel(serving, connection, ready=f"meet({meeting.path!r})"),
    ):
        await meeting.pass_through()  # it takes its time to be there, the adoption has a second
        await client.adopt_session("one", connection)
        assert (await client.get_session("one")).status == "idle"


async def test_a_kernel_that_does_not_answer_is_not_adopted(serving: Serving) -> None:
    client = serving.client
    await client.new_session(session_of([], connection_timeout=1))
    connection = await client.connection_info("one")
    async with (
        open_meeting(serving.directory) as meeting,
        foreign_kernel(serving, connection, mute=True, ready=f"meet({meeting.path!r})"),
    ):
        await meeting.pass_through()
        with pytest.raises(RequestFailed) as caught:
            await client.adopt_session("one", connection)
    assert caught.value.code == "KS-15"
    assert (await client.get_session("one")).status == "uninitialized"


async def test_finding_the_host_is_part_of_the_time_that_an_adoption_has(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(host: str) -> str:
        await trio.sleep(1.5)
        return host

    monkeypatch.setattr("kallichore.kernel.adopted.address_of", find)
    await serving.client.new_session(session_of([], connection_timeout=2))
    connection = await serving.client.connection_info("one")
    async with foreign_kernel(serving, connection, mute=True):
        with trio.fail_after(3), pytest.raises(RequestFailed) as caught:
            await serving.client.adopt_session("one", connection)
    assert caught.value.code == "KS-15"


async def test_a_kernel_that_is_not_ours_yet_is_not_ended_with_us(serving: Serving) -> None:
    client = serving.client
    connection = await new_connection(serving)

    async def adopt() -> None:
        with pytest.raises(RequestFailed, match="kernel info"):
            await client.adopt_session("one", connection)

    async with foreign_kernel(serving, connection, mute=True) as kernel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(adopt)
            while serving.supervisor.get("one").talk.run is None:  # noqa: ASYNC110 - a process elsewhere
                await trio.lowlevel.checkpoint()
            while not await listens(connection.ip, connection.control_port):  # noqa: ASYNC110
                await trio.lowlevel.checkpoint()
            await serving.supervisor.get("one").control.shut_down()
        with trio.move_on_after(0.2):
            await kernel.wait()
        assert kernel.returncode is None


async def test_a_running_session_adopts_nothing(serving: Serving) -> None:
    await start_puppet(serving.client)
    connection = await serving.client.connection_info("one")
    with pytest.raises(RequestFailed) as caught:
        await serving.client.adopt_session("one", connection)
    assert caught.value.code == "KS-2"


async def test_a_busy_kernel_is_busy_from_the_first(serving: Serving) -> None:
    """It publishes busy for somebody else's work, and answers on shell all the same."""
    client = serving.client
    connection = await new_connection(serving)
    chatter = (
        "import threading\n"
        "def work():\n"
        "    while True:\n"
        "        kernel.status('busy', {'msg_id': 'x', 'msg_type': 'execute_request'})\n"
        "        time.sleep(0.001)\n"
        "threading.Thread(target=work, daemon=True).start()"
    )
    async with foreign_kernel(serving, connection, ready=chatter, quiet=True):
        await client.adopt_session("one", connection)
        assert (await client.get_session("one")).status == "busy"


async def test_without_a_process_there_is_nothing_to_signal_or_kill(serving: Serving) -> None:
    client = serving.client
    connection = await new_connection(serving)
    async with foreign_kernel(serving, connection):
        await client.adopt_session("one", connection)
        with pytest.raises(RequestFailed) as interrupt:
            await client.interrupt_session("one")
        with pytest.raises(RequestFailed) as kill:
            await client.kill_session("one")
    assert (interrupt.value.status, interrupt.value.code) == (400, "KS-10")
    assert (kill.value.status, kill.value.code) == (400, "KS-12")


async def test_an_adopted_kernel_that_is_gone_has_exited_with_zero() -> None:
    async with open_serving(deadlines=QUICK) as serving:
        client = serving.client
        connection = await new_connection(serving)
        async with client.open_channel("one") as channel:
            ear = Ear(channel)
            async with foreign_kernel(serving, connection):
                await client.adopt_session("one", connection)
                await ear.execute("pass")
            frames = await ear.until("exited=0")
        assert words(frames) == ["status=offline", "status=exited", "exited=0"]
        record = await client.get_session("one")
        assert record.last_exit is not None
        assert (record.last_exit.exit_code, record.last_exit.requested) == (0, False)


async def test_an_adopted_kernel_that_is_silent_for_long_is_gone() -> None:
    """Its sockets are there, but it is frozen."""
    async with open_serving(deadlines=QUICK) as serving:
        client = serving.client
        connection = await new_connection(serving)
        async with foreign_kernel(serving, connection) as process:
            await client.adopt_session("one", connection)
            process.signal_group(signal.SIGSTOP)
            await serving.wait_until("offline")
            await serving.wait_until("exited")


async def test_an_adopted_kernel_that_wakes_in_time_is_back() -> None:
    deadlines = Deadlines(heartbeat_pause_seconds=0.05, heartbeat_patience_seconds=0.1)
    async with open_serving(deadlines=deadlines) as serving:
        client = serving.client
        connection = await new_connection(serving)
        async with foreign_kernel(serving, connection) as process:
            await client.adopt_session("one", connection)
            process.signal_group(signal.SIGSTOP)
            await serving.wait_until("offline")
            process.signal_group(signal.SIGCONT)
            await serving.wait_until("idle")


async def test_a_session_with_a_command_shows_its_connection_while_it_runs(
    serving: Serving,
) -> None:
    client = serving.client
    await client.new_session(puppet())
    with pytest.raises(RequestFailed) as caught:
        await client.connection_info("one")
    assert (caught.value.status, caught.value.code) == (500, "KS-18")
    await client.start_session("one")
    connection = await client.connection_info("one")
    assert (connection.transport, connection.ip) == ("tcp", "127.0.0.1")
    assert len({connection.shell_port, connection.iopub_port, connection.hb_port}) == 3


async def test_an_adopted_session_is_restarted_only_with_a_command(serving: Serving) -> None:
    """There is nothing to start in the kernel's place, so it lives on."""
    client = serving.client
    connection = await new_connection(serving)
    async with foreign_kernel(serving, connection):
        await client.adopt_session("one", connection)
        with pytest.raises(RequestFailed) as caught:
            await client.restart_session("one")
        assert caught.value.code == "KS-5"
        assert (await client.get_session("one")).status == "idle"
        async with client.open_channel("one") as channel:
            await Ear(channel).execute("pass")


async def test_an_adopted_kernel_is_what_it_says_it_is(serving: Serving) -> None:
    """One that publishes no status is ready; and one that takes messages is interrupted."""
    client = serving.client
    new = session_of([], interrupt_mode=InterruptMode.MESSAGE)
    await client.new_session(new)
    connection = await client.connection_info("one")
    async with foreign_kernel(serving, connection, quiet=True):
        await client.adopt_session("one", connection)
        assert (await client.get_session("one")).status == "ready"
        async with client.open_channel("one") as channel:
            ear = Ear(channel)
            msg_id = await ear.send("say('go')\nwhile True: pass")
            await ear.until("iopub:stream")
            await client.interrupt_session("one")
            frames = await ear.until("iopub:status=idle", parent=msg_id)
    assert "iopub:error" in words(frames)
    assert (await client.get_session("one")).working_directory == os.getcwd()  # noqa: PTH109
