"""The bad requests that issue 4 lists: a clear error for the offender, and nobody else suffers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from kallichore.client import RequestFailed, SessionUnknown, StartFailed
from kallichore.config import Limits
from tests.listening import Ear, word
from tests.puppets import puppet, puppet_argv, session_of, start_puppet
from tests.serving import Serving, open_serving

if TYPE_CHECKING:
    import httpx

BODY: dict[str, Any] = {
    "session_id": "one",
    "display_name": "P",
    "language": "python",
    "username": "u",
    "input_prompt": "",
    "continuation_prompt": "",
    "argv": puppet_argv(),
    "session_mode": "console",
    "working_directory": "",
    "env": [],
    "interrupt_mode": "signal",
    "startup_environment": "none",
}
ODD_IDS = {
    "slashes": "a/b//c/",
    "dots": "../../etc/passwd",
    "a dot": ".",
    "two dots": "..",
    "quotes": 'it\'s "one"',
    "emoji": "🐍 kernel",
    "percent": "100%2F%",
    "question": "a?b=c#d",
    "spaces": "  ",
    "255 bytes": "x" * 255,
    "255 bytes of UTF-8": "é" * 127 + "x",
    "a plus": "a+b&c",
    "a backslash": "a\\b",
}
REFUSED_IDS = {
    "empty": "",
    "256 bytes": "x" * 256,
    "256 bytes of UTF-8": "é" * 128,
    "a newline": "a\nb",
    "a NUL": "a\0b",
    "an escape": "a\x1bb",
    "a C1 control": "a\x9bb",
}


@pytest.mark.parametrize("what", ODD_IDS)
async def test_an_odd_session_id_works_everywhere(both_ways: Serving, what: str) -> None:
    client, session_id = both_ways.client, ODD_IDS[what]
    await start_puppet(client, session_id)
    assert (await client.get_session(session_id)).session_id == session_id
    async with client.open_channel(session_id) as channel:
        frames = await Ear(channel).execute("say(kernel.identity.hex())")
    (said,) = [one["content"]["text"] for one in frames if word(one) == "iopub:stream"]
    assert bytes.fromhex(said) == session_id.encode()  # of our sockets (CONTRACT 6)
    await client.kill_session(session_id)
    await both_ways.wait_until("exited", session_id)
    await client.delete_session(session_id)
    with pytest.raises(SessionUnknown):
        await client.get_session(session_id)


@pytest.mark.parametrize("what", REFUSED_IDS)
async def test_a_session_id_that_is_none_is_refused(serving: Serving, what: str) -> None:
    assert "session_id" in await refusal(serving, session_id=REFUSED_IDS[what])
    assert serving.supervisor.sessions == {}


async def put(serving: Serving, body: str) -> httpx.Response:
    return await serving.client._http._client.request("PUT", "/sessions", content=body)


async def refusal(serving: Serving, **changes: Any) -> str:
    """Ask for a session that cannot be; give the message of the answer."""
    answer = await put(serving, json.dumps(BODY | changes))
    assert answer.status_code == 400
    message: str = answer.json()["message"]
    return message


async def test_similar_ids_do_not_share_anything(serving: Serving) -> None:
    ids = ["prefix/1", "prefix_1", "prefix 1", "prefix-1", "PREFIX/1"]
    for session_id in ids:
        await start_puppet(serving.client, session_id)
    paths = [await serving.client.channels_upgrade(session_id) for session_id in ids]
    assert len(set(paths)) == len(ids)
    pids = {(await serving.client.get_session(one)).process_id for one in ids}
    assert len(pids) == len(ids)


NO_PROGRAMS = ["/no/such/file", "no-such-program", "/usr", ".", "/etc/passwd", ""]


@pytest.mark.parametrize("argv0", NO_PROGRAMS)
async def test_a_command_that_is_none_is_refused_at_creation(serving: Serving, argv0: str) -> None:
    with pytest.raises(RequestFailed) as caught:
        await serving.client.new_session(session_of([argv0]))
    assert (caught.value.status, caught.value.code) == (400, "KS-19")
    assert caught.value.message == f"Kernel path not found: {argv0}"
    assert serving.supervisor.sessions == {}


async def test_an_id_that_is_taken_is_refused_even_at_the_same_time(serving: Serving) -> None:
    answers = []

    async def create() -> None:
        try:
            answers.append(await serving.client.new_session(puppet()))
        except RequestFailed as refused:
            answers.append(f"{refused.code} {refused.message}")

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(create)
    assert sorted(answers) == ["KS-0 Session one already exists"] * 4 + ["one"]


@pytest.mark.parametrize("name", ["A=B", "", "=", "A\0"])
async def test_a_variable_that_cannot_be_is_refused(serving: Serving, name: str) -> None:
    action = {"action": "replace", "name": name, "value": "x"}
    assert "name" in await refusal(serving, env=[action])


@pytest.mark.parametrize(
    "change",
    [
        {"env": [{"action": "replace", "name": "A", "value": "\0"}]},
        {"argv": ["python\0"]},
        {"working_directory": "/\0"},
    ],
)
async def test_a_nul_is_refused(serving: Serving, change: dict[str, Any]) -> None:
    assert next(iter(change)) in await refusal(serving, **change)


async def test_a_lone_surrogate_in_an_argument_is_an_error_and_no_crash(serving: Serving) -> None:
    body = json.dumps(BODY | {"argv": [*puppet_argv(), "\ud800"]})
    answer = await put(serving, body)
    assert answer.status_code == 400
    assert answer.json()["message"]


async def test_a_directory_for_files_that_cannot_be_written_fails_the_start(
    serving: Serving,
) -> None:
    """As when the disk is full, or somebody has removed the directory."""
    client = serving.client
    await client.new_session(puppet())
    moved = serving.tools.directory.with_name("moved")
    serving.tools.directory.rename(moved)
    with pytest.raises(StartFailed) as caught:
        await client.start_session("one")
    moved.rename(serving.tools.directory)
    assert caught.value.status == 500
    assert caught.value.message
    assert (await client.get_session("one")).status == "exited"
    await client.start_session("one")


async def test_without_free_ports_a_start_fails_and_the_next_one_works() -> None:
    async with open_serving(limits=Limits(port_draws=20)) as serving:
        client = serving.client
        await client.new_session(puppet())
        ports = serving.tools.ports
        candidates, ports._candidates = ports._candidates, [1]
        with pytest.raises(StartFailed) as caught:
            await client.start_session("one")
        ports._candidates = candidates
        assert caught.value.code == "KS-6"
        await client.start_session("one")


async def test_too_many_sessions_are_refused() -> None:
    async with open_serving(limits=Limits(max_sessions=2)) as serving:
        await serving.client.new_session(puppet("one"))
        await serving.client.new_session(puppet("two"))
        with pytest.raises(RequestFailed) as caught:
            await serving.client.new_session(puppet("three"))
        assert (caught.value.status, caught.value.code) == (400, "too_many_sessions")
        await serving.client.delete_session("one")
        await serving.client.new_session(puppet("three"))
