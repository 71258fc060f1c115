"""How much is measured: the full form, and the quick one that ends within two minutes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Rounds and sizes."""

    rounds: int
    small_messages: int
    """Of 200 B, in one flood."""
    big_messages: int
    """Of 10 kB, in one flood."""
    round_trips: int
    starts: int
    many_seconds: float
    """25 kernels echo for this long, and an idle server is watched for three times as long."""
    many_sessions: int
    flood_messages: int
    """In the tests of loss."""
    stall_seconds: float
    shutdowns: int


FULL = Plan(
    rounds=5,
    small_messages=60_000,
    big_messages=15_000,
    round_trips=500,
    starts=10,
    many_seconds=3.0,
    many_sessions=300,
    flood_messages=200_000,
    stall_seconds=5.0,
    shutdowns=5,
)
QUICK = Plan(
    rounds=3,
    small_messages=30_000,
    big_messages=8_000,
    round_trips=200,
    starts=4,
    many_seconds=1.0,
    many_sessions=60,
    flood_messages=60_000,
    stall_seconds=2.0,
    shutdowns=3,
)
