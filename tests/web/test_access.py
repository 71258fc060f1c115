"""Who may ask: the token, the Host and the Origin."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kallichore.web.access import Access
from kallichore.web.refusal import Refused

TCP = Access("secret", loopback_hosts_only=True)
SOCKET = Access("secret", loopback_hosts_only=False)
GOOD = ((b"host", b"127.0.0.1:4711"), (b"authorization", b"Bearer secret"))


def refusal(access: Access, *headers: tuple[bytes, bytes], token_needed: bool = True) -> int | None:
    """The status of the refusal, if it is one."""
    try:
        access.check(headers, token_needed=token_needed)
    except Refused as refused:
        return refused.status
    return None


def test_a_401_has_no_body_and_a_403_has_one() -> None:
    for headers, status in (((), 403), (GOOD[:1], 401)):
        with pytest.raises(Refused) as caught:
            TCP.check(headers)
        assert caught.value.status == status
        assert (caught.value.error is None) == (status == 401)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:80", "127.0.0.1", "127.1.2.3:65535", "[::1]", "[::1]:8080"],
)
def test_names_and_addresses_of_loopback_are_let_in(host: str) -> None:
    assert refusal(TCP, (b"host", host.encode()), GOOD[1]) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "example.org",
        "localhost.example.org",
        "evil.localhost",
        "127.0.0.1.nip.io",
        "0.0.0.0",  # noqa: S104
        "10.0.0.1",
        "::1",
        "[::]",
        "[127.0.0.1]",
        "[::1",
        "localhost:http",
        "localhost:123456",
        "user@localhost",
        "localhost, example.org",
        "0177.0.0.1",
        "2130706433",
        "l\u00f6calhost",
    ],
)
def test_other_hosts_are_forbidden_on_tcp_only(host: str) -> None:
    field = (b"host", host.encode())
    assert refusal(TCP, field, GOOD[1]) == 403
    assert refusal(SOCKET, field, GOOD[1]) is None


def test_a_request_over_tcp_has_one_host() -> None:
    assert refusal(TCP, GOOD[1]) == 403
    assert refusal(TCP, GOOD[0], GOOD[0], GOOD[1]) == 403
    assert refusal(SOCKET, GOOD[1]) is None


@pytest.mark.parametrize("access", [TCP, SOCKET])
@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://example.org",
        "http://localhost.example.org",
        "http://example.org/localhost",
        "http://localhost@example.org",
        "file://",
        "vscode-webview://1",
        "http://",
    ],
)
def test_web_pages_from_elsewhere_are_forbidden(access: Access, origin: str) -> None:
    assert refusal(access, *GOOD, (b"origin", origin.encode())) == 403


@pytest.mark.parametrize(
    "origin", ["http://localhost:8888", "https://127.0.0.1", "HTTP://[::1]:3000"]
)
def test_web_pages_of_this_machine_are_let_in(origin: str) -> None:
    assert refusal(TCP, *GOOD, (b"origin", origin.encode())) is None


def test_one_bad_origin_among_several_is_enough() -> None:
    good, bad = (b"origin", b"http://localhost"), (b"origin", b"http://example.org")
    assert refusal(TCP, *GOOD, good, bad) == 403


@pytest.mark.parametrize(
    "value", ["Bearer secret", "bearer secret", "BEARER secret", "Bearer   secret "]
)
def test_the_scheme_may_be_in_any_case(value: str) -> None:
    assert refusal(TCP, GOOD[0], (b"authorization", value.encode())) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "secret",
        "Bearer",
        "Bearer ",
        "Bearer Secret",
        "Bearer secre",
        "Bearer secrets",
        "Bearer secret secret",
        "Basic secret",
        "Bearer s\xe9cret",
    ],
)
def test_any_other_token_is_refused_with_401(value: str) -> None:
    assert refusal(TCP, GOOD[0], (b"authorization", value.encode("latin-1"))) == 401
    assert refusal(TCP, GOOD[0]) == 401


@pytest.mark.parametrize("given", [b"x", b"secre", b"secret", b"secret of another length"])
def test_a_token_is_compared_in_constant_time(
    monkeypatch: pytest.MonkeyPatch, given: bytes
) -> None:
    """Nothing else looks at it: what the comparison says goes."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append({one, other})
        return True

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert refusal(TCP, GOOD[0], (b"authorization", b"Bearer " + given)) is None
    assert compared == [{given, b"secret"}]


def test_two_tokens_are_none() -> None:
    assert refusal(TCP, *GOOD, GOOD[1]) == 401


def test_without_authentication_any_token_will_do() -> None:
    nobody = Access(None, loopback_hosts_only=True)
    assert refusal(nobody, GOOD[0]) is None
    assert refusal(nobody, GOOD[0], (b"authorization", b"Bearer wrong")) is None
    assert refusal(nobody, (b"host", b"example.org")) == 403


def test_an_open_operation_still_asks_for_host_and_origin() -> None:
    assert refusal(TCP, GOOD[0], token_needed=False) is None
    assert refusal(TCP, (b"host", b"example.org"), token_needed=False) == 403
    assert refusal(TCP, GOOD[0], (b"origin", b"null"), token_needed=False) == 403


def test_host_and_origin_come_before_the_token() -> None:
    assert refusal(TCP, (b"host", b"example.org")) == 403
    assert refusal(TCP, GOOD[0], (b"origin", b"null")) == 403


@given(
    st.lists(st.tuples(st.sampled_from([b"host", b"origin", b"authorization"]), st.binary())),
)
def test_no_fields_make_it_fail(headers: list[tuple[bytes, bytes]]) -> None:
    assert refusal(TCP, *headers) in {401, 403}
