"""The command `kcclient`: its arguments, and how failure ends it (CONTRACT 7)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from kallichore import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

CONNECTION_FILE: Final = "KALLICHORE_CONNECTION_FILE"
OK, FAILED, INTERRUPTED = 0, 1, 130
_HELP: Final = f"""\
The server is the one of --connection-file, else of --url, else of the environment variable
{CONNECTION_FILE}. Without -s/--session-id a command is about the first session.
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose options hold before and after the subcommand."""

    def error(self, message: str) -> NoReturn:
        """Print the usage, and end with exit code 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"Error: {message}\n")


def _add_common(parser: argparse.ArgumentParser, default: object) -> None:
    """Add the options that every subcommand has; the main parser's are the defaults."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "-u", "--url", default=default, help="http://HOST:PORT, or unix:/PATH of its socket"
    )
    group.add_argument(
        "--token",
        metavar="FILE|TOKEN",
        default=default,
        help="a file that holds the token, or (visible to other users) the token itself",
    )
    group.add_argument(
        "--connection-file",
        metavar="FILE",
        default=default,
        help=f"the server's connection file (default: ${CONNECTION_FILE})",
    )
    parser.add_argument(
        "--json", action="store_true", default=default or False, help="print JSON for machines"
    )


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kcclient",
        description="Talk to a Kallichore server.",
        epilog=_HELP,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"kcclient {__version__}")
    _add_common(parser, None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, summary: str, *, session: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        _add_common(sub, argparse.SUPPRESS)
        if session:
            sub.add_argument("-s", "--session-id", metavar="ID", help="default: the first session")
        return sub

    command("list", "List the sessions.", session=False)
    command("status", "Say how the server is doing.", session=False)
    command("configuration", "Show the server's settings.", session=False)
    idle = command("idle-timeout-hours", "Show or set the idle shutdown.", session=False)
    idle.add_argument("hours", nargs="?", type=int, help="-1: never, 0: half a minute")
    start = command("start", "Create a session and start its kernel.", session=False)
    start.add_argument("-k", "--kernelspec", default="python3", help="name or directory (python3)")
    start.add_argument("-s", "--session-id", metavar="ID", help="default: a new one")
    start.add_argument("-d", "--working-directory", default=os.curdir, help="default: this one")
    start.add_argument("-n", "--display-name", help="default: the kernelspec's")
    command("info", "Describe a session.")
    execute = command("execute", "Run code in a session.")
    execute.add_argument("-c", "--code", required=True, help="the code; - reads it from stdin")
    execute.add_argument(
        *("-w", "--watch", "--wait"),
        action="store_true",
        help="take the session's channel, and show the output as it arrives instead of at the end",
    )
    _add_take(execute)
    restart = command("restart", "Start a session's kernel anew.")
    restart.add_argument("-d", "--working-directory", help="default: the kernel's own")
    listen = command("listen", "Show everything that a session's kernel sends.")
    listen.add_argument("--after", type=int, metavar="N", help="resume after frame number N")
    _add_take(listen)
    command("interrupt", "Interrupt what a session's kernel runs.")
    command("kill", "Kill a session's kernel.")
    command("delete", "Forget a session whose kernel does not run.")
    command("shutdown", "Stop all kernels and the server.", session=False)
    return parser


def _add_take(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--take", action="store_true", help="take the channel of a client that is connected"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `kcclient`, and return its exit code.

    0 is success; 1 a failure, said in one sentence on stderr; 2 a wrong command line; 130 Ctrl-C.
    """
    options = _build_parser().parse_args(argv)
    if not (options.connection_file or options.url):
        options.connection_file = os.environ.get(CONNECTION_FILE)
    if not (options.connection_file or options.url):
        return _fail(
            "No server is named: give --connection-file FILE or --url URL, "
            f"or set {CONNECTION_FILE}."
        )
    import trio  # noqa: PLC0415 - not for --help, nor for wrong arguments

    from kallichore.client import actions  # noqa: PLC0415
    from kallichore.client.errors import ClientError  # noqa: PLC0415

    code = FAILED
    try:
        code = trio.run(actions.run, options)
        if sys.stdout is not None:
            sys.stdout.flush()
    except* KeyboardInterrupt:
        code = INTERRUPTED
    except* BrokenPipeError:
        _drop_stdout()
    except* OSError as group:
        _drop_stdout()
        code = _fail(f"Cannot write the output: {getattr(_first(group), 'strerror', None)}.")
    except* ClientError as group:
        code = _fail(str(_first(group)))
    return code


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """Give the first error of a group of groups."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _fail(sentence: str) -> int:
    print(f"Error: {sentence}", file=sys.stderr)
    return FAILED


def _drop_stdout() -> None:
    """Nobody reads any more: let the interpreter's last flush go nowhere."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
