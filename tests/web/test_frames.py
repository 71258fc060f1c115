"""What is read fast is read as wsproto reads it: masking, and whole text frames, in any pieces."""

from __future__ import annotations

import struct
import tracemalloc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from kallichore.config import Limits
from kallichore.frontend import Closed, HalfClosed, Text
from kallichore.web import frames
from kallichore.web.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Iterator


def received(data: bytes, cuts: list[int], *, fast: bool) -> list[str]:
    connection = Connection(ConnectionType.SERVER)
    if fast:
        frames.unmask_fast(connection)
    texts = []
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        connection.receive_data(data[begin:end])
        texts += [event.data for event in connection.events() if isinstance(event, TextMessage)]
    return texts


@given(
    texts=st.lists(st.text(max_size=300), max_size=4),
    cuts=st.lists(st.integers(0, 1500), max_size=6).map(sorted),
)
def test_what_is_read_is_what_wsproto_reads(texts: list[str], cuts: list[int]) -> None:
    client = Connection(ConnectionType.CLIENT)
    data = b"".join(client.send(TextMessage(text)) for text in texts)
    read = received(data, cuts, fast=True)
    assert read == received(data, cuts, fast=False)
    assert "".join(read) == "".join(texts)


def test_the_fast_way_is_there_and_taken() -> None:
    connection = Connection(ConnectionType.SERVER)
    frames.unmask_fast(connection)
    data = Connection(ConnectionType.CLIENT).send(TextMessage("x"))
    connection.receive_data(data[:6])
    assert list(connection.events()) == []
    assert type(connection._proto._frame_decoder.masker) is frames._Masker


def test_where_it_is_not_there_the_slow_way_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kallichore.web.frames.PathFinder.find_spec", lambda *_: None)
    monkeypatch.setattr(frames, "_apply_mask", frames._find_apply_mask())
    assert frames._apply_mask is None
    data = Connection(ConnectionType.CLIENT).send(TextMessage("slow"))
    assert received(data, [], fast=True) == ["slow"]


# -- whole text frames ---------------------------------------------------------------------------

LIMITS = Limits(client_message_bytes=140_000, frames_at_once=3, socket_read_most_bytes=30_000)


def masked(payload: bytes, first: int = 0x81, *, mask: bool = True, length: int = 0) -> bytes:
    """A frame; ``length`` is 126 or 127 where it is to be longer than it must."""
    size = len(payload)
    short = max(length, size if size < 126 else 126 if size < 65536 else 127)
    head = bytes((first, short | 0x80 * mask))
    head += struct.pack("!H", size) if short == 126 else b""
    head += struct.pack("!Q", size) if short == 127 else b""
    key = b"\x17\x2a\x00\xff" if mask else b""
    return head + key + bytes(byte ^ key[i % 4] if mask else byte for i, byte in enumerate(payload))


