"""Who listens where, found out without holding up the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from kallichore.kernel.probe import address_of, listens
from tests.loopback import LOOPBACKS

if TYPE_CHECKING:
    from trio.testing import MockClock


@LOOPBACKS
async def test_who_listens_is_found_at_either_kind_of_address(host: str) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=host)
    port = listener.socket.getsockname()[1]
    async with listener:
        assert await listens(host, port)
    assert not await listens(host, port)


async def test_a_name_is_as_good_as_an_address() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        assert await listens("localhost", listener.socket.getsockname()[1])
    assert await address_of("localhost") == "127.0.0.1"
    assert await address_of("::1") == "::1"


async def test_a_host_that_does_not_exist_listens_nowhere() -> None:
    for host in ("no such host", "x" * 300):
        assert not await listens(host, 1)
        with pytest.raises((OSError, UnicodeError)):
            await address_of(host)


@LOOPBACKS
async def test_who_does_not_answer_in_time_counts_as_there(
    host: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("trio._socket._SocketType.connect", never)
    began = trio.current_time()
    assert await listens(host, 1)
    assert trio.current_time() - began <= 1


async def test_a_slow_name_holds_up_nobody(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are asked for in another thread; a question has its time, and whoever asks may go."""
    asked: list[object] = []

    async def resolve(sync_fn: Any, *args: object, **options: object) -> None:
        assert options["abandon_on_cancel"]
        asked.append(args)
        await trio.sleep_forever()

    monkeypatch.setattr(trio.to_thread, "run_sync", resolve)
    monkeypatch.setattr("trio._threads.to_thread_run_sync", resolve)
    began = trio.current_time()
    assert await listens("slow.example", 1)
    assert trio.current_time() - began <= 1
    with trio.move_on_after(3):
        await address_of("slow.example")
    assert len(asked) == 2
