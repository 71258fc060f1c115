"""Ports, connection files and the private directory."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kallichore.config import Limits
from kallichore.kernel.connection import (
    ConnectionInfo,
    PortPool,
    candidate_ports,
    connection_file_content,
    is_free,
    open_connection_file,
    open_runtime_directory,
    safe_name,
)

if TYPE_CHECKING:
    from pathlib import Path

NASTY_IDS = [
    "../../etc/passwd",
    "a/b",
    "\\",
    "new\nline",
    "quote'\"",
    "😀" * 63,
    "x" * 255,
    ".",
    "..",
    "-rf",
    "\ud800",
    "CON",
]


def test_ports_are_free_and_handed_out_once() -> None:
    pool = PortPool(Limits())
    ports = [port for _ in range(40) for port in pool.reserve(5)]
    assert len(set(ports)) == 200
    assert all(map(is_free, ports))


def test_ports_come_from_outside_the_range_of_outgoing_connections() -> None:
    candidates = candidate_ports(range(32768, 61000))
    assert set(candidates) == {*range(10_000, 32768), *range(61000, 65536)}
    assert set(candidate_ports(range(49152, 65536))) == set(range(10_000, 49152))
    everything = candidate_ports(range(1024, 65536))
    assert set(everything) == set(range(10_000, 65536))


def test_a_port_in_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = PortPool(Limits(port_draws=50))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        monkeypatch.setattr(pool, "_candidates", [port])
        with pytest.raises(OSError, match="no 1 free TCP ports"):
            pool.reserve(1)
    assert pool.reserve(1) == [port]


def test_released_ports_can_be_handed_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = PortPool(Limits(port_draws=1000))
    five = pool.reserve(5)
    pool.release(five)
    monkeypatch.setattr(pool, "_candidates", five)
    assert sorted(pool.reserve(5)) == sorted(five)
    with pytest.raises(OSError, match="no 1 free"):
        pool.reserve(1)
    pool.release([*five, 1])
    assert len(pool.reserve(5)) == 5


def test_a_connection_file_has_its_keys_in_order() -> None:
    info = ConnectionInfo(
        shell_port=1,
        iopub_port=2,
        stdin_port=3,
        control_port=4,
        hb_port=5,
        ip="127.0.0.1",
        key="k",
        transport="tcp",
        signature_scheme="hmac-sha256",
    )
    assert list(json.loads(connection_file_content(info)).items()) == [
        ("control_port", 4),
        ("shell_port", 1),
        ("stdin_port", 3),
        ("hb_port", 5),
        ("iopub_port", 2),
        ("signature_scheme", "hmac-sha256"),
        ("key", "k"),
        ("transport", "tcp"),
        ("ip", "127.0.0.1"),
    ]


@pytest.mark.parametrize("session_id", NASTY_IDS)
def test_a_connection_file_is_ours_alone_and_short_lived(session_id: str, tmp_path: Path) -> None:
    with open_connection_file(tmp_path, session_id, b"{}") as path:
        assert path.parent == tmp_path
        assert list(tmp_path.iterdir()) == [path]
        assert path.read_bytes() == b"{}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(path.name) < 100
        assert path.name.isascii()
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_place_of_a_connection_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with open_connection_file(tmp_path, "s", b"{}") as path:
        name = path
    name.symlink_to(victim)
    with open_connection_file(tmp_path, "s", b"{}") as path:
        assert path == name
        assert not path.is_symlink()
    assert victim.read_text() == "precious"


def test_a_connection_file_that_somebody_removed_is_no_error(tmp_path: Path) -> None:
    with open_connection_file(tmp_path, "s", b"{}") as path:
        path.unlink()
    with (
        pytest.raises(FileNotFoundError),
        open_connection_file(tmp_path / "gone", "s", b"{}"),
    ):
        pass


@given(st.lists(st.text(min_size=1, max_size=60), min_size=2, max_size=2, unique=True))
def test_different_sessions_have_different_files(ids: list[str]) -> None:
    first, second = map(safe_name, ids)
    assert first.lower() != second.lower()


def test_the_runtime_directory_is_private_locked_and_removed(tmp_path: Path) -> None:
    with open_runtime_directory(tmp_path) as path:
        assert path.parent == tmp_path
        assert path.name.startswith("kallichore-")
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        (path / "file").touch()
        other = os.open(path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
        (path / "link").symlink_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_ours_alone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*, prefix: str, dir: Path) -> str:  # noqa: A002 - its name in tempfile
        path = dir / f"{prefix}x"
        path.mkdir()
        path.chmod(0o755)
        return str(path)

    monkeypatch.setattr("tempfile.mkdtemp", make)
    with pytest.raises(PermissionError, match="ours alone"), open_runtime_directory(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
