"""The supervisor's guardian: how it comes to be, and what the supervisor tells it.

`guard` forks before anything big is imported. The child returns and becomes the supervisor; the
parent becomes the guardian, `kallichore.guardian_process`. Each holds one end of a socket pair;
that the other side is gone shows as its end.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

from kallichore import _platform
from kallichore.guardian_process import FORWARDED, Charge, main, point_at_nothing

__all__ = [
    "forget",
    "forget_group",
    "guard",
    "guardian_gone",
    "guardian_pid",
    "remember",
    "remember_group",
]

SUPERVISOR_NAME: Final = "kcserver"
BECOME: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from kallichore.guardian_process import main; main(sys.argv[1:])"
)
"""What the guardian's new interpreter is told."""
SENT_BYTES: Final = 65536
STANDARD_DESCRIPTORS: Final = 3


class Link:
    """The supervisor's end of the connection to its guardian."""

    def __init__(self, end: socket.socket, pid: int, *, adopting: bool) -> None:
        """Hold the connection to guardian ``pid``, which may be able to adopt orphans."""
        self.end = end
        self.pid = pid
        self.adopting = adopting
        self._unsent = bytearray()
        end.settimeout(0)

    def tell(self, kind: bytes, value: str) -> None:
        """Send one record, now or, when the guardian is stopped, together with a later one."""
        self._unsent += kind + os.fsencode(value) + b"\0"
        try:
            sent = self.end.send(self._unsent[:SENT_BYTES])
        except BlockingIOError:
            return
        except OSError:  # it is gone; `guardian_gone` tells
            sent = len(self._unsent)
        del self._unsent[:sent]


_link: Link | None = None
"""This process is about one supervisor, and so is this connection (None without a guardian)."""


def guard(sweep_seconds: float = 2.0) -> None:
    """Fork. The child returns, as the supervisor; the parent is the guardian and never returns.

    To be called once, before threads are started or much is imported. The supervisor is in a
    session of its own, so that a terminal's Ctrl-C reaches it only through the guardian, once; it
    can still write to the terminal. It is given SIGTERM when the guardian dies.
    """
    global _link  # noqa: PLW0603 - see there
    occupy_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    guardian_end, supervisor_end = socket.socketpair()
    adopting = _platform.become_subreaper()
    guardian = os.getpid()
    spared = _platform.children(guardian)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would lose us the exit status
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*FORWARDED, signal.SIGCHLD))
    supervisor = os.fork()
    if supervisor:
        become_guardian(
            Charge(supervisor, guardian_end.detach(), sweep_seconds, before, spared, adopting)
        )
    guardian_end.close()
    os.setsid()
    point_at_nothing(0)
    _platform.set_process_name(SUPERVISOR_NAME)
    _platform.become_subreaper()
    _platform.die_with_parent(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if os.getppid() != guardian:  # it died before we asked to be told
        os._exit(1)
    _link = Link(supervisor_end, guardian, adopting=adopting)


def occupy_standard_descriptors() -> None:
    """Open the null device in the place of stdin, stdout and stderr if they are closed.

    Whatever is opened next would take that place, and be written to or pointed elsewhere.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor < STANDARD_DESCRIPTORS:
        os.set_inheritable(descriptor, True)  # noqa: FBT003
        descriptor = os.dup(descriptor)
    os.close(descriptor)


def become_guardian(charge: Charge) -> NoReturn:
    """Start a new interpreter in our place, which has nothing that it does not need.

    The memory of the old one, shared with the supervisor, would become the guardian's own bit by
    bit. Where there is no interpreter to be started, the old one must do.
    """
    words = charge.words()
    os.set_inheritable(charge.end, True)  # noqa: FBT003
    package = str(Path(__file__).absolute().parent.parent)
    try:
        os.execv(  # noqa: S606
            sys.executable, [sys.executable, "-I", "-S", "-c", BECOME, package, *words]
        )
    except (OSError, ValueError):
        main(words)


def guardian_pid() -> int | None:
    """Return the guardian's process id, or None when there is no guardian."""
    return None if _link is None else _link.pid


def remember(path: str | os.PathLike[str]) -> None:
    """Have the guardian remove a file of ours, or a directory with all it holds, if we cannot.

    Only the very file that is there now is removed, not another one in its place.
    """
    if _link is not None:
        where = Path(path).absolute()
        status = where.lstat()
        _link.tell(b"+", f"{status.st_dev} {status.st_ino} {where}")


def forget(path: str | os.PathLike[str]) -> None:
    """Tell the guardian that a file is removed, or is not ours any more."""
    if _link is not None:
        _link.tell(b"-", str(Path(path).absolute()))


def remember_group(group: int, start_time: int | None) -> None:
    """Have the guardian kill a process group; of use where the system lets it adopt no orphans."""
    if _link is not None and not _link.adopting:
        _link.tell(b"g", f"{group} {start_time or 0}")


def forget_group(group: int) -> None:
    """Tell the guardian that nothing is left of a process group."""
    if _link is not None and not _link.adopting:
        _link.tell(b"G", str(group))


async def guardian_gone() -> None:
    """Wait until the guardian has died; without a guardian, for ever. One task may wait."""
    import trio  # noqa: PLC0415 - heavy: after the fork

    if _link is None:
        await trio.sleep_forever()
    else:
        await trio.lowlevel.wait_readable(_link.end)
