"""Operations on one session at the same moment: they have one outcome, and leave nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from kallichore.client import ChannelClosed, RequestFailed, ServerGone, SessionUnknown
from kallichore.config import Transport
from tests.listening import Ear, word
from tests.puppets import puppet, start_puppet
from tests.serving import open_serving

if TYPE_CHECKING:
    from tests.serving import Serving


async def test_a_start_during_a_delete_and_a_delete_during_a_start_have_one_outcome(
    serving: Serving,
) -> None:
    client = serving.client
    for _ in range(10):
        await client.new_session(puppet())
        outcome: list[str] = []

        async def attempt(operation: Any, outcome: list[str] = outcome) -> None:
            try:
                await operation("one")
                outcome.append(operation.__name__)
            except (RequestFailed, SessionUnknown) as refused:
                outcome.append(type(refused).__name__)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, client.start_session)
            nursery.start_soon(attempt, client.delete_session)
        if "delete_session" in outcome:
            assert serving.supervisor.sessions == {}
            continue
        assert sorted(outcome) == ["RequestFailed", "start_session"]
        await client.kill_session("one")
        await serving.wait_until("exited")
        await client.delete_session("one")


async def test_a_session_deleted_during_an_upgrade_hangs_up() -> None:
    async with open_serving(transport=Transport.TCP) as serving:
        client = serving.client
        ends: list[object] = []

        async def listen() -> None:
            try:
                async with client.open_channel("one") as channel:
                    ends.append([received async for received in channel])
            except (SessionUnknown, ServerGone, ChannelClosed) as end:
                ends.append(end)

        for _ in range(10):
            await client.new_session(puppet())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.delete_session, "one")
                nursery.start_soon(listen)
        assert len(ends) == 10


async def test_many_lives_in_a_row_leave_one_session_as_it_was(serving: Serving) -> None:
    client = serving.client
    await client.new_session(puppet())
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        for _ in range(10):
            await client.start_session("one")
            await client.kill_session("one")
            await ear.until("exited=-1")
    lives = [said for said in map(word, ear.heard) if said.startswith(("status=", "exited="))]
    assert lives == ["status=starting", "status=idle", "status=exited", "exited=-1"] * 10


async def test_an_interrupt_a_kill_and_a_restart_at_once(serving: Serving) -> None:
    client = serving.client
    await start_puppet(client)
    codes: set[str | None] = set()

    async def attempt(operation: Any) -> None:
        try:
            await operation("one")
        except RequestFailed as refused:
            codes.add(refused.code)

    async with trio.open_nursery() as nursery:
        for operation in (
            client.restart_session,
            client.kill_session,
            client.interrupt_session,
            client.restart_session,
            client.kill_session,
        ):
            nursery.start_soon(attempt, operation)
    assert codes <= {"KS-3", "KS-4", "KS-8", "KS-10", "KS-12", "KS-13"}
    assert (await client.get_session("one")).status in {"idle", "exited"}
