"""Exchanges on real sockets: what leaves when, and the traps of the pinned Hypercorn."""

from __future__ import annotations

import select
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kallichore.config import Limits, Transport
from tests.web.conftest import QUICK, Front, open_front
from tests.web.wire import UPGRADE, counted_writes, request

if TYPE_CHECKING:
    from tests.web.wire import Wire

STATUS = request("GET", "/status")
EXECUTE = b'{"code": "1"}'
LARGE = 4 * 1024 * 1024


async def test_a_small_response_leaves_in_one_write(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = counted_writes(monkeypatch)
    wire = await front.connect()
    for data in (STATUS, request("GET", "/sessions"), request("GET", "/nothing")):
        writes.clear()
        answer = await wire.ask(data)
        assert len(writes) == 2, "the request, and the response"
        assert writes[1].endswith(b"\r\n\r\n" + answer.body)
        assert answer.reads == 1


async def test_a_large_response_arrives_whole(front: Front) -> None:
    front.session.display_name = "x" * LARGE
    answer = await front.ask("GET", "/sessions/one")
    assert answer.json["display_name"] == "x" * LARGE


async def test_a_connection_serves_many_requests(front: Front) -> None:
    wire = await front.connect()
    for _ in range(20):
        assert (await wire.ask(STATUS)).status == 200
        assert (await wire.ask(request("POST", "/sessions/one/execute", EXECUTE))).status == 200
        assert (await wire.ask(request("GET", "/sessions/two"))).status == 404


async def test_pipelined_requests_are_answered_in_order(front: Front) -> None:
    wire = await front.connect()
    paths = ["/status", "/sessions", "/nothing", "/sessions/two", "/server_configuration"]
    await wire.send(b"".join(request("GET", path) for path in paths))
    statuses = [(await wire.answer()).status for _ in paths]
    assert statuses == [200, 200, 404, 404, 200]


async def test_a_pipelined_request_waits_for_the_one_before_it(front: Front) -> None:
    front.session.gate = trio.Event()
    wire = await front.connect()
    execute = request("POST", "/sessions/one/execute", EXECUTE)
    await wire.send(execute + request("POST", "/sessions/one/kill"))
    await front.session.arrived.wait()
    await wait_all_tasks_blocked()
    assert front.session.calls == ["execute 1"]
    front.session.gate.set()
    assert (await wire.answer()).json["status"] == "ok"
    assert (await wire.answer()).body == b"null"


async def test_a_request_may_come_byte_by_byte(front: Front) -> None:
    wire = await front.connect()
    for byte in request("POST", "/sessions/one/execute", EXECUTE):
        await wire.send(bytes([byte]))
        await wait_all_tasks_blocked()
    assert (await wire.answer()).status == 200


async def test_a_chunked_body_is_as_good_as_another(front: Front) -> None:
    wire = await front.connect()
    head = request("POST", "/sessions/one/execute", headers={"Transfer-Encoding": "chunked"})
    for size in (1, 5, 1000):
        await wire.send(head)
        for start in range(0, len(EXECUTE), size):
            chunk = EXECUTE[start : start + size]
            await wire.send(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk))
        await wire.send(b"0\r\nTrailer: x\r\n\r\n")
        assert (await wire.answer()).status == 200
    assert front.session.calls == ["execute 1"] * 3


async def test_both_a_length_and_chunks_means_chunks(front: Front) -> None:
    wire = await front.connect()
    headers = {"Transfer-Encoding": "chunked", "Content-Length": "3"}
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(EXECUTE), EXECUTE)
    await wire.send(request("POST", "/sessions/one/execute", headers=dict(headers)) + chunk)
    assert (await wire.answer()).status == 200
    assert (await wire.ask(STATUS)).status == 200


async def test_a_malformed_chunk_is_a_400_in_words(front: Front) -> None:
    wire = await front.connect()
    head = request("POST", "/sessions/one/execute", headers={"Transfer-Encoding": "chunked"})
    for data in (head + b"zz\r\n", head):
        wire = await front.connect()
        await wire.send(data)
        if data == head:
            await wait_all_tasks_blocked()
            await wire.send(b"zz\r\n")
        answer = await wire.answer()
        assert answer.check().status == 400
        assert answer.headers["connection"] == "close"
        assert await wire.to_the_end() == b""
    assert front.session.calls == []


