"""Kernels that register with us: JEP 66 (CONTRACT 3.3)."""

from __future__ import annotations

import json
import stat
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from kallichore.client import RequestFailed, StartFailed
from tests.listening import Ear, words
from tests.puppets import open_meeting, puppet, start_puppet

if TYPE_CHECKING:
    from tests.serving import Serving

NEW = {"protocol_version": "5.5"}
PORTS = ("control_port", "shell_port", "stdin_port", "hb_port", "iopub_port")


@pytest.mark.parametrize("version", ["5.5", "5.10", "6.0"])
async def test_a_kernel_registers_from_5_5_on(serving: Serving, version: str) -> None:
    client = serving.client
    async with open_meeting(serving.directory) as meeting, trio.open_nursery() as nursery:
        tell = f"meet({meeting.path!r}, [sys.argv[1], kernel.connection])"
        new = {"protocol_version": version}
        nursery.start_soon(partial(start_puppet, client, "one", new, ready=tell))
        path, known = await meeting.reached()
        told = json.loads(Path(path).read_bytes())
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        await meeting.let_go()
    assert list(told) == ["transport", "signature_scheme", "ip", "key", "registration_port"]
    assert (told["transport"], told["ip"]) == ("tcp", "127.0.0.1")
    assert told["signature_scheme"] == "hmac-sha256"
    connection = await client.connection_info("one")
    assert {name: getattr(connection, name) for name in PORTS} == {
        name: known[name] for name in PORTS
    }
    assert connection.key == told["key"]
    async with client.open_channel("one") as channel:
        frames = await Ear(channel).execute("say('1')")
    assert words(frames)[:3] == ["status=starting", "handshakeCompleted", "status=idle"]
    session_id, announced = frames[1]["handshakeCompleted"]
    assert session_id == "one"
    assert announced["shell_port"] == known["shell_port"]


@pytest.mark.parametrize("version", ["5.3", "5.4", "4.9", "5", "5.x", "", "5.5.1", "v5.5", "5.-5"])
async def test_other_versions_get_a_connection_file(serving: Serving, version: str) -> None:
    client = serving.client
    await start_puppet(client, "one", {"protocol_version": version})
    async with client.open_channel("one") as channel:
        frames = await Ear(channel).execute("pass")
    assert "handshakeCompleted" not in words(frames)


async def test_start_answers_at_once_after_registration(serving: Serving) -> None:
    latencies = []
    for name in ("one", "two", "three"):
        stamp = "kernel.options.info['stamp'] = time.monotonic()"
        info = await start_puppet(serving.client, name, NEW, ready=stamp)
        latencies.append(time.monotonic() - info["stamp"])
    assert min(latencies) < 0.030


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"key": "0" * 32}, "wrong signature"),
        ({"content": {"hb_port": 0}}, "hb_port"),
        ({"content": {"hb_port": "many"}}, "hb_port"),
        ({"raw": True}, "delimiter"),
    ],
)
async def test_a_wrong_registration_is_answered_and_a_good_one_awaited(
    serving: Serving, wrong: dict[str, Any], why: str
) -> None:
    client = serving.client
    async with open_meeting(serving.directory) as meeting, trio.open_nursery() as nursery:
        attempts = [{**wrong, "tell": meeting.path}, {"tell": meeting.path}]
        nursery.start_soon(partial(start_puppet, client, "one", NEW, register=attempts))
        refusal = await meeting.pass_through()
        accepted = await meeting.pass_through()
    assert (refusal["status"], refusal["capabilities"]) == ("error", {})
    assert why in refusal["error"]
    assert accepted == {"status": "ok", "capabilities": {}}
    assert (await client.get_session("one")).status == "idle"


async def failed_start(serving: Serving, **options: Any) -> StartFailed:
    await serving.client.new_session(puppet("one", {**NEW, "connection_timeout": 1}, **options))
    with pytest.raises(StartFailed) as caught:
        await serving.client.start_session("one")
    return caught.value


async def test_a_kernel_that_exits_before_it_registers(serving: Serving) -> None:
    failed = await failed_start(serving, before="print('so'); sys.exit(4)")
    assert (failed.code, failed.exit_code, failed.output) == ("KS-14", 4, "so\n")
    assert failed.message == "The kernel exited before a connection could be established"


async def test_a_kernel_that_never_registers(serving: Serving) -> None:
    failed = await failed_start(serving, bind=False)
    assert failed.code == "KS-17"


async def test_a_kernel_that_only_registers_wrongly(serving: Serving) -> None:
    failed = await failed_start(serving, register=[{"key": "0" * 32}], ready="signal.pause()")
    assert failed.code == "KS-17"
    assert failed.message.startswith("JEP 66 handshake failed for session one: ")


async def test_there_is_no_connection_before_the_registration(serving: Serving) -> None:
    client = serving.client
    async with open_meeting(serving.directory) as meeting, trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(start_puppet, client, "one", NEW, before=f"meet({meeting.path!r})")
        )
        await meeting.reached()
        with pytest.raises(RequestFailed) as caught:
            await client.connection_info("one")
        await meeting.let_go()
    assert (caught.value.code, caught.value.status) == ("KS-18", 500)


async def test_a_restart_registers_anew(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client, "one", NEW)
    before = await client.connection_info("one")
    await client.restart_session("one")
    after = await client.connection_info("one")
    assert after.key == before.key
    async with client.open_channel("one") as channel:
        frames = await Ear(channel).execute("say('1')")
    assert words(frames).count("handshakeCompleted") == 2