def masked_long(payload: bytes) -> bytes:
    """The same in less time, for long payloads."""
    key = int.from_bytes(b"\x17\x2a\x00\xff" * (len(payload) // 4 + 1), "big")
    padded = payload.ljust(len(payload) // 4 * 4 + 4, b"\0")
    hidden = (int.from_bytes(padded, "big") ^ key).to_bytes(len(padded), "big")[: len(payload)]
    return b"\x81\xff" + struct.pack("!Q", len(payload)) + b"\x17\x2a\x00\xff" + hidden


class Peer(WebSocket):
    """One that reads what a test says."""

    def __init__(self, pieces: list[bytes]) -> None:
        nowhere: Any = SimpleNamespace(socket=SimpleNamespace(setsockopt=lambda *_: None))
        super().__init__(nowhere, b"", LIMITS)
        self.pieces: Iterator[bytes] = filter(None, pieces)
        self.rest = b""

    async def _read(self) -> bytes:
        self.rest = self.rest or next(self.pieces, b"")
        data, self.rest = self.rest[: self._read_bytes], self.rest[self._read_bytes :]
        return data

    async def _read_into(self, frame: frames.LongText) -> int:
        self.rest = self.rest or next(self.pieces, b"")
        with frame.room(LIMITS.socket_read_most_bytes) as room:
            data, self.rest = self.rest[: len(room)], self.rest[len(room) :]
            room[: len(data)] = data
        return len(data)

    async def everything(self) -> list[Any]:
        heard: list[Any] = []
        while True:
            for event in await self.receive():
                if isinstance(event, Text) and isinstance(event.text, bytearray):
                    heard.append(Text(event.text.decode()))
                else:
                    heard.append(event)
                if isinstance(event, Closed | HalfClosed):
                    return heard


FRAMES = st.one_of(
    st.text(min_size=1, max_size=9).map(lambda text: masked(text.encode())),
    st.sampled_from([125, 126, 65535, 65536, 140_000, 140_001]).map(lambda n: masked(b"x" * n)),
    st.sampled_from([b"\xc3\xa9", b"\xc3\xa9\xff"]).map(lambda end: masked(b"x" * 70_000 + end)),
    st.builds(
        masked,
        st.binary(max_size=9),
        st.sampled_from([0x81, 0x01, 0x80, 0x00, 0x82, 0x89, 0x8A, 0x88, 0xC1, 0x83]),
        mask=st.sampled_from([True, True, True, False]),
        length=st.sampled_from([0, 0, 126, 127]),
    ),
)


def is_no_text(event: object) -> bool:
    return isinstance(event, Closed) and event.code == 1007


@given(
    parts=st.lists(FRAMES, max_size=8),
    cuts=st.lists(st.integers(0, 2000) | st.integers(0, 200_000), max_size=6),
)
@example(parts=[masked(b"a") for _ in range(7)], cuts=[])
@example(parts=[masked(b"a", 0x01), masked(b"?", 0x89), masked(b"b"), masked(b"c")], cuts=[7])
@example(parts=[masked(b"a"), masked(b"x" * 100_000), masked(b"b"), masked(b"c")], cuts=[70_000])
@example(parts=[masked(b"a"), masked(b"x" * 100_000)], cuts=[5, 9, 16, 17, 23, 90_000])
@example(parts=[masked(b"x" * 70_000 + b"\xc3\xa9") + masked(b"a")], cuts=[])
@example(parts=[masked(b"x" * 70_000 + b"\xff") + masked(b"a")], cuts=[])
@example(parts=[masked(b"x" * 70_000)[:-1]], cuts=[])
@example(parts=[masked(b"a"), masked(b"\xff"), masked(b"b")], cuts=[])
@example(parts=[masked(b"a"), masked(b""), masked(b"b")], cuts=[])
def test_frames_are_heard_as_wsproto_hears_them(parts: list[bytes], cuts: list[int]) -> None:
    data, cuts = b"".join(parts), sorted(cuts)
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    async def hear() -> list[Any]:
        heard = await Peer(pieces).everything()
        # Where in it a text is wrong depends on how it is cut.
        return [Closed(1007, "") if is_no_text(event) else event for event in heard]

    fast = trio.run(hear)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kallichore.web.websocket.whole_texts", lambda *_: ([], 0))
        assert trio.run(hear) == fast


def test_whole_text_frames_are_read_without_wsproto(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer([masked(b"1") + masked(b"2" * 200)])
    monkeypatch.setattr(Connection, "receive_data", lambda *_: pytest.fail("it was asked"))
    assert trio.run(peer.everything) == [Text("1"), Text("2" * 200), HalfClosed()]


@pytest.mark.parametrize(
    "rest",
    [b"", masked(b"")[:1], masked(b"abc")[:-1], masked(b"x" * 401), masked(b"abc", length=127)],
)
def test_what_is_not_whole_and_plain_is_left(rest: bytes) -> None:
    begin = masked(b"one") + masked("zwölf".encode())
    assert frames.whole_texts(begin + rest, 9, 400) == (["one", "zwölf"], len(begin))


@pytest.mark.parametrize("size", [65536, 100_000, 5_000_000])
@pytest.mark.parametrize("begun", [14, 15, 21, 30_000])
def test_a_long_frame_is_read_into_its_place(size: int, begun: int) -> None:
    payload = bytes(65 + place % 26 for place in range(26)) * (size // 26 + 1)
    data = masked_long(payload[:size])
    frame = frames.begin_long_text(data[:begun], size)
    assert frame is not None
    whole = False
    while not whole:
        with frame.room(50_003) as room:
            count = len(room)
            assert count
            room[:] = data[begun : begun + count]
        begun += count
        whole = frame.took(count)
    text = frame.text()
    assert isinstance(text, bytearray)
    assert text == payload[:size]


def test_a_long_frame_takes_no_more_memory_than_what_has_come() -> None:
    head = b"\x81\xff" + struct.pack("!Q", 2**27) + b"mask"
    tracemalloc.start()
    try:
        frame = frames.begin_long_text(head + b"x", 2**27)
        assert frame is not None
        for _ in range(300):
            with frame.room(10_000) as room:
                count = len(room)
            frame.took(count)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [b"", masked(b"x" * 65536)[:13], masked(b"x" * 65536), masked(b"x" * 300)[:200], b"\x82\xff"],
)
def test_what_is_no_long_frame_is_not_begun(data: bytes) -> None:
    assert frames.begin_long_text(data, 10**6) is None


def test_a_long_frame_is_too_long_or_not_begun_where_unmasking_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = masked(b"x" * 65536)[:100]
    assert frames.begin_long_text(data, 65535) is None
    monkeypatch.setattr(frames, "_apply_mask", None)
    assert frames.begin_long_text(data, 65536) is None


def test_it_stops_after_so_many() -> None:
    assert frames.whole_texts(3 * masked(b"x"), 2, 400) == (["x", "x"], 2 * len(masked(b"x")))


def test_nothing_is_whole_where_unmasking_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_apply_mask", None)
    assert frames.whole_texts(masked(b"x"), 9, 400) == ([], 0)
