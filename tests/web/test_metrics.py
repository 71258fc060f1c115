"""``GET /metrics``, from a real supervisor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from kallichore.client import StartFailed, TokenRefused
from kallichore.config import Limits
from kallichore.diagnostics import watch_loop
from kallichore.models import ExecuteRequest
from kallichore.spool import WRITE_BYTES
from tests.listening import Ear
from tests.puppets import session_of, start_puppet
from tests.serving import open_serving

PAGE = Path(__file__).parents[2] / "docs/reference/seeing-inside.md"
CODE = """
for n in range(1000):
    say('x' * 1000)
right, kernel.key = kernel.key, 'wrong'
say('y')
kernel.key = right
"""


def numbers(text: str) -> dict[str, float]:
    """Each sample by its name and the values of its labels."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_numbers_are_those_of_the_supervisor() -> None:
    async with open_serving() as serving:
        before = numbers(await serving.client.get_metrics())
        await start_puppet(serving.client)
        await serving.client.new_session(session_of(["/bin/false"], "two"))
        with pytest.raises(StartFailed):
            await serving.client.start_session("two")
        await serving.client.restart_session("one")
        after = numbers(await serving.client.get_metrics())
    assert before["kallichore_sessions idle"] == 0
    assert after["kallichore_sessions idle"] + after["kallichore_sessions ready"] == 1
    assert after["kallichore_sessions exited"] == 1
    assert after["kallichore_kernel_starts_total failed"] == 1
    assert after["kallichore_kernel_starts_total succeeded"] == 2
    assert after["kallichore_kernel_start_seconds_count"] == 2
    assert after["kallichore_restarts_total"] == 1
    assert after["kallichore_clients"] == 0
    assert after["kallichore_messages_total from_kernel"] > 0
    assert after["kallichore_backlog_bytes memory"] > 0


async def test_the_numbers_are_not_for_everybody() -> None:
    async with open_serving() as serving, serving.stranger() as stranger:
        with pytest.raises(TokenRefused):
            await stranger.get_metrics()


async def test_the_page_lists_what_there_is() -> None:
    async with open_serving() as serving:
        text = await serving.client.get_metrics()
    there = {family.name for family in text_string_to_metric_families(text)}
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `kallichore_")]
    listed = {name for row in rows for name in re.findall(r"kallichore_\w+", row)}
    assert {name.removesuffix("_total") for name in listed} == there


async def test_backlog_drops_and_lag_are_measured() -> None:
    limits = Limits(
        outbox_memory_bytes=10_000, outbox_segment_bytes=100_000, outbox_disk_bytes=300_000
    )
    async with open_serving(limits=limits) as serving:
        await start_puppet(serving.client)
        await serving.client.execute_code("one", ExecuteRequest(code=CODE))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_loop, serving.supervisor.tally, 0.01)
            while not serving.supervisor.tally.worst_loop_lag_seconds:  # noqa: ASYNC110 - no event tells
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        after = numbers(await serving.client.get_metrics())
        async with serving.client.open_channel("one") as channel:
            await Ear(channel).execute("pass")
            connected = numbers(await serving.client.get_metrics())
    assert 0 < after["kallichore_backlog_bytes memory"] <= 10_000 + WRITE_BYTES
    assert 0 < after["kallichore_backlog_bytes disk"] <= 300_000
    assert after["kallichore_dropped_frames_total"] > 50
    assert after["kallichore_refused_messages_total bad_signature"] == 1
    assert after["kallichore_loop_lag_seconds worst"] > 0
    assert after["kallichore_message_bytes_total from_kernel"] > 1_000_000
    assert after["kallichore_message_bytes_total to_kernel"] > 0
    assert after["kallichore_messages_total to_kernel"] == 1
    assert connected["kallichore_clients"] == 1
    assert connected["kallichore_backlog_bytes disk"] == 0
