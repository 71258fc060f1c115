"""The numbers that the contract gives are the defaults; and each of the five levels is one."""

from __future__ import annotations

import time

import pytest

from kallichore.config import Config, Deadlines, Limits

MIB = 1024 * 1024
NUMBERS = {
    # CONTRACT 1
    "token_bytes": 64,
    "socket_path_bytes": 104,
    "shutdown_seconds": 10,
    "idle_now_seconds": 30,
    # 2.3
    "execute_start_seconds": 30,
    "history_entries": 100,
    "history_text_bytes": 4096,
    "output_tail_bytes": 4096,
    # 3
    "connection_seconds": 30,
    "heartbeat_patience_seconds": 5,
    "heartbeat_pause_seconds": 2,
    "start_attempts": 1 + 3,
    "adopted_lost_seconds": 20,
    "held_executions": 1000,
    # 5
    "head_bytes": 64 * 1024,
    "head_fields": 100,
    "head_seconds": 10,
    "client_message_bytes": 128 * MIB,
    "send_buffer_bytes": 256 * 1024 // 2,  # Linux doubles it
    "outbox_memory_bytes": 8 * MIB,
    "outbox_disk_bytes": 1024 * MIB,
    "ping_seconds": 10,
    "ping_patience_seconds": 40,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_numbers_of_the_contract_are_the_defaults(name: str) -> None:
    config = Config()
    bounds: Limits | Deadlines = config.limits if hasattr(Limits, name) else config.deadlines
    assert getattr(bounds, name) == NUMBERS[name]


def test_the_clock_does_not_jump_over_a_suspend() -> None:
    """Trio's clock is this one, and the time in which the machine sleeps is not in it."""
    info = time.get_clock_info("perf_counter")
    assert info.monotonic
    assert info.implementation in {"clock_gettime(CLOCK_MONOTONIC)", "mach_absolute_time()"}
