"""Channels: upgrades on the main port and on the sockets of sessions (CONTRACT 5.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio_websocket
from trio.testing import wait_all_tasks_blocked

from kallichore.config import Transport
from kallichore.nurseries import SessionGone
from tests.web.conftest import QUICK, Front, open_front
from tests.web.wire import TOKEN, UPGRADE, Wire, counted_writes, request, upgrade

CHANNEL = "/sessions/one/channels"
TEXT = b"\x81\x82\x00\x00\x00\x00{}"
"""The text frame ``{}``, masked with zeros."""
CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
HEADERS = [("Authorization", f"Bearer {TOKEN}")]


async def opened(wire: Wire, data: bytes) -> None:
    answer = await wire.ask(data)
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


async def socket_of(unix: Front, path: str = CHANNEL) -> str:
    """The path of the session's own socket, asked for as a client does."""
    answer = (await unix.ask("GET", path)).check("channels-upgrade")
    assert isinstance(answer.json, str)
    return answer.json


async def test_a_client_of_another_make_gets_a_channel_over_tcp(tcp: Front) -> None:
    host, port = tcp.address
    async with trio_websocket.open_websocket(
        host,
        port,
        CHANNEL,
        use_ssl=False,
        extra_headers=[(n.encode(), v.encode()) for n, v in HEADERS],
    ) as channel:
        await channel.send_message("hello")
        await tcp.session.heard.wait()
    assert tcp.session.texts == ["hello"]
    assert tcp.session.clients == [None]


async def test_a_client_of_another_make_gets_a_channel_on_the_sessions_socket(unix: Front) -> None:
    stream = await trio.open_unix_socket(await socket_of(unix))
    async with trio.open_nursery() as nursery:
        channel = await trio_websocket.wrap_client_stream(nursery, stream, "localhost", "/any/path")
        await channel.send_message("hello")
        await unix.session.heard.wait()
        await channel.aclose()
    assert unix.session.texts == ["hello"]


async def test_the_sessions_socket_is_the_same_each_time_and_not_anothers(unix: Front) -> None:
    unix.supervisor.add("a/b 🐍")
    first, other = (
        await socket_of(unix),
        await socket_of(unix, "/sessions/a%2Fb%20%F0%9F%90%8D/channels"),
    )
    assert first == await socket_of(unix)
    assert first != other


async def test_the_main_unix_socket_names_the_path_even_to_who_wants_an_upgrade(
    unix: Front,
) -> None:
    wire = await unix.connect()
    answer = await wire.ask(upgrade(CHANNEL))
    assert answer.check("channels-upgrade").json == await socket_of(unix)
    assert (await wire.ask(request("GET", "/status"))).status == 200
    assert "attach" not in unix.session.calls


