"""Restarting a kernel (CONTRACT 3.5): clients stay, and hear every step in order."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from kallichore import models
from kallichore.client import StartFailed
from kallichore.config import Deadlines
from tests.listening import Ear, words
from tests.puppets import open_meeting, puppet, start_puppet
from tests.serving import open_serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serving import Serving

ENDED = ["status=exited", "exited=0"]
STARTED = ["status=starting", "status=idle"]
REPLACE = models.VarActionType.REPLACE


def setting(name: str, value: str) -> models.VarAction:
    return models.VarAction(action=REPLACE, name=name, value=value)


async def test_a_client_stays_through_a_restart(both_ways: Serving) -> None:
    client = both_ways.client
    await start_puppet(client)
    first = (await client.get_session("one")).process_id
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.execute("remembered = 1")
        await client.restart_session("one")
        frames = await ear.execute("say(str('remembered' in kernel.names))")
    said = words(frames, "iopub")
    assert said[:4] == ENDED + STARTED
    reasons = [frame["status"]["reason"] for frame in frames if "status" in frame]
    assert reasons[0] == "The kernel was shut down"
    texts = [frame["content"]["text"] for frame in frames if words([frame]) == ["iopub:stream"]]
    assert texts == ["False"]
    record = await client.get_session("one")
    assert record.process_id not in {None, first}
    assert record.last_exit is not None
    assert (record.last_exit.exit_code, record.last_exit.requested) == (0, True)


async def test_the_answer_comes_when_the_new_kernel_is_ready(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    await client.restart_session("one")
    assert (await client.get_session("one")).status == "idle"
    reply = await client.execute_code("one", models.ExecuteRequest(code="say('2')"))
    assert reply.output[0].text == "2"


@pytest.mark.parametrize("ended", [False, True])
async def test_a_session_without_a_kernel_is_simply_started(serving: Serving, ended: bool) -> None:  # noqa: FBT001
    client = serving.client
    if ended:
        await start_puppet(client)
        await client.kill_session("one")
        await serving.wait_until("exited")
    else:
        await client.new_session(puppet())
    await client.restart_session("one")
    assert (await client.get_session("one")).status == "idle"


async def test_directory_and_environment_are_changed_and_stay_so(
    serving: Serving, tmp_path: Path
) -> None:
    client = serving.client
    await start_puppet(client, "one", {"env": [setting("A", "1"), setting("B", "1")]})
    changes = models.RestartSession(working_directory=str(tmp_path), env=[setting("A", "2")])
    await client.restart_session("one", changes)
    where = "say(repr([os.getcwd(), os.environ.get('A'), os.environ.get('B')]))"
    expected = repr([str(tmp_path), "2", None])
    for _ in range(2):
        reply = await client.execute_code("one", models.ExecuteRequest(code=where))
        assert reply.output[0].text == expected
        await client.restart_session("one")
    assert (await client.get_session("one")).working_directory == str(tmp_path)


async def test_the_kernels_own_directory_is_kept(serving: Serving, tmp_path: Path) -> None:
    client = serving.client
    await start_puppet(client)
    code = f"os.chdir({str(tmp_path)!r})"
    await client.execute_code("one", models.ExecuteRequest(code=code))
    await client.restart_session("one")
    reply = await client.execute_code("one", models.ExecuteRequest(code="say(os.getcwd())"))
    assert reply.output[0].text == str(tmp_path)


async def test_what_is_no_utf8_spoils_no_description(tmp_path: Path) -> None:
    """Neither in the environment nor in a path; a restart finds the directory again."""
    odd = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(odd)  # noqa: PTH102 (bytes)
    environment = {**os.environ, "ODD": os.fsdecode(b"a\xff")}
    async with open_serving(environment=environment) as serving:
        client = serving.client
        await start_puppet(client)
        code = f"os.chdir({odd!r})"
        await client.execute_code("one", models.ExecuteRequest(code=code))
        await client.restart_session("one")
        (record,) = (await client.list_sessions()).sessions
        assert record.working_directory == f"{tmp_path}/\ufffd"
        assert (record.initial_env or {})["ODD"] == "a\ufffd"
        code = "say(ascii(os.getcwdb()))"
        reply = await client.execute_code("one", models.ExecuteRequest(code=code))
    assert reply.output[0].text == ascii(odd)


@pytest.mark.parametrize("wanted", ["gone", "x" * 300, "~nobody-of-that-name/x"])
async def test_a_directory_that_is_none_is_ignored(
    serving: Serving, tmp_path: Path, wanted: str
) -> None:
    client = serving.client
    await start_puppet(client, "one", {"working_directory": str(tmp_path)})
    changes = models.RestartSession(working_directory=wanted)
    await client.restart_session("one", changes)
    assert (await client.get_session("one")).working_directory == str(tmp_path)


async def test_a_tilde_is_expanded(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    await start_puppet(serving.client)
    changes = models.RestartSession(working_directory="~/work")
    await serving.client.restart_session("one", changes)
    record = await serving.client.get_session("one")
    assert record.working_directory == str(tmp_path / "work")


async def test_a_second_restart_meanwhile_is_refused(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with open_meeting(serving.directory) as meeting, trio.open_nursery() as nursery:
        env = [setting("MEET", meeting.path)]
        changes = models.RestartSession(env=env)
        await client.kill_session("one")
        await serving.wait_until("exited")
        await client.delete_session("one")
        await start_puppet(client, before="'MEET' in os.environ and meet(os.environ['MEET'])")
        nursery.start_soon(client.restart_session, "one", changes)
        await meeting.reached()
        with pytest.raises(StartFailed) as caught:
            await client.restart_session("one")
        await meeting.let_go()
    assert (caught.value.code, caught.value.status) == ("KS-13", 500)
    assert (await client.get_session("one")).status == "idle"


async def test_a_restart_that_fails_says_why_and_the_client_hears_it(
    serving: Serving, tmp_path: Path
) -> None:
    mark = str(tmp_path / "mark")
    once = f"os.path.exists({mark!r}) and sys.exit('once only'); open({mark!r}, 'w')"
    client = serving.client
    await start_puppet(client, before=once)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        with pytest.raises(StartFailed) as caught:
            await client.restart_session("one")
        await ear.until("exited=0")
        frames = await ear.until("exited=1")
    assert (caught.value.code, caught.value.exit_code) == ("KS-8", 1)
    assert caught.value.output == "once only\n"
    assert words(frames) == ["status=starting", "output", "status=exited", "exited=1"]


SHORT = Deadlines(restart_shutdown_seconds=0.2, kernel_shutdown_seconds=0.2, term_seconds=0.2)


@pytest.mark.parametrize(
    ("options", "ready", "signal"),
    [
        ({"polite": False}, "", "SIGTERM"),
        ({"polite": False}, "signal.signal(signal.SIGTERM, signal.SIG_IGN)", "SIGKILL"),
    ],
)
async def test_a_kernel_that_does_not_obey_is_made_to(
    options: dict[str, Any], ready: str, signal: str
) -> None:
    async with open_serving(deadlines=SHORT) as serving:
        client = serving.client
        await start_puppet(client, ready=ready, **options)
        await client.restart_session("one")
        record = await client.get_session("one")
    assert record.status == "idle"
    assert record.last_exit is not None
    assert (record.last_exit.signal, record.last_exit.requested) == (signal, True)


async def test_a_kernel_that_hangs_in_a_busy_loop_is_restarted() -> None:
    async with open_serving(deadlines=SHORT) as serving:
        client = serving.client
        await start_puppet(client, polite=False)
        async with client.open_channel("one") as channel:
            ear = Ear(channel)
            await ear.send("while True: pass")
            await ear.until("iopub:execute_input")
            await client.restart_session("one")
            frames = await ear.execute("say('free')")
    assert "exited=-1" in words(frames)
    assert "iopub:stream" in words(frames)


async def test_a_restart_goes_on_when_its_caller_hangs_up(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    session = serving.supervisor.get("one")
    with trio.CancelScope() as caller:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.restart_session, "one")
            await serving.wait_until("exited")
            caller.cancel()
    await serving.wait_until("idle")
    assert session.control.last_exit is not None


async def test_a_restart_while_the_kernel_starts_waits_for_its_turn(serving: Serving) -> None:
    client = serving.client
    async with open_meeting(serving.directory) as meeting, trio.open_nursery() as nursery:
        once = f"os.path.exists({meeting.path!r}) and meet({meeting.path!r})"
        nursery.start_soon(partial(start_puppet, client, ready=once))
        await meeting.reached()
        nursery.start_soon(client.restart_session, "one")
        await meeting.let_go()
        await meeting.pass_through()
    record = await client.get_session("one")
    assert record.status == "idle"
    assert record.last_exit is not None


async def test_a_kernel_hears_whether_it_ends_for_good(tmp_path: Path) -> None:
    """It is asked over control, before any signal, with `restart` as the contract has it."""
    told = tmp_path / "told"
    listen = (
        "import threading\n"
        "frames = kernel.frames\n"
        "def noted(msg_type, content, *rest, **more):\n"
        "    if msg_type == 'shutdown_reply':\n"
        f"        open({str(told)!r}, 'a').write(str(content['restart']) + ' ')\n"
        "    return frames(msg_type, content, *rest, **more)\n"
        "kernel.frames = noted"
    )
    async with open_serving() as serving:
        await start_puppet(serving.client, ready=listen)
        await serving.client.restart_session("one")
    assert told.read_text() == "True False "
