"""The arguments of ``kcserver``: what there is, what it must agree with, and the `Config` it makes.

Everything is decided before anything is opened. Bad usage exits with 2 and options that contradict
each other with 1, each with a sentence on stderr.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, Never

from kallichore import __version__
from kallichore.config import (
    Config,
    Configurable,
    Deadlines,
    Limits,
    LogFormat,
    LogLevel,
    Transport,
    is_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["complain", "configuration"]

LAST_PORT: Final = 65535
MIN_SAMPLE_INTERVAL_MS: Final = 100
_BOOLEANS: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def complain(text: str) -> None:
    """Say on stderr why the server does not start: front ends show it to the user."""
    print(f"Error: {text}", file=sys.stderr, flush=True)


def configuration(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """What the command line asks for.

    Raises:
        SystemExit: 0 after help or version, 2 on bad usage, 1 if the options contradict each other.

    """
    args = _parser(environ).parse_args(argv)
    transport = _transport(args)
    bounds: dict[str, int | float] = dict(args.set)
    if args.max_sessions is not None:
        bounds["max_sessions"] = args.max_sessions
    limits = {name: int(bounds[name]) for name in _defaults(Limits) if name in bounds}
    deadlines = {name: bounds[name] for name in _defaults(Deadlines) if name in bounds}
    return Config(
        transport=transport,
        port=args.port,
        unix_socket=args.unix_socket,
        socket_dir=args.socket_dir,
        token=args.token,
        log_file=args.log_file,
        log_format=LogFormat(args.log_format),
        connection_file=args.connection_file,
        handshake_socket=args.handshake_socket,
        initial=Configurable(
            idle_shutdown_hours=max(args.idle_shutdown_hours, -1),
            resource_sample_interval_ms=args.resource_sample_interval,
            resource_include_children=args.resource_include_children,
            log_level=LogLevel(args.log_level),
        ),
        limits=Limits(**limits),
        deadlines=Deadlines(**deadlines),
    )


def _transport(args: argparse.Namespace) -> Transport:
    """The transport, given or inferred, once it agrees with the other options."""
    word: str = args.transport or _inferred(args)
    words = ", ".join(Transport)
    if args.port != 0 and word != Transport.TCP:
        _refuse(f"--port can be used with the tcp transport only, not with {word}")
    if args.unix_socket is not None and word != Transport.SOCKET:
        _refuse(f"--unix-socket can be used with the socket transport only, not with {word}")
    if word == Transport.NAMED_PIPE:
        _refuse("The named-pipe transport exists on Windows only; use socket or tcp")
    if word not in list(Transport):
        _refuse(f"Invalid transport: {word!r} (valid transports: {words})")
    return Transport(word)


def _inferred(args: argparse.Namespace) -> Transport:
    if args.unix_socket is not None or args.connection_file is not None:
        return Transport.SOCKET
    return Transport.TCP


def _refuse(text: str) -> Never:
    complain(text)
    raise SystemExit(1)


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kcserver",
        usage="kcserver [options]",
        description="Supervise Jupyter kernels: start them, watch them, and carry their messages.",
        epilog="Every option may be written --option VALUE or --option=VALUE.",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    _add_listening(parser)
    _add_connecting(parser)
    _add_lifetime(parser)
    _add_logging(parser, environ)
    other = parser.add_argument_group("other")
    other.add_argument("-h", "--help", action="help", help="show this text and exit")
    other.add_argument("-V", "--version", action="version", version=f"kcserver {__version__}")
    return parser


def _add_listening(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where to listen")
    group.add_argument(
        "--transport",
        metavar="T",
        help="tcp, socket (Unix) or named-pipe (Windows); without it: socket if --unix-socket or "
        "--connection-file is given, else tcp",
    )
    group.add_argument(
        "-p",
        "--port",
        metavar="N",
        type=_number("port", 0, LAST_PORT),
        default=0,
        help="TCP port on 127.0.0.1; 0 lets the system choose (default: 0)",
    )
    group.add_argument(
        "--unix-socket", metavar="PATH", type=_path, help="path of the server's Unix socket"
    )
    group.add_argument(
        "--socket-dir",
        metavar="DIR",
        type=_text_path,
        help="where sockets go whose path is not given (default: $XDG_RUNTIME_DIR, else the "
        "directory for temporary files)",
    )


def _add_connecting(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who may connect, and how they learn of it")
    group.add_argument(
        "-t",
        "--token",
        metavar="FILE|none",
        type=_token,
        help="a file that holds the bearer token and is deleted once read, or none: no token is "
        "asked for (default: a random token)",
    )
    group.add_argument(
        "--connection-file",
        metavar="PATH",
        type=_path,
        help="write the address and the token there, readable by you alone",
    )
    group.add_argument(
        "--handshake-socket",
        metavar="PATH",
        type=_path,
        help="send the address and the token to the Unix socket that you listen on",
    )


def _add_lifetime(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how long it runs, and what it may use")
    group.add_argument(
        "-i",
        "--idle-shutdown-hours",
        metavar="N",
        type=_number("number of hours", -(2**31), 2**31 - 1),
        default=-1,
        help="stop after N hours without work; 0 means 30 seconds, -1 never (default: -1)",
    )
    group.add_argument(
        "-r",
        "--resource-sample-interval",
        metavar="MS",
        type=_sample_interval,
        default=1000,
        help="measure what kernels use each MS milliseconds, at least 100; 0 is off "
        "(default: 1000)",
    )
    group.add_argument(
        "--resource-include-children",
        metavar="BOOL",
        type=_boolean,
        default=True,
        help="measure a kernel's whole process tree, or its process alone (default: true)",
    )
    group.add_argument(
        "--max-sessions",
        metavar="N",
        type=_number("number of sessions", 1, 2**31 - 1),
        help=f"sessions that may exist at once (default: {Limits().max_sessions})",
    )
    group.add_argument(
        "--set",
        metavar="NAME=VALUE",
        type=_bound,
        action="append",
        default=[],
        help="change one bound, like connection_seconds=60; may be repeated (the documentation "
        "lists them under Bounds)",
    )


def _add_logging(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    group = parser.add_argument_group("what it says")
    group.add_argument(
        "-l",
        "--log-level",
        metavar="L",
        type=str.lower,
        choices=[str(level) for level in LogLevel],
        default=_level_of(environ.get("RUST_LOG", "")),
        help="trace, debug, info, warn or error (default: $RUST_LOG, else info)",
    )
    group.add_argument(
        "--log-file", metavar="PATH", type=_path, help="log to this file as well as to stderr"
    )
    group.add_argument(
        "--log-format",
        metavar="F",
        choices=[str(form) for form in LogFormat],
        default=str(LogFormat.TEXT),
        help="text, or json: one object a line (default: text)",
    )


def _level_of(rust_log: str) -> str:
    """The plain level among the directives of ``RUST_LOG``, such as ``info,hyper=warn``."""
    words = (word.strip().lower() for word in rust_log.split(","))
    levels = [word for word in words if word in list(LogLevel)]
    return levels[0] if levels else str(LogLevel.INFO)


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    try:
        return Path(text).absolute()
    except OSError as error:  # what it would be relative to is gone
        raise argparse.ArgumentTypeError(f"the current directory: {error.strerror}") from None


def _token(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def _text_path(text: str) -> Path:
    path = _path(text)
    if not is_text(str(path)):
        raise argparse.ArgumentTypeError(f"{text!r} is no UTF-8, and no client could be told of it")
    return path


def _number(what: str, low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {what}") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
        return value

    return number


def _sample_interval(text: str) -> int:
    value = _number("number of milliseconds", 0, 2**31 - 1)(text)
    return max(value, MIN_SAMPLE_INTERVAL_MS) if value else 0


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false") from None


def _bound(text: str) -> tuple[str, int | float]:
    """One ``NAME=VALUE`` of ``--set``: a field of `Limits` or `Deadlines`, and a positive value."""
    name, equals, value = text.partition("=")
    known = _defaults(Limits) | _defaults(Deadlines)
    if not equals or name not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE with the name of a bound")
    whole = isinstance(known[name], int)
    try:
        number = int(value) if whole else float(value)
    except ValueError:
        what = "a whole number" if whole else "a number of seconds"
        raise argparse.ArgumentTypeError(f"{name} is {what}, not {value!r}") from None
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{name} must be positive and finite, not {value}")
    return name, number


def _defaults(bounds: type[Limits | Deadlines]) -> dict[str, int | float]:
    standard = bounds()
    return {field.name: getattr(standard, field.name) for field in fields(standard)}


class _HelpFormatter(argparse.HelpFormatter):
    """Short options and long ones in two columns, their meaning in a third."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=100)
