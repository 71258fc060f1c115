"""The token and the connection file: CONTRACT 1.3 and 1.4, line by line."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from kallichore.config import Limits
from kallichore.details import ConnectionDetails, open_connection_details, resolve_token
from kallichore.errors import StartupRefusal

DETAILS = ConnectionDetails(
    socket_path="/run/kc.sock",
    transport="socket",
    server_path="/bin/kcserver",
    server_pid=1,
    bearer_token=None,
    log_path=None,
    server_id="mine",
)


def contents(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def token_of(path: Path, content: bytes) -> str | None:
    path.write_bytes(content)
    return resolve_token(str(path), Limits())


def test_a_random_token_is_long_and_never_the_same() -> None:
    tokens = {resolve_token(None, Limits()) for _ in range(10)}
    assert len(tokens) == 10
    assert all(token is not None and len(token) >= 32 and int(token, 16) for token in tokens)


def test_the_word_none_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").write_text("secret")
    assert resolve_token("none", Limits()) is None
    assert contents(tmp_path) == ["none"]


@pytest.mark.parametrize(
    ("content", "token"),
    [
        (b"secret", "secret"),
        (b" \r\n\t secret \n\n", "secret"),
        (b"x" * 64, "x" * 64),
        (b" " * 200 + b"x" * 64 + b"\n" * 200, "x" * 64),
        ("\N{SNAKE}".encode() * 64, "\N{SNAKE}" * 64),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}\n".encode(), "\xe9"),
    ],
    ids=range(6),
)
def test_a_token_is_a_files_text_without_the_space_around_it(
    tmp_path: Path, content: bytes, token: str
) -> None:
    """At most 64 characters, whatever they take; and the file is deleted."""
    assert token_of(tmp_path / "token", content) == token
    assert contents(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"x" * 65, "64"),
        (b" " * 10**6 + b"x", "64"),
        ("\N{SNAKE}".encode() * 65, "64"),
        (b"\xff", "read"),
    ],
    ids=range(6),
)
def test_any_other_token_is_refused_and_never_told(
    tmp_path: Path, content: bytes, word: str
) -> None:
    with pytest.raises(StartupRefusal, match=word) as caught:
        token_of(tmp_path / "token", content)
    assert "xxx" not in str(caught.value)


def test_a_token_without_end_is_refused() -> None:
    with pytest.raises(StartupRefusal, match="64"):
        resolve_token("/dev/zero", Limits())


def test_a_token_that_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(StartupRefusal, match="Cannot read the token file"):
            resolve_token(str(path), Limits())


def test_the_connection_file_is_never_there_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written beside its place with mode 0600, then renamed: who has the old one keeps it."""
    path, old = tmp_path / "kc.json", tmp_path / "old"
    old.write_text("old")
    old.chmod(0o644)
    path.hardlink_to(old)
    renamed: list[tuple[int, bytes]] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        renamed.append((stat.S_IMODE(self.stat().st_mode), self.read_bytes()))
        assert path.read_text() == "old"
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    before = os.umask(0)
    try:
        with open_connection_details(path, DETAILS):
            assert contents(tmp_path) == ["kc.json", "old"]
            assert renamed == [(0o600, path.read_bytes())]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert old.read_text() == "old"
    assert contents(tmp_path) == ["old"]


def test_what_does_not_apply_is_left_out_and_two_are_always_there(tmp_path: Path) -> None:
    path = tmp_path / "kc.json"
    with open_connection_details(path, DETAILS):
        content = json.loads(path.read_bytes())
    assert list(content) == [
        *("socket_path", "transport", "server_path", "server_pid"),
        *("bearer_token", "log_path", "server_id"),
    ]
    assert (content["bearer_token"], content["log_path"]) == (None, None)


@pytest.mark.parametrize("others", [b'{"server_id": "theirs"}', b"{", b"{}", b"[]", b"\xff"])
def test_a_file_that_is_not_ours_any_more_stays(tmp_path: Path, others: bytes) -> None:
    path = tmp_path / "kc.json"
    with open_connection_details(path, DETAILS):
        path.write_bytes(others)
    assert path.read_bytes() == others


def test_a_file_that_is_gone_already_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "kc.json"
    with open_connection_details(path, DETAILS):
        path.unlink()


def test_a_directory_that_cannot_be_written_is_a_refusal(tmp_path: Path) -> None:
    for path in (tmp_path / "gone" / "kc.json", Path("/proc/kc.json"), Path("/")):
        why = rf"Cannot write the connection file {path}: [A-Z][a-z ]+$"
        with (
            pytest.raises(StartupRefusal, match=why),
            open_connection_details(path, DETAILS),
        ):
            pytest.fail("it was written")
    (tmp_path / "taken").mkdir()
    with (
        pytest.raises(StartupRefusal),
        open_connection_details(tmp_path / "taken", DETAILS),
    ):
        pytest.fail("it was written")
    assert contents(tmp_path) == ["taken"]
