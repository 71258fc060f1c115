"""Alone or in company: what long and short turns go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kallichore.traffic import Traffic

if TYPE_CHECKING:
    from trio.testing import MockClock


def is_shared(traffic: Traffic) -> bool:
    return traffic.shared


async def test_company_is_believed_in_for_a_while_after_each_change(
    autojump_clock: MockClock,
) -> None:
    traffic = Traffic(1)
    assert not is_shared(traffic)
    for party in ("one", "two", "one"):
        traffic.note(party)
        assert is_shared(traffic)
        autojump_clock.jump(0.75)
    assert is_shared(traffic)
    for _ in range(3):
        traffic.note("one")
        autojump_clock.jump(0.75)
        assert not is_shared(traffic)
