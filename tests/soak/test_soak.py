"""The soak's own judgement: what it lets pass, what it does not, and that its dice are seeded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kallichore.client.errors import RequestFailed
from tests.puppets import start_puppet
from tests.soak.audit import Account, check_memory
from tests.soak.counting import Counter as CountingClient
from tests.soak.life import Life
from tests.soak.record import ALLOWED, CheckFailed, Record
from tests.soak.report import Course, write
from tests.soak.rounds import plan
from tests.soak.world import World

if TYPE_CHECKING:
    from tests.serving import Serving

NOTHING = Account(
    stage="begin",
    seconds=0,
    descriptors=Counter(),
    tasks=Counter(),
    processes={},
    files=Counter(),
    listening=Counter(),
    backlog_bytes=0,
    sessions=0,
    memory_bytes=50_000_000,
    worst_lag=0,
)


def world(record: Record, serving: Any = None) -> World:
    client = None if serving is None else serving.client
    given: Any = {"server": None, "client": client, "directory": None, "environment": {}}
    return World(record=record, stage="round 1", deadline=0, **given)


def test_the_same_seed_gives_the_same_dice() -> None:
    one, other, third = (world(Record(seed)).chance("life", 1, 2).random() for seed in (5, 5, 6))
    assert one == other != third


def test_the_time_is_divided_into_a_warm_up_and_rounds() -> None:
    assert [name for name, _ in plan(120)] == ["warm-up", "round 1"]
    stages = plan(1200)
    assert [name for name, _ in stages] == ["warm-up", *(f"round {n}" for n in range(1, 5))]
    assert sum(seconds for _, seconds in stages) == 1200


async def test_an_answer_that_was_not_due_is_a_failed_check() -> None:
    record = Record(1)

    async def refuse() -> None:
        raise RequestFailed(500, "KS-8", "It exited.")

    assert isinstance(await record.ask("start", refuse, may=["500 KS-8"]), RequestFailed)
    with record.noting("here") as noted:
        await record.ask("start", refuse)
    assert noted == ["CheckFailed: start answered 500 KS-8: It exited."]
    assert record.answers == {"start 500 KS-8": 2}
    assert not Course(record, 1, "socket", exit_code=0).passed


def test_only_starts_may_fail_inside_the_server() -> None:
    may = {name for name, answers in ALLOWED.items() if any(one[0] == "5" for one in answers)}
    assert may == {"start", "restart", "adopt", "connection info"}


@pytest.mark.parametrize(
    "more",
    [
        {"descriptors": Counter({"socket:[N]": 1})},
        {"tasks": Counter({"a task": 1})},
        {"processes": {1: "sleep"}},
        {"files": Counter({"spool": 1})},
        {"listening": Counter({"TCP": 1})},
        {"backlog_bytes": 1.0},
        {"sessions": 1},
    ],
)
def test_whatever_is_left_is_seen(more: dict[str, Any]) -> None:
    assert NOTHING.grown_since(NOTHING) == {}
    assert len(replace(NOTHING, **more).grown_since(NOTHING)) == 1
    assert NOTHING.grown_since(replace(NOTHING, **more)) == {}


def test_memory_that_does_not_come_back_is_seen() -> None:
    check_memory(NOTHING, replace(NOTHING, memory_bytes=60_000_000))
    with pytest.raises(CheckFailed, match="grown by"):
        check_memory(NOTHING, replace(NOTHING, memory_bytes=90_000_000))


@pytest.mark.parametrize("resumes", [True, False])
async def test_a_counting_client_hears_every_number(serving: Serving, *, resumes: bool) -> None:
    record = Record(1)
    await start_puppet(serving.client)
    here = world(record, serving)
    counter = CountingClient(Life(here, "one", here.chance()), resumes=resumes)
    for turn in range(3):
        await counter.burst(here.chance(turn))
    messages = record.messages
    assert messages["lost"] == 0
    cut_off = messages["in the sockets of broken connections"]
    assert messages["sent by kernels"] == messages["received"] + cut_off


async def test_a_counting_client_misses_a_number(serving: Serving) -> None:
    await start_puppet(serving.client)
    here = world(Record(1), serving)
    counter = CountingClient(Life(here, "one", here.chance()), resumes=True)
    counter.heard, counter.said = 3, 4
    await counter.life.run("say('5')")
    async with counter.open() as channel:
        while counter.heard < 5:
            await counter.hear(channel)
    with pytest.raises(CheckFailed, match="1 messages lost"):
        counter.settle(0, 1)


def test_the_report_says_what_failed() -> None:
    record = Record(7)
    record.fail("a place", "it | broke")
    text = write(Course(record, 1, "tcp", accounts=[NOTHING], exit_code=0))
    assert "FAILED (1 checks)" in text
    assert "a place: it \\| broke" in text
