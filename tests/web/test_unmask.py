"""The masking of clients' frames is undone as wsproto undoes it, whatever the pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from kallichore.web import unmask

if TYPE_CHECKING:
    import pytest


def received(data: bytes, cuts: list[int], *, fast: bool) -> list[str]:
    connection = Connection(ConnectionType.SERVER)
    if fast:
        unmask.unmask_fast(connection)
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
    unmask.unmask_fast(connection)
    data = Connection(ConnectionType.CLIENT).send(TextMessage("x"))
    connection.receive_data(data[:6])
    assert list(connection.events()) == []
    assert type(connection._proto._frame_decoder.masker) is unmask._Masker


def test_where_it_is_not_there_the_slow_way_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kallichore.web.unmask.PathFinder.find_spec", lambda *_: None)
    monkeypatch.setattr(unmask, "_apply_mask", unmask._find_apply_mask())
    assert unmask._apply_mask is None
    data = Connection(ConnectionType.CLIENT).send(TextMessage("slow"))
    assert received(data, [], fast=True) == ["slow"]
