"""Addresses, connection files and tokens."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from kallichore.client import BadTarget, Client, Target
from kallichore.client.target import read_token

if TYPE_CHECKING:
    from pathlib import Path

TCP: dict[str, Any] = {
    "port": 41873,
    "base_path": "http://127.0.0.1:41873",
    "transport": "tcp",
    "server_path": "/usr/bin/kcserver",
    "server_pid": 4711,
    "bearer_token": "t",
    "log_path": None,
    "server_id": "id",
}
SOCKET: dict[str, Any] = {
    "socket_path": "/run/kc.sock",
    "transport": "socket",
    "server_path": "",
    "server_pid": 1,
    "bearer_token": None,
    "log_path": "kc.log",
    "server_id": "id",
}


def write(path: Path, details: dict[str, Any]) -> Path:
    path.write_text(json.dumps(details))
    return path


@pytest.mark.parametrize(
    ("address", "base_url", "socket_path"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", None),
        ("http://localhost:8080/", "http://localhost:8080", None),
        ("http://localhost:8080/kc/", "http://localhost:8080/kc", None),
        ("unix:/run/kc.sock", "http://localhost", "/run/kc.sock"),
        ("unix:///run/kc.sock", "http://localhost", "/run/kc.sock"),
    ],
)
def test_an_address_is_understood(address: str, base_url: str, socket_path: str | None) -> None:
    target = Target.parse(address, "t")
    assert (target.base_url, target.socket_path, target.token) == (base_url, socket_path, "t")


@pytest.mark.parametrize(
    "address",
    ["https://localhost", "http://", "ftp://x", "http://h:0", "http://h:x", "http://h:-1"],
)
def test_another_address_is_refused_with_the_forms_there_are(address: str) -> None:
    with pytest.raises(BadTarget, match="write http://HOST:PORT or unix:/PATH"):
        Target.parse(address)


def test_a_path_may_be_a_socket(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_path / "s"))
        assert Target.parse(short_path / "s").socket_path == str(short_path / "s")


def test_a_path_may_be_a_connection_file_whose_token_a_given_one_outranks(tmp_path: Path) -> None:
    path = write(tmp_path / "kc.json", TCP)
    assert Target.parse(path) == Target(base_url="http://127.0.0.1:41873", token="t")
    assert Target.parse(path, "mine").token == "mine"


def test_a_connection_file_of_either_transport_gives_a_client(tmp_path: Path) -> None:
    assert Client.from_connection_file(write(tmp_path / "a", TCP)).target.token == "t"
    assert Client.from_connection_file(write(tmp_path / "b", SOCKET)).target == Target(
        socket_path="/run/kc.sock"
    )


def test_a_missing_connection_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadTarget, match=r"Cannot find .*none\.json: No such file"):
        Target.parse(tmp_path / "none.json")
    with pytest.raises(BadTarget, match="Cannot read the connection file"):
        Target.from_connection_file(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"transport": 1}', "\xff"])
def test_a_file_that_is_no_connection_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kc.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(BadTarget, match="is not a connection file"):
        Target.parse(path)


@pytest.mark.parametrize("details", [TCP | {"transport": "named-pipe"}, {"transport": "socket"}])
def test_a_connection_file_without_a_usable_address_is_refused(
    tmp_path: Path, details: dict[str, Any]
) -> None:
    with pytest.raises(BadTarget, match="names no TCP port and no Unix socket"):
        Target.parse(write(tmp_path / "kc.json", details))


def test_no_text_of_a_target_shows_the_token() -> None:
    target = Target.parse("http://h:1", "hush")
    assert "hush" not in f"{target} {target!r}"


def test_a_token_is_a_files_content_or_itself(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(" abc\n")
    assert read_token(str(path)) == "abc"
    assert read_token("abc") == "abc"
    path.write_bytes(b"\xff")
    with pytest.raises(BadTarget, match="Cannot read a token"):
        read_token(str(path))
