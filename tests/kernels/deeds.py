"""What a puppet can do beside speaking Jupyter: call a test, and start processes that stay."""

# ruff: noqa: S606 - part of a process of its own, without Trio

from __future__ import annotations

import json
import os
import socket

FOREVER = "600"


def meet(path: str, said: object = None) -> str:
    """Call a test that listens at ``path``, say something, and wait until it answers."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        line.sendall(json.dumps(said).encode() + b"\n")
        return line.recv(65536).decode()


def spawn(
    kind: str = "plain", *, hold_output: bool = False, env: dict[str, str] | None = None
) -> int:
    """Start a process that would stay for long, and return its pid.

    ``plain``, ``setsid`` (in a session of its own) or ``double`` (an orphan in its own session).
    """
    reading, writing = os.pipe()
    if os.fork() == 0:
        if kind != "plain":
            os.setsid()
        if kind == "double" and os.fork():
            os._exit(0)
        os.write(writing, str(os.getpid()).encode())
        if not hold_output:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 1)
            os.dup2(nothing, 2)
        os.execve("/bin/sleep", ["sleep", FOREVER], os.environ if env is None else env)
    os.close(writing)
    with os.fdopen(reading) as file:
        pid = int(file.read())  # it ends when the new program runs
    if kind == "double":
        os.wait()
    return pid


def cut(port: int) -> int:
    """Break every connection of ours at a port, as a network does; give how many there were."""
    count = 0
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            copy = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with copy:
            try:
                if copy.getsockname()[1:2] == (port,) and copy.getpeername():
                    copy.shutdown(socket.SHUT_RDWR)
                    count += 1
            except OSError:
                continue
    return count
