"""The settings that a client may change while the server runs (CONTRACT 2.2)."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx

    from tests.serving import Serving

DEFAULTS = {
    "idle_shutdown_hours": -1,
    "resource_sample_interval_ms": 1000,
    "resource_include_children": True,
    "log_level": "info",
}

pytestmark = pytest.mark.usefixtures("restored_logging")


async def post(serving: Serving, **changes: Any) -> httpx.Response:
    http = serving.client._http._client
    return await http.request("POST", "/server_configuration", content=json.dumps(changes))


async def settings(serving: Serving) -> dict[str, Any]:
    answer = await serving.client._http._client.request("GET", "/server_configuration")
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, {}),
        ({"idle_shutdown_hours": 3}, {"idle_shutdown_hours": 3}),
        ({"idle_shutdown_hours": -9}, {"idle_shutdown_hours": -1}),
        ({"resource_sample_interval_ms": 0}, {"resource_sample_interval_ms": 0}),
        ({"resource_sample_interval_ms": 1}, {"resource_sample_interval_ms": 100}),
        ({"resource_sample_interval_ms": 99}, {"resource_sample_interval_ms": 100}),
        ({"resource_sample_interval_ms": 101}, {"resource_sample_interval_ms": 101}),
        ({"resource_include_children": False}, {"resource_include_children": False}),
        ({"log_level": "trace"}, {"log_level": "trace"}),
        (dict.fromkeys(DEFAULTS), {}),
        ({"unknown": 1, "log_level": "warn"}, {"log_level": "warn"}),
    ],
    ids=range(11),
)
async def test_what_is_set_is_read_back(
    both_ways: Serving, changes: dict[str, Any], kept: dict[str, Any]
) -> None:
    assert await settings(both_ways) == DEFAULTS
    answer = await post(both_ways, **changes)
    assert (answer.status_code, answer.content) == (200, b"null")
    assert await settings(both_ways) == DEFAULTS | kept


@pytest.mark.parametrize(
    "wrong",
    [
        {"resource_sample_interval_ms": -1},
        {"resource_sample_interval_ms": 2**31},
        {"idle_shutdown_hours": 1.5},
        {"idle_shutdown_hours": 2**31},
        {"log_level": "loud"},
        {"resource_include_children": "yes"},
    ],
)
async def test_all_is_set_or_nothing(serving: Serving, wrong: dict[str, Any]) -> None:
    good = {"idle_shutdown_hours": 3, "log_level": "error", "resource_sample_interval_ms": 500}
    answer = await post(serving, **(good | wrong))
    assert answer.status_code == 400
    assert next(iter(wrong)) in answer.json()["message"]
    assert await settings(serving) == DEFAULTS


@pytest.mark.parametrize("level", ["debug", "error"])
async def test_the_level_of_the_log_takes_effect(
    serving: Serving, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    await post(serving, log_level=level)
    caplog.clear()
    logger = logging.getLogger("kallichore.test")
    logger.debug("fine")
    logger.warning("coarse")
    logger.error("bad")
    said = [one.message for one in caplog.records if one.name == "kallichore.test"]
    assert said == (["fine", "coarse", "bad"] if level == "debug" else ["bad"])
