"""Which requests ask for a channel, and which of them get one."""

from __future__ import annotations

import pytest

from kallichore.errors import SessionNotFound
from kallichore.web import upgrade
from kallichore.web.inbound import Head
from kallichore.web.refusal import Refused

FIELDS = {
    "host": "localhost",
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def head(
    path: str = "/sessions/one/channels",
    query: str = "",
    *more: tuple[str, str],
    method: str = "GET",
    version: str = "1.1",
    **changes: str | None,
) -> Head:
    fields = FIELDS | {name.replace("_", "-"): value for name, value in changes.items()}
    headers = [*((name, value) for name, value in fields.items() if value is not None), *more]
    return Head(
        method=method,
        path=path,
        query=query,
        http_version=version,
        headers=tuple((name.encode(), value.encode("latin-1")) for name, value in headers),
    )


def refused(asked: Head) -> tuple[int, str]:
    """The status, and the message."""
    with pytest.raises(Refused) as caught:
        upgrade.accept(asked)
    assert caught.value.error is not None
    return caught.value.status, caught.value.error.message


def test_the_answer_is_the_one_of_the_rfc() -> None:
    accepted = upgrade.accept(head(x_span_id="mine"))
    assert accepted.response == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"upgrade: websocket\r\n"
        b"connection: Upgrade\r\n"
        b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"x-span-id: mine\r\n"
        b"\r\n"
    )
    assert accepted.after is None


def test_extensions_and_subprotocols_are_offered_in_vain() -> None:
    offered = head(
        sec_websocket_extensions="permessage-deflate; client_max_window_bits",
        sec_websocket_protocol="jupyter",
    )
    response = upgrade.accept(offered).response.lower()
    assert b"extensions" not in response
    assert b"protocol:" not in response


@pytest.mark.parametrize(
    "fields",
    [
        {"connection": "keep-alive, Upgrade"},
        {"connection": "UPGRADE"},
        {"upgrade": "WebSocket"},
        {"upgrade": "h2c, websocket"},
        {"content_length": "0"},
    ],
)
def test_tokens_may_come_in_any_case_and_company(fields: dict[str, str]) -> None:
    assert upgrade.asks_for_channel(head(**fields))
    upgrade.accept(head(**fields))


@pytest.mark.parametrize(
    ("asked", "status", "about"),
    [
        (head(upgrade=None), 426, "WebSocket"),
        (head(upgrade="h2c"), 426, "WebSocket"),
        (head(method="POST"), 426, "WebSocket"),
        (head(sec_websocket_version=None), 426, "Version"),
        (head(sec_websocket_version="8"), 426, "Version"),
        (head(sec_websocket_version="13, 8"), 426, "Version"),
        (head("/x", "", ("sec-websocket-version", "13")), 426, "Version"),
        (head(version="1.0"), 400, "HTTP/1.1"),
        (head(connection=None), 400, "Connection"),
        (head(connection="close"), 400, "Connection"),
        (head(sec_websocket_key=None), 400, "Key"),
        (head(sec_websocket_key=""), 400, "Key"),
        (head(sec_websocket_key="c2hvcnQ="), 400, "Key"),
        (head(sec_websocket_key="dGhlIHNhbXBsZSBub25jZSBpcyB0b28gbG9uZw=="), 400, "Key"),
        (head(sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ"), 400, "Key"),
        (head(sec_websocket_key="!dGhlIHNhbXBsZSBub25jZQ=="), 400, "Key"),
        (head(sec_websocket_key="\xe9"), 400, "Key"),
        (head("/x", "", ("sec-websocket-key", FIELDS["sec-websocket-key"])), 400, "Key"),
        (head(content_length="5"), 400, "body"),
        (head(transfer_encoding="chunked"), 400, "body"),
    ],
)
def test_anything_else_is_refused_in_words(asked: Head, status: int, about: str) -> None:
    answered, message = refused(asked)
    assert answered == status
    assert about in message


def test_the_refusal_of_a_version_names_the_right_one() -> None:
    with pytest.raises(Refused) as caught:
        upgrade.accept(head(sec_websocket_version="8"))
    assert (b"sec-websocket-version", b"13") in caught.value.headers


@pytest.mark.parametrize(
    ("query", "after"),
    [
        ("", None),
        ("before=1", None),
        ("after=0", 0),
        ("x=y&after=17", 17),
        ("after=%31", 1),
        ("after=9223372036854775807", 2**63 - 1),
    ],
)
def test_after_is_where_to_resume(query: str, after: int | None) -> None:
    assert upgrade.accept(head("/", query)).after == after


@pytest.mark.parametrize(
    "query",
    [
        "after",
        "after=",
        "after=-1",
        "after=1.5",
        "after=x",
        "after=%2B1",
        "after=%D9%A1",
        "after=9223372036854775808",
        "after=" + "9" * 5000,
        "after=1&after=2",
    ],
)
def test_any_other_after_is_refused(query: str) -> None:
    assert refused(head("/", query)) == (
        400,
        "`after`: expected a non-negative integer, given once",
    )


@pytest.mark.parametrize(
    ("path", "session_id"),
    [
        ("/sessions/one/channels", "one"),
        ("/sessions/a%2Fb%22%F0%9F%90%8D/channels", 'a/b"🐍'),
        ("/sessions/100%25/channels", "100%"),
        ("/sessions/..%2F../channels", "../.."),
    ],
)
def test_ids_are_percent_decoded(path: str, session_id: str) -> None:
    assert upgrade.asks_for_channel(head(path))
    assert upgrade.session_id_in(head(path)) == session_id


def test_an_id_that_is_no_text_names_no_session() -> None:
    with pytest.raises(SessionNotFound):
        upgrade.session_id_in(head("/sessions/%FF/channels"))


@pytest.mark.parametrize(
    "asked",
    [
        head("/sessions/one/start"),
        head("/sessions//channels"),
        head("/sessions/a/b/channels"),
        head("/sessions/one/channels/"),
        head("/sessions/one/channels\n"),
        head(method="PUT"),
        head(upgrade="h2c"),
    ],
)
def test_other_requests_ask_for_no_channel(asked: Head) -> None:
    assert not upgrade.asks_for_channel(asked)
