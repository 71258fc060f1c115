"""What kernels use, as a client of the real server sees it, and what it costs (CONTRACT 4)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import trio

from kallichore import resources
from kallichore.client import open_server
from kallichore.models import ExecuteRequest, ServerConfiguration
from tests.e2e.test_adopt import foreign_kernel, new_connection
from tests.listening import Ear
from tests.puppets import start_puppet

if TYPE_CHECKING:
    import pytest

    from tests.serving import Serving

PATIENCE = 30
FIELDS = ["cpu_percent", "memory_bytes", "thread_count", "sampling_period_ms", "timestamp"]
SPAWN = "pids = [spawn('plain'), spawn('plain')]"


async def usage(ear: Ear) -> dict[str, Any]:
    """Give the next sample."""
    found: dict[str, Any] = (await ear.until("resourceUsage"))[-1]["resourceUsage"]
    return found


async def test_usage_is_sent_and_kept_with_children_or_without() -> None:
    async with open_server("--resource-sample-interval=1") as server:
        client = server.client
        with trio.fail_after(PATIENCE):
            await start_puppet(client)
            async with client.open_channel("one") as channel:
                ear = Ear(channel)
                first = await usage(ear)
                second = await usage(ear)
                assert list(first) == list(second) == FIELDS
                assert second["sampling_period_ms"] == 100
                assert second["memory_bytes"] > 10**6
                assert second["timestamp"] > first["timestamp"] > (time.time() - 60) * 1000
                alone = second["thread_count"]
                kept = (await client.get_session("one")).resource_usage
                assert kept is not None
                assert list(kept.__struct_fields__) == FIELDS
                assert kept.memory_bytes > 10**6
                await client.execute_code("one", ExecuteRequest(code=SPAWN))
                while (await usage(ear))["thread_count"] != alone + 2:
                    pass
                changes = ServerConfiguration(resource_include_children=False)
                await client.set_server_configuration(changes)
                while (await usage(ear))["thread_count"] != alone:
                    pass
                await client.kill_session("one")
                await ear.until("exited=-1")
                assert (await client.get_session("one")).resource_usage is None


async def test_who_has_neither_a_process_nor_a_client_is_not_measured(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client, "ours")
    connection = await new_connection(serving)
    async with (
        foreign_kernel(serving, connection),
        client.open_channel("one"),
    ):
        await client.adopt_session("one", connection)
        assert (await client.get_session("one")).connected
        assert list(serving.supervisor._to_be_measured()) == []
        async with client.open_channel("ours"):
            pid = (await client.get_session("ours")).process_id
            assert [one[1] for one in serving.supervisor._to_be_measured()] == [pid]


async def test_a_sample_costs_less_than_a_thousandth_of_a_second(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At one a second that is 0.1 % of a core. Only known processes are looked at."""
    client = serving.client
    await start_puppet(client)
    await client.execute_code("one", ExecuteRequest(code=SPAWN))
    session = serving.supervisor.get("one")
    pid = session.control.process_id
    assert pid is not None
    listed: list[str] = []
    listdir = os.listdir

    def noted(path: str) -> list[str]:
        listed.append(path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", noted)
    costs: list[float] = []
    readings = [resources.read_tree(pid, at=0, include_children=True, limit=1000)]
    for at in range(100):
        began = time.thread_time()
        readings.append(resources.read_tree(pid, at=at + 1, include_children=True, limit=1000))
        before, after = readings[-2:]
        assert before is not None
        assert after is not None
        resources.cpu_percent(before, after)
        costs.append(time.thread_time() - began)
        known = after.processes
    assert len(known) == 3
    assert sorted(costs)[50] < 0.001
    assert set(listed) == {f"/proc/{one}/task" for one in known}
