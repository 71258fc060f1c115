"""Files that we make where others can make some too: no link of theirs leads us anywhere."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from kallichore import listeners
from kallichore import log as logs
from kallichore.config import LogFormat, LogLevel
from kallichore.details import ConnectionDetails, open_connection_details
from kallichore.errors import StartupRefusal

if TYPE_CHECKING:
    from pathlib import Path

DETAILS = ConnectionDetails(
    transport="tcp",
    server_path="/kcserver",
    server_pid=1,
    bearer_token="t",
    log_path=None,
    server_id="s",
)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory like /tmp."""
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777)
    return directory


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """What a link points to."""
    path = tmp_path / "target"
    path.write_text("precious")
    return path


def log_to(path: Path) -> None:
    logs.configure(level=LogLevel.INFO, log_format=LogFormat.TEXT, log_file=path)


def test_a_connection_file_takes_the_place_of_a_link(shared: Path, target: Path) -> None:
    path = shared / "kc.json"
    path.symlink_to(target)
    with open_connection_details(path, DETAILS):
        assert not path.is_symlink()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert target.read_text() == "precious"
    assert list(shared.iterdir()) == []


@pytest.mark.parametrize("dangling", [False, True])
def test_a_socket_is_not_made_behind_a_link(shared: Path, target: Path, *, dangling: bool) -> None:
    path = shared / "kc.sock"
    if dangling:
        target.unlink()
    path.symlink_to(target)
    with pytest.raises(FileExistsError):
        listeners.listen_unix(path, 1)
    assert path.is_symlink()
    assert target.exists() is not dangling


@pytest.mark.usefixtures("restored_logging")
def test_a_log_does_not_go_where_a_link_in_a_shared_directory_leads(
    shared: Path, target: Path
) -> None:
    path = shared / "kc.log"
    path.symlink_to(target)
    with pytest.raises(StartupRefusal):
        log_to(path)
    assert target.read_text() == "precious"


@pytest.mark.usefixtures("restored_logging")
def test_a_log_goes_where_a_link_in_a_directory_of_ours_leads(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "kc.log"
    path.symlink_to(target)
    log_to(path)
    assert target.read_text() == "precious"


@pytest.mark.usefixtures("restored_logging")
def test_a_log_is_not_written_to_somebody_elses_file_in_a_shared_directory(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared / "kc.log"
    path.touch()
    somebody_else = path.stat().st_uid + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody_else)
    with pytest.raises(StartupRefusal, match="somebody else's"):
        log_to(path)
