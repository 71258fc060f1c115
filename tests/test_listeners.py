"""Listening sockets: CONTRACT 1.6, line by line."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kallichore import server
from kallichore.arguments import configuration
from kallichore.config import Limits
from kallichore.errors import SocketPathTooLong
from kallichore.listeners import listen_tcp, listen_unix, remove_socket, socket_path

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def directory() -> Iterator[Path]:
    """One with a short path, as a socket's has to be."""
    with tempfile.TemporaryDirectory(prefix="kc-", dir="/tmp") as name:
        yield Path(name)


@contextmanager
def bound(path: Path, *, listens: bool = True) -> Iterator[socket.socket]:
    with closing(socket.socket(socket.AF_UNIX)) as other:
        other.bind(str(path))
        if listens:
            other.listen(0)
        yield other


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_socket_is_ours_alone_from_the_moment_it_exists(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However open the umask; and the umask is put back."""
    path = directory / "a.sock"
    born: list[int] = []
    bind = socket.socket.bind

    def watched(self: socket.socket, address: str) -> None:
        bind(self, address)
        born.append(mode_of(path))

    monkeypatch.setattr(socket.socket, "bind", watched)
    before = os.umask(0)
    try:
        listener = listen_unix(path, 1)
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    listener.socket.close()
    assert born == [0o600]
    assert mode_of(path) == 0o600


async def test_the_umask_is_put_back_when_it_cannot_be_made(directory: Path) -> None:
    before = os.umask(0o027)
    try:
        with pytest.raises(OSError, match="too long"):
            listen_unix(directory / ("x" * 200), 1)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


async def test_directories_above_it_are_made(directory: Path) -> None:
    listen_unix(directory / "a" / "b" / "c.sock", 1).socket.close()
    assert (directory / "a" / "b" / "c.sock").is_socket()


async def test_a_stale_socket_is_replaced(directory: Path) -> None:
    path = directory / "a.sock"
    with bound(path):
        pass
    listener = listen_unix(path, 1)
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.connect(str(path))
    listener.socket.close()


@pytest.mark.parametrize("waiting", [0, 3], ids=["prompt", "with a full backlog"])
async def test_a_socket_that_somebody_answers_on_is_an_error(directory: Path, waiting: int) -> None:
    path = directory / "a.sock"
    with bound(path) as other:
        clients = [socket.socket(socket.AF_UNIX) for _ in range(waiting)]
        for client in clients:
            client.settimeout(0)
            client.connect_ex(str(path))
        with pytest.raises(FileExistsError, match="another server listens on"):
            listen_unix(path, 1)
        for client in clients:
            client.close()
        assert path.is_socket()
        assert other.getsockname() == str(path)


@pytest.mark.parametrize("kind", ["file", "directory", "pipe", "link to a socket", "dead link"])
async def test_any_other_file_is_an_error_and_stays(directory: Path, kind: str) -> None:
    path, target = directory / "a.sock", directory / "target"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    if kind == "link to a socket":
        with bound(target, listens=False):
            pass
    before = path.lstat()
    with pytest.raises(FileExistsError, match="is not a socket"):
        listen_unix(path, 1)
    assert path.lstat() == before


async def test_tcp_is_loopback_only_and_a_port_in_use_is_an_error() -> None:
    first = listen_tcp(0, 1)
    host, port = first.socket.getsockname()
    with pytest.raises(OSError, match="in use"):
        listen_tcp(port, 1)
    first.socket.close()
    assert host == "127.0.0.1"


def test_the_first_directory_whose_path_is_short_enough_is_taken() -> None:
    long, short = Path("/" + "x" * 100), Path("/tmp")  # noqa: S108 (nothing is made there)
    assert socket_path([long, short], "kc-1.sock", Limits()) == short / "kc-1.sock"
    assert socket_path([short, long], "kc-1.sock", Limits()) == short / "kc-1.sock"
    with pytest.raises(SocketPathTooLong, match="104"):
        socket_path([long], "kc-1.sock", Limits())


@pytest.mark.parametrize(("name", "fits"), [("x" * 103, True), ("x" * 104, False)])
def test_a_path_has_at_most_104_bytes(name: str, fits: bool) -> None:  # noqa: FBT001
    if fits:
        assert len(bytes(socket_path([Path("/")], name, Limits()))) == 104
    else:
        with pytest.raises(SocketPathTooLong):
            socket_path([Path("/")], name, Limits())


def test_removing_what_is_gone_is_no_error(directory: Path) -> None:
    remove_socket(directory / "gone.sock")
    remove_socket(directory / "gone" / "gone.sock")


@pytest.mark.parametrize(
    ("argv", "runtime", "expected"),
    [
        ((), None, ["TMP"]),
        ((), "TMP/run", ["TMP/run", "TMP"]),
        ((), "TMP/gone", ["TMP"]),
        (("--socket-dir", "/given"), "TMP/run", ["/given", "TMP"]),
    ],
)
def test_generated_sockets_go_where_the_contract_says(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    runtime: str | None,
    expected: list[str],
) -> None:
    (directory / "run").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if runtime is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime.replace("TMP", str(directory)))
    config = configuration(["--transport=socket", *argv], {})
    found = server._socket_directories(config)
    assert [str(path) for path in found] == [one.replace("TMP", str(directory)) for one in expected]
    assert server._main_socket(config) == found[0] / f"kc-{os.getpid()}.sock"


def test_a_generated_socket_falls_back_to_the_directory_for_temporary_files(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = directory / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    config = configuration(["--transport=socket"], {})
    assert server._main_socket(config).parent == directory
