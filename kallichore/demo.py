"""``python -m kallichore.demo``: a server, a Python kernel, and what comes back from it.

It uses nothing but `kallichore.client`, so it is also the shortest complete example of that.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from kallichore import __version__
from kallichore.client import ClientError, build_session, find_kernelspec, open_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kallichore.client import Channel, Client, JupyterMessage

__all__ = ["main"]

STREAM: Final = """\
import time
for word in ("one", "two", "three"):
    print(word, flush=True)
    time.sleep(0.2)"""
RESULT: Final = "sum(range(101))"
ERROR: Final = "{'kernel': 'python'}['server']"
PLOT: Final = """\
from matplotlib import pyplot
pyplot.plot([1, 4, 2, 3]);"""
WANTED: Final = {"stream", "execute_result", "error", "image/png"}
"""What a run of the demo must have shown to have been one."""

DIM, BOLD, GREEN, RED, PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


class Stage:
    """What the demo writes, with the time since the last thing of note."""

    def __init__(self) -> None:
        self._since = trio.current_time()
        self._colored = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.seen: set[str] = set()

    def begin(self) -> None:
        """Start the clock anew."""
        self._since = trio.current_time()

    def title(self, text: str) -> None:
        """Write a headline."""
        self._write(f"\n{self._paint(BOLD, text)}\n")

    def fact(self, what: str, text: str) -> None:
        """Write what has just been done, and how long it took."""
        took = f"{trio.current_time() - self._since:.2f} s"
        self._write(f"  {self._paint(GREEN, f'{what:<8}')} {text}  {self._paint(DIM, took)}")
        self.begin()

    def code(self, number: int, code: str) -> None:
        """Write the code that is about to run."""
        first, *rest = code.splitlines()
        lines = [f"{self._paint(GREEN, f'  In [{number}]:')} {first}"]
        lines += [f"{'...:':>10} {line}" for line in rest]
        self._write("\n".join(["", *lines]))
        self.begin()

    def message(self, message: JupyterMessage) -> None:
        """Write a message of the kernel if it is output, at the time it came."""
        content = message.content
        match message.type:
            case "stream":
                self._output(f"stream, {content['name']}", content["text"])
            case "execute_result" | "display_data":
                self._display(message.type, content["data"])
            case "error":
                self._output("error", "\n".join(content["traceback"]))
            case _:
                return
        self.seen.add(message.type)

    def _display(self, kind: str, data: dict[str, str]) -> None:
        self.seen |= set(data)
        sizes = [f"{mime} ({len(value)} characters)" for mime, value in data.items()]
        self._output(f"{kind}, {', '.join(sizes)}", data.get("text/plain", ""))

    def _output(self, kind: str, text: str) -> None:
        when = f"{trio.current_time() - self._since:+.2f} s"
        self._write(f"  {self._paint(DIM, f'{when}  {kind}')}")
        for line in text.rstrip("\n").splitlines():
            self._write(f"      {line if self._colored else _without_colors(line)}")

    def _paint(self, color: str, text: str) -> str:
        return f"{color}{text}{PLAIN}" if self._colored else text

    @staticmethod
    def _write(text: str) -> None:
        print(text, flush=True)


def _without_colors(text: str) -> str:
    head, *parts = text.split("\x1b[")
    return head + "".join(part.partition("m")[2] for part in parts)


async def _show(stage: Stage, channel: Channel, codes: Sequence[str]) -> None:
    for number, code in enumerate(codes, 1):
        stage.code(number, code)
        async for message in channel.execute(code):
            stage.message(message)


async def _run_kernel(stage: Stage, client: Client) -> None:
    session = build_session(find_kernelspec("python3"), "demo")
    session_id = await client.new_session(session)
    info = await client.start_session(session_id)
    record = await client.get_session(session_id)
    name = f"{info['implementation']} {info['implementation_version']}"
    python = f"Python {info['language_info']['version']}"
    stage.fact("kernel", f"{name}, {python}, process {record.process_id}")
    async with client.open_channel(session_id) as channel:
        await _show(stage, channel, (STREAM, RESULT, ERROR, PLOT))


async def _demo() -> set[str]:
    """Run it all, and return what has been seen."""
    stage = Stage()
    stage.title(f"Kallichore {__version__} on Python {platform.python_version()}")
    async with open_server() as server:
        where = server.details.socket_path
        stage.fact("server", f"process {server.details.server_pid}, listening on {where}")
        await _run_kernel(stage, server.client)
        print(flush=True)
        stage.begin()
    stage.fact("stopped", "the kernel and the server, in order; nothing is left")
    return stage.seen


def _next_steps() -> str:
    """Commands to type next, as they can be typed here."""
    bin_directory = Path(sys.executable).parent
    with suppress(ValueError):
        bin_directory = bin_directory.relative_to(Path.cwd())
    server, client = (shlex.quote(str(bin_directory / name)) for name in ("kcserver", "kcclient"))
    return f"""
Next, a server of your own, and something for it to do:

  {server} --connection-file kc.json --log-level warn &
  until [ -e kc.json ]; do sleep 0.1; done
  {client} --connection-file kc.json start -k python3
  {client} --connection-file kc.json execute -w -c 'print(6 * 7)'
  {client} --connection-file kc.json shutdown
"""


def main() -> int:
    """Run the demo; 0 if everything was seen, 1 with a sentence if not."""
    if find_spec("ipykernel") is None:
        print("The demo needs ipykernel: pip install 'kallichore[demo]'", file=sys.stderr)
        return 1
    try:
        missing = WANTED - trio.run(_demo)
    except* ClientError as group:
        print(f"The demo failed: {group.exceptions[0]}", file=sys.stderr)
        return_code = 1
    except* KeyboardInterrupt:
        return_code = 130
    else:
        return_code = 1 if missing else 0
        if missing:
            print(f"The demo did not show: {', '.join(sorted(missing))}", file=sys.stderr)
        else:
            print(_next_steps())
    return return_code


if __name__ == "__main__":
    sys.exit(main())
