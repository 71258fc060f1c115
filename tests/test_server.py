"""What the server decides before it listens."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from kallichore.config import Config
from kallichore.server import _socket_directories

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files."""
    directory = tmp_path / "temporary"
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(directory))
    return directory


def test_sockets_go_to_the_users_runtime_directory_first(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert _socket_directories(Config()) == [tmp_path, temporary]
    given = tmp_path / "given"
    assert _socket_directories(Config(socket_dir=given)) == [given, temporary]


@pytest.mark.parametrize("name", ["missing", "file", "\udcff"])
def test_a_runtime_directory_that_is_of_no_use_is_passed_over(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "\udcff").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / name))
    assert _socket_directories(Config()) == [temporary]


def test_a_runtime_directory_that_is_not_ours_to_write_is_passed_over(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, who may write everywhere."""
    asked = []

    def access(path: str, mode: int) -> bool:
        asked.append((path, mode))
        return False

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert _socket_directories(Config()) == [temporary]
    assert asked == [(str(tmp_path), os.W_OK | os.X_OK)]
