"""Heads and bodies as they arrive, under a clock that costs nothing."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import (
    MemorySendStream,
    MockClock,
    memory_stream_one_way_pair,
)

from kallichore.config import Deadlines, Limits
from kallichore.web.inbound import Head, Inbound
from kallichore.web.refusal import Refused

SMALL = Limits(head_bytes=200, head_fields=5)
PLAIN = b"GET /status?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n"


def pair(
    limits: Limits = SMALL, deadlines: Deadlines | None = None
) -> tuple[MemorySendStream, Inbound]:
    send, receive = memory_stream_one_way_pair()
    return send, Inbound(receive, limits, deadlines or Deadlines())


async def refusal(inbound: Inbound) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        await one_head(inbound)
    assert caught.value.error is not None
    return caught.value.status, caught.value.error.message


async def one_head(inbound: Inbound) -> Head | None:
    return await inbound.head() if await inbound.wait() else None


async def test_a_head_is_taken_apart() -> None:
    send, inbound = pair()
    await send.send_all(PLAIN)
    assert await one_head(inbound) == Head(
        method="GET",
        path="/status",
        query="a=b",
        http_version="1.1",
        headers=((b"host", b"localhost"),),
    )
    inbound.body_nowait()
    assert inbound.body_is_complete


async def drip(send: MemorySendStream, data: bytes, pause_seconds: float = 1) -> None:
    """Send it byte by byte."""
    for byte in data:
        await send.send_all(bytes([byte]))
        await trio.sleep(pause_seconds)


async def test_a_head_may_come_byte_by_byte_and_after_empty_lines(
    autojump_clock: MockClock,
) -> None:
    send, inbound = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip, send, b"\r\n\n\r\n" + PLAIN, 0.1)
        head = await one_head(inbound)
    assert head is not None
    assert head.path == "/status"


async def test_pipelined_requests_come_one_after_the_other() -> None:
    send, inbound = pair()
    put = b"PUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    chunks = b"PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n"
    await send.send_all(PLAIN + put + chunks + PLAIN + b"rest")
    found = []
    for _ in range(4):
        head = await one_head(inbound)
        assert head is not None
        found.append((head.path, await inbound.body()))
        await inbound.finish_body(1000)
    assert found == [("/status", b""), ("/b", b"abc"), ("/c", b"de"), ("/status", b"")]
    assert inbound.rest() == b"rest"


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        ("http://127.0.0.1:1/status?x=1", b"127.0.0.1:1", "/status"),
        ("HTTP://evil.example", b"evil.example", "/"),
    ],
)
async def test_a_whole_address_as_target_speaks_for_the_host(
    target: str, host: bytes, path: str
) -> None:
    send, inbound = pair()
    await send.send_all(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await one_head(inbound)
    assert head is not None
    assert head.values(b"host") == [host]
    assert head.path == path


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"{}\r\n",
        b" GET / HTTP/1.1\r\n",
        b"GET /\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad\x00: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET ftp://localhost/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET \xff HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_a_malformed_head_is_refused_with_400(data: bytes) -> None:
    send, inbound = pair()
    await send.send_all(data)
    with trio.fail_after(1):
        status, _message = await refusal(inbound)
    assert status == 400


async def test_a_refusal_never_repeats_what_may_be_a_token() -> None:
    send, inbound = pair()
    await send.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\x00\r\n\r\n")
    assert "s3cret" not in (await refusal(inbound))[1]


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
async def test_a_head_that_is_too_large_is_refused_with_431(end: bytes) -> None:
    send, inbound = pair()
    await send.send_all(PLAIN.removesuffix(b"\r\n") + b"x: " + b"y" * SMALL.head_bytes + end)
    assert await refusal(inbound) == (431, "The request's head has more than 200 bytes")


async def test_a_head_of_just_the_right_size_is_taken() -> None:
    send, inbound = pair()
    start = PLAIN.removesuffix(b"\r\n") + b"x: "
    await send.send_all(start + b"y" * (SMALL.head_bytes - len(start) - 4) + b"\r\n\r\n" + PLAIN)
    assert await one_head(inbound) is not None


async def test_too_many_fields_are_refused_with_431() -> None:
    for fields, fine in ((4, True), (5, False)):
        send, inbound = pair()
        await send.send_all(PLAIN.removesuffix(b"\r\n") + b"a: b\r\n" * fields + b"\r\n")
        if fine:
            assert await one_head(inbound) is not None
        else:
            assert await refusal(inbound) == (431, "The request's head has more than 5 fields")


async def test_a_head_has_its_time_from_the_start_of_the_connection(
    autojump_clock: MockClock,
) -> None:
    send, inbound = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip, send, PLAIN)
        started = trio.current_time()
        status, message = await refusal(inbound)
        assert status == 408
        assert message == "The request's head was not complete after 10 seconds"
        assert trio.current_time() - started == 10
        nursery.cancel_scope.cancel()


async def test_a_head_that_begins_late_has_the_rest_of_the_time(autojump_clock: MockClock) -> None:
    send, inbound = pair()
    async with trio.open_nursery() as nursery:
        started = trio.current_time()
        nursery.start_soon(late, send, 6)
        assert (await refusal(inbound))[0] == 408
        assert trio.current_time() - started == 10


async def late(send: MemorySendStream, seconds: float) -> None:
    """Begin a head after a while."""
    await trio.sleep(seconds)
    await send.send_all(b"G")


async def test_a_new_connection_that_says_nothing_is_told_that_it_is_late(
    autojump_clock: MockClock,
) -> None:
    _send, inbound = pair()
    assert (await refusal(inbound))[0] == 408


async def test_a_used_connection_may_be_silent_for_longer_and_then_ends_quietly(
    autojump_clock: MockClock,
) -> None:
    send, inbound = pair()
    await send.send_all(PLAIN)
    await one_head(inbound)
    await inbound.finish_body(1)
    started = trio.current_time()
    assert not await inbound.wait()
    assert trio.current_time() - started == 75


async def test_the_time_of_a_later_head_begins_with_its_first_byte(
    autojump_clock: MockClock,
) -> None:
    send, inbound = pair()
    await send.send_all(PLAIN)
    await one_head(inbound)
    await inbound.finish_body(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(late, send, 60)
        assert await inbound.wait()
        started = trio.current_time()
        assert (await refusal_of_head(inbound)) == 408
        assert trio.current_time() - started == 10


async def refusal_of_head(inbound: Inbound) -> int:
    with pytest.raises(Refused) as caught:
        await inbound.head()
    return caught.value.status


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET / HT"])
async def test_a_peer_that_hangs_up_amid_a_head_is_no_news(sent: bytes) -> None:
    send, inbound = pair()
    if sent:
        await send.send_all(sent)
    send.close()
    assert await one_head(inbound) is None


async def test_a_peer_that_hangs_up_amid_a_body_is_gone() -> None:
    send, inbound = pair()
    await send.send_all(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab")
    send.close()
    await one_head(inbound)
    assert await inbound.body() == b"ab"
    with pytest.raises(trio.BrokenResourceError):
        await inbound.body()


async def test_a_malformed_chunk_is_refused_with_400() -> None:
    send, inbound = pair()
    await send.send_all(b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    await one_head(inbound)
    with pytest.raises(Refused) as caught:
        await inbound.body()
    assert caught.value.status == 400


async def test_hanging_up_is_noticed_and_early_bytes_are_kept() -> None:
    send, inbound = pair()
    await send.send_all(PLAIN)
    await one_head(inbound)
    await inbound.finish_body(1)
    await send.send_all(PLAIN)
    send.close()
    await inbound.hung_up()
    assert await one_head(inbound) is not None


async def test_a_peer_with_much_to_say_is_not_read_without_end(autojump_clock: MockClock) -> None:
    send, inbound = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbound.hung_up)
        await send.send_all(b"x" * (SMALL.head_bytes + 1))
        await trio.testing.wait_all_tasks_blocked()
        await send.send_all(b"y" * 1000)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert inbound.rest() == b"x" * (SMALL.head_bytes + 1)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=3))
def test_no_bytes_make_it_fail(parts: list[bytes]) -> None:
    """Whatever comes, the answer is a head, a refusal, or that nothing more came."""
    for start in (b"", b"GET ", PLAIN[:-2]):
        trio.run(read_all, start + b"".join(parts))


async def read_all(data: bytes) -> None:
    send, inbound = pair()
    if data:
        await send.send_all(data)
    send.close()
    try:
        while await one_head(inbound) is not None:
            await inbound.finish_body(1000)
    except Refused as refused:
        if refused.status not in {400, 431}:
            raise
    except trio.BrokenResourceError:
        return