async def test_the_101_leaves_in_a_write_of_its_own(
    tcp: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = counted_writes(monkeypatch)
    await opened(await tcp.connect(), upgrade(CHANNEL))
    assert writes[1].startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert writes[1].endswith(b"\r\n\r\n")


async def test_on_the_sessions_socket_it_does_so_too(
    unix: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any path, without a token; frames that come with the upgrade are used there as well."""
    wire = await unix.connect(await socket_of(unix))
    writes = counted_writes(monkeypatch)
    await opened(wire, upgrade("/where/ever?x=1", Authorization=None) + TEXT)
    assert writes[1].startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert writes[1].endswith(b"\r\n\r\n")
    await unix.session.heard.wait()
    assert unix.session.texts == ["{}"]


async def test_frames_that_come_with_the_upgrade_are_used(tcp: Front) -> None:
    wire = await tcp.connect()
    await wire.send(upgrade(CHANNEL) + TEXT + TEXT + CLOSE)
    await wire.answer()
    await wire.to_the_end()
    assert tcp.session.texts == ["{}", "{}"]


async def test_an_upgrade_may_come_on_a_connection_in_use(tcp: Front) -> None:
    wire = await tcp.connect()
    for _ in range(3):
        assert (await wire.ask(request("GET", "/sessions/one"))).status == 200
    await opened(wire, upgrade(CHANNEL))
    await wire.send(TEXT)
    await tcp.session.heard.wait()


async def test_an_upgrade_waits_for_the_exchange_before_it(tcp: Front) -> None:
    tcp.session.gate = trio.Event()
    wire = await tcp.connect()
    await wire.send(request("POST", "/sessions/one/start") + upgrade(CHANNEL) + TEXT)
    await tcp.session.arrived.wait()
    await wait_all_tasks_blocked()
    assert tcp.session.clients == []
    tcp.session.gate.set()
    assert (await wire.answer("POST")).status == 200
    assert (await wire.answer()).status == 101
    await tcp.session.heard.wait()


async def test_an_upgrade_may_come_byte_by_byte(tcp: Front) -> None:
    wire = await tcp.connect()
    for byte in upgrade(CHANNEL) + TEXT:
        await wire.send(bytes([byte]))
        await wait_all_tasks_blocked()
    assert (await wire.answer()).status == 101
    await tcp.session.heard.wait()


async def test_ids_may_hold_anything(tcp: Front) -> None:
    session = tcp.supervisor.add('a/b"🐍')
    await opened(await tcp.connect(), upgrade("/sessions/a%2Fb%22%F0%9F%90%8D/channels?after=7"))
    await wait_all_tasks_blocked()
    assert session.clients == [7]


async def test_resuming_works_on_the_sessions_socket_too(unix: Front) -> None:
    wire = await unix.connect(await socket_of(unix))
    await opened(wire, upgrade("/?after=0", Authorization=None))
    await wait_all_tasks_blocked()
    assert unix.session.clients == [0]


async def test_the_channel_needs_the_token_on_tcp(tcp: Front) -> None:
    for token in (None, "Bearer wrong", f"Basic {TOKEN}"):
        wire = await tcp.connect()
        answer = await wire.ask(upgrade(CHANNEL, Authorization=token))
        assert answer.check("channels-upgrade").status == 401
        assert answer.body == b""
        assert await wire.to_the_end() == b""
    assert tcp.session.calls == []


async def test_the_channel_of_an_unknown_session_is_an_empty_404(tcp: Front) -> None:
    for session_id in ("two", "%FF"):
        answer = await (await tcp.connect()).ask(upgrade(f"/sessions/{session_id}/channels"))
        assert answer.check("channels-upgrade").status == 404
        assert answer.body == b""


@pytest.mark.parametrize(
    "changes",
    [
        {"Host": "example.org"},
        {"Origin": "https://example.org"},
        {"Origin": "null", "Authorization": None},
    ],
)
async def test_web_pages_get_no_channel(tcp: Front, changes: dict[str, str | None]) -> None:
    answer = await (await tcp.connect()).ask(upgrade(CHANNEL, **changes))
    assert answer.check("channels-upgrade").status == 403
    assert tcp.session.calls == []


GARBAGE = [
    ({"Connection": "close"}, 400),
    ({"Sec-WebSocket-Key": None}, 400),
    ({"Sec-WebSocket-Key": "short"}, 400),
    ({"Sec-WebSocket-Version": "7"}, 426),
    ({"Sec-WebSocket-Version": None}, 426),
    ({"Content-Length": "3"}, 400),
]


@pytest.mark.parametrize(("changes", "status"), GARBAGE)
async def test_garbage_is_refused_in_words_and_evicts_nobody(
    tcp: Front, changes: dict[str, str | None], status: int
) -> None:
    owner = await tcp.connect()
    await opened(owner, upgrade(CHANNEL))
    wire = await tcp.connect()
    answer = await wire.ask(upgrade(CHANNEL, **changes))
    assert answer.check("channels-upgrade").status == status
    assert answer.headers.get("sec-websocket-version") == ("13" if status == 426 else None)
    assert tcp.session.clients == [None]
    await owner.send(TEXT)
    await tcp.session.heard.wait()


@pytest.mark.parametrize(("changes", "status"), GARBAGE)
async def test_garbage_is_refused_on_the_sessions_socket_too(
    unix: Front, changes: dict[str, str | None], status: int
) -> None:
    wire = await unix.connect(await socket_of(unix))
    answer = await wire.ask(upgrade("/", **changes))
    assert answer.check("channels-upgrade").status == status
    assert await wire.to_the_end() == b""
    assert unix.session.clients == []


async def test_a_bad_after_is_refused(tcp: Front) -> None:
    answer = await (await tcp.connect()).ask(upgrade(f"{CHANNEL}?after=-1"))
    assert answer.check("channels-upgrade").status == 400
    assert "after" in answer.error


async def test_what_is_no_upgrade_is_told_so(tcp: Front) -> None:
    answer = (await tcp.ask("GET", CHANNEL)).check("channels-upgrade")
    assert answer.status == 426
    assert answer.headers["upgrade"] == "websocket"
    assert (await tcp.ask("GET", "/sessions/two/channels")).status == 404
    assert (await tcp.ask("POST", CHANNEL, headers=dict(UPGRADE))).check().status == 405


@pytest.mark.parametrize("data", [request("GET", "/status"), request("POST", CHANNEL, b"{}")])
async def test_the_sessions_socket_serves_nothing_but_the_channel(unix: Front, data: bytes) -> None:
    wire = await unix.connect(await socket_of(unix))
    answer = await wire.ask(data)
    assert answer.check("channels-upgrade").status == 426
    assert await wire.to_the_end() == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 70_000, 431),
    ],
)
async def test_heads_on_the_sessions_socket_have_the_same_limits(
    unix: Front, data: bytes, status: int
) -> None:
    wire = await unix.connect(await socket_of(unix))
    await wire.send(data)
    assert (await wire.answer()).check().status == status


async def test_silence_on_the_sessions_socket_ends_after_its_time_and_evicts_nobody() -> None:
    deadlines = replace(QUICK, head_seconds=0.05)
    async with open_front(Transport.SOCKET, deadlines=deadlines) as unix:
        path = await socket_of(unix)
        owner = await unix.connect(path)
        await opened(owner, upgrade("/"))
        for sent in (b"", upgrade("/")[:-1]):
            wire = await unix.connect(path)
            await wire.send(sent)
            assert (await wire.answer()).check().status == 408
        assert unix.session.clients == [None]


async def test_a_session_that_ends_says_farewell_on_its_own_socket(unix: Front) -> None:
    wire = await unix.connect(await socket_of(unix))
    await opened(wire, upgrade("/"))
    await wait_all_tasks_blocked()
    unix.session.scope.cancel()
    assert await wire.to_the_end() == b"\x88\x02\x03\xe9"


async def test_a_session_that_ends_meanwhile_ends_the_connection(
    tcp: Front, caplog: pytest.LogCaptureFixture
) -> None:
    tcp.session.error = SessionGone()
    wire = await tcp.connect()
    await opened(wire, upgrade(CHANNEL))
    assert await wire.to_the_end() == b""
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
