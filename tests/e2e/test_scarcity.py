"""Memory or disk run out (issue 6): it costs what must go, visibly, and nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kallichore.config import Limits
from kallichore.models import ExecuteRequest
from tests.listening import Ear, word, words
from tests.puppets import start_puppet
from tests.serving import open_serving
from tests.small_disks import open_small_disk
from tests.small_memory import open_small_memory

if TYPE_CHECKING:
    from tests.serving import Serving

SMALL_MEMORY = 100 * 2**20
NO_ROOM = "os.kill(os.getpid(), signal.SIGKILL)"
"""What the system does, where we may not make it do so."""


async def test_a_kernel_that_eats_all_memory_is_killed_and_can_be_started_again(
    serving: Serving,
) -> None:
    client = serving.client
    with open_small_memory(SMALL_MEMORY) as procs:
        eat = f"open({str(procs)!r}, 'w').write(str(os.getpid())); bytearray({2 * SMALL_MEMORY})"
        await start_puppet(client)
        async with client.open_channel("one") as channel:
            ear = Ear(channel)
            await ear.send(NO_ROOM if procs is None else eat)
            assert words(await ear.until("exited=-1"))[-2:] == ["status=exited", "exited=-1"]
            last = (await client.get_session("one")).last_exit
            assert last is not None
            assert (last.signal, last.requested) == ("SIGKILL", False)
            await client.start_session("one")
            assert "iopub:stream" in words(await ear.execute("say('on')"))


async def test_a_disk_that_fills_up_costs_the_newest_output_and_is_announced() -> None:
    """Nobody is connected, and all that a kernel says has to go to a disk of 300 kB."""
    limits = Limits(outbox_memory_bytes=50_000, outbox_segment_bytes=20_000)
    async with open_serving(limits=limits) as serving:
        client = serving.client
        await start_puppet(client)
        directory = serving.supervisor.get("one").talk.outbox._spool._directory
        with open_small_disk(directory, 300_000):
            for number in range(10):
                code = f"for n in range(200): say(f'{number} {{n}} '.ljust(300))"
                await client.execute_code("one", ExecuteRequest(code=code))
            async with client.open_channel("one") as channel:
                ear = Ear(channel)
                await ear.execute("say('10 0')")
        said = [one["content"]["text"].split() for one in ear.heard if word(one) == "iopub:stream"]
        notices = [" ".join(text) for text in said if text[0].startswith("[Kall")]
        numbers = [(int(a), int(b)) for a, b in (text for text in said if len(text) == 2)]
        states = [one for one in words(ear.heard) if one.startswith("iopub:status")]
        assert words(ear.heard).count("shell:execute_reply=ok") == 11
        assert states[-22:] == ["iopub:status=busy", "iopub:status=idle"] * 11
        assert numbers == sorted(set(numbers))
        assert numbers[:200] == [(0, number) for number in range(200)]
        assert numbers[-1] == (10, 0)
        dropped = sum(int(re.findall(r"(\d+) pieces", text)[0]) for text in notices)
        assert dropped == 2001 - len(numbers) > 0
