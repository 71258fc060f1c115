"""``GET /metrics``, from a real supervisor."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kallichore.client import StartFailed, TokenRefused
from tests.puppets import session_of, start_puppet
from tests.serving import open_serving


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
