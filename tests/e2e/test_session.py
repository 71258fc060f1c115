"""A session's life with a kernel: what its client sees, and in which order (CONTRACT 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.listening import Ear, words
from tests.puppets import start_puppet

if TYPE_CHECKING:
    from tests.serving import Serving

EXECUTION = [
    "status=busy",
    "iopub:status=busy",
    "iopub:execute_input",
    "iopub:stream",
    "status=idle",
    "iopub:status=idle",
]


async def test_a_client_hears_an_execution_from_busy_to_idle(both_ways: Serving) -> None:
    client = both_ways.client
    info = await start_puppet(client)
    assert info["implementation"] == "puppet"
    assert (await client.get_session("one")).status == "idle"
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        frames = await ear.execute("say('1')")
    assert words(frames, "iopub") == ["status=starting", "status=idle", *EXECUTION]
    assert words(frames, "shell").count("shell:execute_reply=ok") == 1