async def test_expecting_to_continue_is_answered_before_the_body(front: Front) -> None:
    wire = await front.connect()
    whole = request("POST", "/sessions/one/execute", EXECUTE, {"Expect": "100-continue"})
    await wire.send(whole.removesuffix(EXECUTE))
    assert await wire.once() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(EXECUTE)
    answer = await wire.answer()
    assert answer.status == 200
    assert answer.informational == []
    assert (await wire.ask(STATUS)).status == 200


async def test_a_body_nobody_wants_costs_no_connection(front: Front) -> None:
    wire = await front.connect()
    for headers, status in (({"Authorization": None}, 401), ({}, 200)):
        whole = request("POST", "/sessions/one/kill", EXECUTE, dict(headers))
        await wire.send(whole.removesuffix(EXECUTE))
        await wait_all_tasks_blocked()
        await wire.send(EXECUTE)
        assert (await wire.answer()).status == status
    assert (await wire.ask(STATUS)).status == 200


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_over_the_limit_is_a_413_in_words(framing: str) -> None:
    """The answer arrives although the peer goes on sending, and memory stays bounded."""
    async with open_front(Transport.TCP, limits=Limits(body_bytes=100_000)) as front:
        wire = await front.connect()
        headers = {"Transfer-Encoding": "chunked"} if framing == "chunks" else {}
        headers |= {"Content-Length": str(10**9)} if framing == "length" else {}
        await wire.send(request("PUT", "/sessions", headers=dict(headers)))
        async with trio.open_nursery() as nursery:

            async def pour() -> None:
                block = b"x" * 65536
                if framing == "chunks":
                    block = b"10000\r\n" + block + b"\r\n"
                try:
                    while True:
                        await wire.send(block)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass

            nursery.start_soon(pour)
            answer = await wire.answer("PUT")
            nursery.cancel_scope.cancel()
        assert answer.check("new-session").status == 413
        assert answer.error == "The request's body has more than 100000 bytes"


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_nobody_wants_is_not_kept(framing: str) -> None:
    """However long it is: the operation goes on, and what comes is forgotten."""
    async with open_front(Transport.TCP, limits=Limits(body_bytes=100_000)) as front:
        front.session.gate = trio.Event()
        wire = await front.connect()
        block = b"x" * 65536
        headers = {"Content-Length": str(100 * len(block))}
        if framing == "chunks":
            headers = {"Transfer-Encoding": "chunked"}
            block = b"10000\r\n" + block + b"\r\n"
        await wire.send(request("POST", "/sessions/one/start", headers=dict(headers)))
        with trio.fail_after(5):
            for _ in range(100):
                await wire.send(block)
        front.session.gate.set()
        assert (await wire.answer("POST")).status == 200


async def test_a_body_that_stops_halfway_is_a_408_in_words() -> None:
    async with open_front(Transport.SOCKET, deadlines=replace(QUICK, body_seconds=0.05)) as front:
        wire = await front.connect()
        await wire.send(request("PUT", "/sessions", headers={"Content-Length": "10"}) + b"x")
        answer = await wire.answer("PUT")
        assert answer.check("new-session").status == 408
        assert answer.error == "The request's body did not arrive in time"


async def test_old_http_is_answered_and_the_connection_ends(front: Front) -> None:
    wire = await front.connect()
    answer = await wire.ask(request("GET", "/status", version="1.0"))
    assert answer.status == 200
    assert await wire.to_the_end() == b""


async def test_who_wants_to_close_is_obeyed(front: Front) -> None:
    wire = await front.connect()
    answer = await wire.ask(request("GET", "/status", headers={"Connection": "close"}))
    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    assert await wire.to_the_end() == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n", 431),
    ],
)
async def test_a_bad_head_is_refused_in_words(front: Front, data: bytes, status: int) -> None:
    wire = await front.connect()
    await wire.send(data)
    answer = await wire.answer()
    assert answer.check().status == status
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-span-id"]
    assert answer.reads == 1
    assert await wire.to_the_end() == b""


