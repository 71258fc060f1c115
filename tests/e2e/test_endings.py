"""Why a kernel died: `last_exit`, and the reason of `exited` (CONTRACT 2.2, 3.1)."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio

from kallichore._platform import MemoryEvidence
from kallichore.kernel.launch import Launch
from tests.listening import Ear, word
from tests.puppets import start_puppet

if TYPE_CHECKING:
    from kallichore.client import Client
    from kallichore.models import LastExit
    from tests.serving import Serving


async def ending(serving: Serving, code: str, **options: Any) -> tuple[LastExit, str, int]:
    """Run code that ends the kernel; give `last_exit`, the reason and the code of `exited`."""
    client = serving.client
    await start_puppet(client, **options)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.send(code)
        return await told(client, ear)


async def told(client: Client, ear: Ear) -> tuple[LastExit, str, int]:
    while "exited" not in await ear.next():
        pass
    (reason,) = [one["status"]["reason"] for one in ear.heard if word(one) == "status=exited"]
    record = await client.get_session("one")
    assert (record.status, record.process_id) == ("exited", None)
    assert record.last_exit is not None
    assert record.last_exit.at.tzinfo is not None
    return record.last_exit, reason, ear.heard[-1]["exited"]


SEGFAULT = "import ctypes; ctypes.string_at(0)"


@pytest.mark.parametrize(
    ("code", "exit_code", "name", "reason"),
    [
        ("kernel.end()", 0, None, "The kernel exited normally"),
        ("sys.exit(3)", 3, None, "The kernel exited with status 3"),
        ("os._exit(7)", 7, None, "The kernel exited with status 7"),
        (SEGFAULT, -1, "SIGSEGV", "The kernel crashed with SIGSEGV (invalid memory access)"),
        ("os.abort()", -1, "SIGABRT", "The kernel crashed with SIGABRT (it aborted itself)"),
        (
            "os.kill(os.getpid(), signal.SIGTERM)",
            -1,
            "SIGTERM",
            "The kernel was ended from outside with SIGTERM",
        ),
    ],
)
async def test_a_kernel_ends_by_itself(
    serving: Serving, code: str, exit_code: int, name: str | None, reason: str
) -> None:
    last, said, told_code = await ending(serving, code)
    assert (last.exit_code, last.signal, last.requested) == (exit_code, name, False)
    assert (said, told_code) == (reason, exit_code)
    assert last.out_of_memory is None


async def test_a_kernel_is_killed_from_outside(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        await ear.execute("pass")
        pid = (await client.get_session("one")).process_id
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        last, said, code = await told(client, ear)
    assert (last.exit_code, last.signal, last.requested, code) == (-1, "SIGKILL", False, -1)
    assert "SIGKILL" in said
    assert "requested" not in said


async def test_a_kernel_ends_as_its_client_asked_it_to(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        await channel.request("shutdown_request", {"restart": False}, channel="control")
        last, said, code = await told(client, Ear(channel))
    assert (last.exit_code, last.signal, last.requested, code) == (0, None, True, 0)
    assert said == "The kernel was shut down"


async def test_a_kernel_ends_as_the_server_asked_it_to(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        await client.restart_session("one")
        ear = Ear(channel)
        await ear.until("exited=0")
    record = await client.get_session("one")
    assert record.last_exit is not None
    assert (record.last_exit.requested, record.last_exit.exit_code) == (True, 0)


async def test_the_last_words_of_a_kernel_are_kept(serving: Serving) -> None:
    code = "os.write(1, b'x' * 5000); os.write(2, 'grüße\\n'.encode()); os._exit(1)"
    last, _, _ = await ending(serving, code)
    assert last.output_tail is not None
    assert "grüße" in last.output_tail
    assert len(last.output_tail.encode()) <= 4096


class Watch:
    """Knows that memory ran out, or guesses it."""

    def __init__(self, evidence: MemoryEvidence) -> None:
        self._evidence = evidence

    def evidence(self, pid: int) -> MemoryEvidence:
        del pid
        return self._evidence

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("evidence", "word"),
    [(MemoryEvidence.CERTAIN, "by the operating"), (MemoryEvidence.LIKELY, "probably")],
)
async def test_the_system_kills_a_kernel_for_its_memory(
    serving: Serving, evidence: MemoryEvidence, word: str
) -> None:
    serving.tools.reaper._memory.close()
    serving.tools.reaper._memory = Watch(evidence)
    last, said, _ = await ending(serving, "os.kill(os.getpid(), signal.SIGKILL)")
    assert (last.signal, last.requested, last.out_of_memory) == ("SIGKILL", False, True)
    assert word in said
    assert "because memory ran out" in said


async def test_exit_codes_are_right_with_many_at_once(serving: Serving) -> None:
    """Two hundred processes, twenty at a time: no exit code is lost or taken for another's."""
    limiter = trio.CapacityLimiter(20)
    seen: dict[int, int] = {}

    async def run(number: int) -> None:
        async with limiter:
            launch = Launch(argv=["/bin/sh", "-c", f"exit {number}"], env={}, cwd="/")
            async with serving.tools.reaper.spawn(launch) as process:
                seen[number] = await process.wait()

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(run, number)
    assert seen == {number: number for number in range(200)}
