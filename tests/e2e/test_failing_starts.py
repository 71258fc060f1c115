"""Starts that fail: the answer says which step, and nothing is left (CONTRACT 3.2, 3.3).

That nothing is left, no process, file, port or task, is counted after every test by `open_serving`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from kallichore.client import RequestFailed, StartFailed
from tests.listening import Ear, words
from tests.puppets import open_meeting, puppet, session_of, start_puppet

if TYPE_CHECKING:
    from pathlib import Path

    from kallichore.models import NewSession
    from tests.serving import Serving

IN_USE = "Address already in use"


async def failure(serving: Serving, new: NewSession) -> StartFailed:
    """Create a session and give the answer to its start."""
    await serving.client.new_session(new)
    with pytest.raises(StartFailed) as caught:
        await serving.client.start_session(new.session_id)
    assert caught.value.status == 500
    return caught.value


@pytest.mark.parametrize(
    ("before", "code", "how"),
    [
        ("sys.exit(3)", 3, "exit status: 3"),
        ("sys.exit(0)", 0, "exit status: 0"),
        ("os._exit(255)", 255, "exit status: 255"),
        ("os.kill(os.getpid(), 9)", -1, "signal: 9 (SIGKILL)"),
        ("os.kill(os.getpid(), 11)", -1, "signal: 11 (SIGSEGV)"),
        ("os.kill(os.getpid(), 35)", -1, "signal: 35 (signal 35)"),
    ],
)
async def test_a_kernel_that_exits_at_once(
    serving: Serving, before: str, code: int, how: str
) -> None:
    failed = await failure(serving, puppet(before=before))
    assert (failed.code, failed.exit_code) == ("KS-8", code)
    assert failed.message == f"The process exited abnormally ({how})"
    record = await serving.client.get_session("one")
    assert (record.status, record.process_id) == ("exited", None)
    assert record.last_exit is not None
    assert record.last_exit.exit_code == code


async def test_the_output_of_a_failed_start_is_in_the_answer(serving: Serving) -> None:
    say = "os.write(1, b'out\\xff '); os.write(2, b'err '); sys.exit(3)"
    failed = await failure(serving, puppet(before=say))
    assert failed.output is not None
    assert sorted(failed.output.split()) == ["err", "out\N{REPLACEMENT CHARACTER}"]
    record = await serving.client.get_session("one")
    assert record.last_exit is not None
    assert "err" in (record.last_exit.output_tail or "")


async def test_a_connected_client_sees_the_output_and_the_end_of_a_failed_start(
    serving: Serving,
) -> None:
    client = serving.client
    await client.new_session(puppet(before="print('my last words', flush=True); sys.exit(3)"))
    async with client.open_channel("one") as channel, trio.open_nursery() as nursery:
        failures: list[StartFailed] = []

        async def start() -> None:
            with pytest.raises(StartFailed) as caught:
                await client.start_session("one")
            failures.append(caught.value)

        nursery.start_soon(start)
        frames = await Ear(channel).until("exited=3")
    assert words(frames) == ["status=starting", "output", "status=exited", "exited=3"]
    assert frames[1]["output"] == ["stdout", "my last words\n"]
    assert failures[0].output == "my last words\n"
    assert frames[2]["status"]["reason"] == failures[0].message


async def test_a_client_that_comes_later_sees_all_of_it_too(serving: Serving) -> None:
    client = serving.client
    await failure(serving, puppet(before="print('words'); sys.exit(3)"))
    async with client.open_channel("one") as channel:
        frames = await Ear(channel).until("exited=3")
    assert words(frames) == ["status=starting", "output", "status=exited", "exited=3"]


async def test_after_a_failed_start_the_session_can_be_started_again(
    serving: Serving, tmp_path: Path
) -> None:
    mark = str(tmp_path / "mark")
    once = f"os.path.exists({mark!r}) or (open({mark!r}, 'w'), sys.exit(1))"
    await failure(serving, puppet(before=once))
    assert (await serving.client.start_session("one"))["implementation"] == "puppet"
    assert (await serving.client.get_session("one")).status == "idle"


async def test_a_kernel_that_never_connects(serving: Serving) -> None:
    new = puppet("one", {"connection_timeout": 1}, bind=False)
    failed = await failure(serving, new)
    assert failed.code == "KS-7"
    assert failed.message == (
        "Timed out waiting to connect to session's ZeroMQ sockets after 1 seconds"
    )


async def test_a_kernel_that_never_answers(serving: Serving) -> None:
    failed = await failure(serving, puppet("one", {"connection_timeout": 1}, mute=True))
    assert failed.code == "KS-15"
    assert failed.message.startswith("Failed to get kernel info from the kernel process: ")


async def test_a_kernel_that_signs_wrongly_never_answers(serving: Serving) -> None:
    new = puppet("one", {"connection_timeout": 1}, key="0" * 32)
    assert (await failure(serving, new)).code == "KS-15"
    assert serving.supervisor.get("one").talk.counters.bad_signatures > 0


async def test_a_kernel_that_ignores_sigterm_fails_in_time(serving: Serving) -> None:
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    new = puppet("one", {"connection_timeout": 1}, mute=True, before=stubborn)
    with trio.fail_after(3):
        assert (await failure(serving, new)).code == "KS-15"


async def test_an_empty_command_cannot_be_started(serving: Serving) -> None:
    failed = await failure(serving, session_of([]))
    assert (failed.code, failed.exit_code) == ("KS-5", None)


async def test_a_command_that_has_gone_since(serving: Serving, tmp_path: Path) -> None:
    script = tmp_path / "kernel"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    await serving.client.new_session(session_of([str(script)]))
    script.unlink()
    with pytest.raises(StartFailed) as caught:
        await serving.client.start_session("one")
    assert caught.value.code == "KS-5"
    assert "No such file" in caught.value.message
    assert (await serving.client.get_session("one")).status == "exited"


async def test_a_command_that_is_no_program(serving: Serving, tmp_path: Path) -> None:
    script = tmp_path / "kernel"
    script.write_bytes(b"\x00\x01\x02 no program")
    script.chmod(0o700)
    failed = await failure(serving, session_of([str(script)]))
    assert failed.code == "KS-5"
    assert "Exec format error" in failed.message


async def test_a_lost_race_for_a_port_is_not_seen(serving: Serving, tmp_path: Path) -> None:
    """The kernel finds its port taken twice, says so and exits; the third time it comes up."""
    tries = str(tmp_path / "tries")
    race = (
        f"open({tries!r}, 'a').write('x'); "
        f"len(open({tries!r}).read()) < 3 and sys.exit('zmq: {IN_USE}')"
    )
    client = serving.client
    await start_puppet(client, before=race)
    assert (await client.get_session("one")).last_exit is None
    async with client.open_channel("one") as channel:
        frames = await Ear(channel).execute("say('1')")
    assert words(frames, "shell")[:2] == ["status=starting", "status=idle"]


async def test_a_race_that_is_lost_each_time_fails_after_the_fourth(
    serving: Serving, tmp_path: Path
) -> None:
    tries = tmp_path / "tries"
    race = f"open({str(tries)!r}, 'a').write('x'); sys.exit('zmq: {IN_USE}')"
    failed = await failure(serving, puppet(before=race))
    assert (failed.code, failed.exit_code) == ("KS-8", 1)
    assert tries.read_text() == "xxxx"


async def test_a_kernel_whose_port_is_held_by_another_gets_fresh_ports(
    serving: Serving, nursery: trio.Nursery
) -> None:
    """Somebody else took the shell port; the kernel just exits, and says nothing."""
    async with open_meeting(serving.directory) as meeting:
        tell = f"meet({meeting.path!r}, kernel.connection['shell_port']) and sys.exit(1)"
        nursery.start_soon(partial(start_puppet, serving.client, before=tell))
        port = await meeting.reached()
        (thief,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
        async with thief:
            await meeting.let_go("exit")
            assert await meeting.reached() != port
        await meeting.let_go("")
        await serving.wait_until("idle")


async def test_a_start_goes_on_when_its_caller_hangs_up(serving: Serving) -> None:
    client = serving.client
    async with open_meeting(serving.directory) as meeting, trio.open_nursery() as nursery:
        with trio.CancelScope() as caller:
            nursery.start_soon(partial(cancel_when_reached, meeting, caller))  # noqa: ASYNC111
            await start_puppet(client, ready=f"meet({meeting.path!r})")
        assert caller.cancelled_caught
        await meeting.let_go()
    await serving.wait_until("idle")


async def cancel_when_reached(meeting: Any, scope: trio.CancelScope) -> None:
    await meeting.reached()
    scope.cancel()


async def test_two_starts_at_once_make_one_kernel(serving: Serving) -> None:
    client = serving.client
    await client.new_session(puppet())
    answers: list[object] = []

    async def start() -> None:
        try:
            answers.append((await client.start_session("one"))["implementation"])
        except StartFailed as refused:
            answers.append(refused.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        nursery.start_soon(start)
    assert sorted(map(str, answers)) == ["KS-2", "puppet"]


async def test_a_kernel_is_killed_while_it_starts(serving: Serving) -> None:
    client = serving.client
    async with open_meeting(serving.directory) as meeting, trio.open_nursery() as nursery:
        codes: list[object] = []

        async def start() -> None:
            with pytest.raises(StartFailed) as caught:
                await start_puppet(client, ready=f"meet({meeting.path!r})")
            codes.append((caught.value.code, caught.value.exit_code))

        nursery.start_soon(start)
        await meeting.reached()
        await client.kill_session("one")
    assert codes == [("KS-8", -1)]
    record = await client.get_session("one")
    assert record.last_exit is not None
    assert (record.last_exit.requested, record.last_exit.signal) == (True, "SIGKILL")


async def test_a_session_that_starts_is_not_deleted(serving: Serving) -> None:
    client = serving.client
    async with open_meeting(serving.directory) as meeting, trio.open_nursery() as nursery:
        nursery.start_soon(partial(start_puppet, client, ready=f"meet({meeting.path!r})"))
        await meeting.reached()
        with pytest.raises(RequestFailed) as caught:
            await client.delete_session("one")
        await meeting.let_go()
    assert caught.value.code == "KS-2"