async def test_a_refusal_arrives_although_the_peer_goes_on_sending(tcp: Front) -> None:
    wire = await tcp.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.send, b"GET /" + b"x" * 3_000_000)
        assert (await wire.answer()).check().status == 431
        assert await wire.to_the_end() == b""


async def test_a_slow_head_is_a_408_in_words() -> None:
    deadlines = replace(QUICK, head_seconds=0.05)
    async with open_front(Transport.SOCKET, deadlines=deadlines) as front:
        for sent in (b"", b"GET / HT"):
            wire = await front.connect()
            await wire.send(sent)
            assert (await wire.answer()).check().status == 408
            assert await wire.to_the_end() == b""


async def test_an_idle_connection_ends_quietly() -> None:
    deadlines = replace(QUICK, keep_alive_seconds=0.05)
    async with open_front(Transport.SOCKET, deadlines=deadlines) as front:
        wire = await front.connect()
        await wire.ask(STATUS)
        assert await wire.to_the_end() == b""


@pytest.mark.parametrize("path", ["/status", "/nothing", "/sessions/one/start"])
@pytest.mark.parametrize("kind", ["websocket", "h2c"])
async def test_no_other_upgrade_reaches_hypercorn(front: Front, path: str, kind: str) -> None:
    wire = await front.connect()
    headers = {**UPGRADE, "Upgrade": kind, "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    answer = await wire.ask(request("GET", path, headers=dict(headers)))
    assert answer.informational == []
    assert answer.status in {200, 404, 405}
    assert (await wire.ask(STATUS)).status == 200


# Callers that leave.


async def test_who_closes_only_the_sending_side_gets_the_answer(front: Front) -> None:
    wire = await front.connect()
    front.session.gate = trio.Event()
    await wire.send(request("POST", "/sessions/one/start"))
    await front.session.arrived.wait()
    await wire.stream.send_eof()
    await wait_all_tasks_blocked()
    assert not front.session.cancelled.is_set()
    front.session.gate.set()
    assert (await wire.answer("POST")).status == 200
    assert await wire.to_the_end() == b""


async def test_code_is_withdrawn_when_its_caller_hangs_up(front: Front) -> None:
    wire = await front.connect()
    front.session.gate = trio.Event()
    await wire.send(request("POST", "/sessions/one/execute", EXECUTE))
    await front.session.arrived.wait()
    await wire.stream.aclose()
    with trio.fail_after(5):
        await front.session.cancelled.wait()


async def test_a_start_goes_on_when_its_caller_hangs_up(unix: Front) -> None:
    wire = await unix.connect()
    unix.session.gate = trio.Event()
    await wire.send(request("POST", "/sessions/one/start"))
    await unix.session.arrived.wait()
    await wire.stream.aclose()
    await wait_all_tasks_blocked()
    assert not unix.session.cancelled.is_set()
    unix.session.gate.set()
    assert (await unix.ask("GET", "/status")).status == 200


async def test_hanging_up_amid_a_body_ends_the_request(front: Front) -> None:
    wire = await front.connect()
    await wire.send(request("PUT", "/sessions", headers={"Content-Length": "10"}) + b"x")
    await wire.stream.aclose()
    assert (await front.ask("GET", "/sessions")).json["total"] == 1


async def test_nobody_is_troubled_by_callers_who_leave(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    front.session.display_name = "x" * LARGE
    for _ in range(10):
        wire = await front.connect()
        await wire.send(request("GET", "/sessions/one"))
        await wire.once()
        await wire.stream.aclose()
    assert (await front.ask("GET", "/status")).status == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_peer_that_takes_no_data_is_dropped() -> None:
    deadlines = replace(QUICK, write_seconds=0.05)
    async with open_front(Transport.SOCKET, deadlines=deadlines) as front:
        front.session.display_name = "x" * LARGE
        wire = await front.connect()
        await wire.send(request("GET", "/sessions/one"))
        with trio.fail_after(5):
            while not has_ended(wire):
                await wait_all_tasks_blocked(0.01)
        assert (await front.ask("GET", "/status")).status == 200


def has_ended(wire: Wire) -> bool:
    """Whether the server has closed the connection, without reading what it sent before."""
    watch = select.poll()
    watch.register(wire.stream.socket.fileno(), 0)
    return any(event & select.POLLHUP for _, event in watch.poll(0))
