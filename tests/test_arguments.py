"""The arguments of ``kcserver``: CONTRACT 1.1, line by line."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from kallichore import __version__
from kallichore.arguments import configuration
from kallichore.config import (
    Config,
    Configurable,
    Deadlines,
    Limits,
    LogFormat,
    LogLevel,
    Transport,
)


def parse(*argv: str, **environ: str) -> Config:
    return configuration(argv, environ)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int | str | None, str]:
    """The exit code of a command line that is not accepted, and what stderr says."""
    with pytest.raises(SystemExit) as exit_info:
        parse(*argv)
    captured = capsys.readouterr()
    assert captured.out == ""
    return exit_info.value.code, captured.err


def test_without_arguments_the_defaults_of_the_contract_hold() -> None:
    assert parse() == Config()
    assert Config().initial == Configurable(
        idle_shutdown_hours=-1,
        resource_sample_interval_ms=1000,
        resource_include_children=True,
        log_level=LogLevel.INFO,
    )


LONG = [
    ("--port", "8080", "port", 8080),
    ("--token", "none", "token", "none"),
    ("--log-file", "/a/log", "log_file", Path("/a/log")),
    ("--log-format", "json", "log_format", LogFormat.JSON),
    ("--connection-file", "/a/file", "connection_file", Path("/a/file")),
    ("--handshake-socket", "/a/sock", "handshake_socket", Path("/a/sock")),
    ("--transport", "socket", "transport", Transport.SOCKET),
    ("--unix-socket", "/a/sock", "unix_socket", Path("/a/sock")),
    ("--socket-dir", "/a", "socket_dir", Path("/a")),
    ("--idle-shutdown-hours", "2", "initial.idle_shutdown_hours", 2),
    ("--idle-shutdown-hours", "-1", "initial.idle_shutdown_hours", -1),
    ("--idle-shutdown-hours", "-7", "initial.idle_shutdown_hours", -1),
    ("--idle-shutdown-hours", "0", "initial.idle_shutdown_hours", 0),
    ("--resource-sample-interval", "0", "initial.resource_sample_interval_ms", 0),
    ("--resource-sample-interval", "1", "initial.resource_sample_interval_ms", 100),
    ("--resource-sample-interval", "99", "initial.resource_sample_interval_ms", 100),
    ("--resource-sample-interval", "250", "initial.resource_sample_interval_ms", 250),
    ("--resource-include-children", "false", "initial.resource_include_children", False),
    ("--resource-include-children", "True", "initial.resource_include_children", True),
    ("--resource-include-children", "0", "initial.resource_include_children", False),
    ("--resource-include-children", "yes", "initial.resource_include_children", True),
    ("--log-level", "trace", "initial.log_level", LogLevel.TRACE),
    ("--log-level", "WARN", "initial.log_level", LogLevel.WARN),
    ("--max-sessions", "3", "limits.max_sessions", 3),
    ("--set", "term_seconds=0.5", "deadlines.term_seconds", 0.5),
    ("--set", "body_bytes=1024", "limits.body_bytes", 1024),
]
SHORT = [
    ("-p", "8080", "port", 8080),
    ("-t", "/a/token", "token", "/a/token"),
    ("-i", "-1", "initial.idle_shutdown_hours", -1),
    ("-i", "4", "initial.idle_shutdown_hours", 4),
    ("-r", "500", "initial.resource_sample_interval_ms", 500),
    ("-l", "error", "initial.log_level", LogLevel.ERROR),
]


def found(config: Config, path: str) -> object:
    value: object = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize(("flag", "value", "path", "expected"), LONG + SHORT)
def test_a_flag_and_its_value_may_be_two_words(
    flag: str, value: str, path: str, expected: object
) -> None:
    assert found(parse(flag, value), path) == expected


@pytest.mark.parametrize(("flag", "value", "path", "expected"), LONG + SHORT)
def test_a_flag_and_its_value_may_be_joined_by_an_equals_sign(
    flag: str, value: str, path: str, expected: object
) -> None:
    assert found(parse(f"{flag}={value}"), path) == expected


def test_paths_are_absolute_whatever_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse("--connection-file", "kc.json").connection_file == tmp_path / "kc.json"
    assert parse("--log-file", "kc.log").log_file == tmp_path / "kc.log"


@pytest.mark.parametrize(
    ("argv", "transport"),
    [
        ((), Transport.TCP),
        (("--port", "1"), Transport.TCP),
        (("--unix-socket", "/a"), Transport.SOCKET),
        (("--connection-file", "/a"), Transport.SOCKET),
        (("--connection-file", "/a", "--transport", "tcp"), Transport.TCP),
        (("--handshake-socket", "/a"), Transport.TCP),
        (("--handshake-socket", "/a", "--connection-file", "/b"), Transport.SOCKET),
        (("--handshake-socket", "/a", "--unix-socket", "/b"), Transport.SOCKET),
    ],
)
def test_a_transport_that_is_not_given_is_inferred(
    argv: tuple[str, ...], transport: Transport
) -> None:
    assert parse(*argv).transport is transport


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--port", "1", "--transport", "socket"), ("--port", "tcp")),
        (("--port", "1", "--connection-file", "/a"), ("--port", "tcp")),
        (("--unix-socket", "/a", "--transport", "tcp"), ("--unix-socket", "socket")),
        (("--transport", "named-pipe"), ("named-pipe", "Windows")),
        (("--transport", "pigeon"), ("pigeon", "tcp", "socket", "named-pipe")),
    ],
)
def test_options_that_contradict_each_other_are_refused_with_a_sentence(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], words: tuple[str, ...]
) -> None:
    code, text = refused(capsys, *argv)
    assert code == 1
    assert text.startswith("Error: ")
    assert text.count("\n") == 1
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("argv", "first"),
    [
        (("--port", "1", "--unix-socket", "/a", "--transport", "pigeon"), "--port"),
        (("--unix-socket", "/a", "--transport", "named-pipe"), "--unix-socket"),
        (("--unix-socket", "/a", "--transport", "pigeon"), "--unix-socket"),
        (("--port", "1", "--transport", "named-pipe"), "--port"),
        (("--port", "1", "--unix-socket", "/a"), "--port"),
    ],
)
def test_the_first_contradiction_in_the_contracts_order_is_named(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], first: str
) -> None:
    assert refused(capsys, *argv)[1].startswith(f"Error: {first} ")


@pytest.mark.parametrize(
    "argv",
    [
        ("--bogus",),
        ("--por", "1"),
        ("word",),
        ("--port",),
        ("--port", "x"),
        ("--port", "65536"),
        ("--port", "-1"),
        ("--log-level", "loud"),
        ("--log-format", "xml"),
        ("--idle-shutdown-hours", "soon"),
        ("--idle-shutdown-hours", "99999999999999999999"),
        ("--resource-sample-interval", "-1"),
        ("--resource-include-children", "maybe"),
        ("--resource-include-children",),
        ("--max-sessions", "0"),
        ("--connection-file", ""),
        ("--set", "term_seconds"),
        ("--set", "nonsense=1"),
        ("--set", "term_seconds=0"),
        ("--set", "term_seconds=-1"),
        ("--set", "term_seconds=nan"),
        ("--set", "term_seconds=inf"),
        ("--set", "body_bytes=1.5"),
        ("--set", "body_bytes=many"),
    ],
)
def test_bad_usage_exits_with_2_and_shows_the_usage(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]
) -> None:
    code, text = refused(capsys, *argv)
    assert code == 2
    assert text.startswith("usage: kcserver")


def test_a_directory_for_sockets_that_no_client_could_be_told_of_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, text = refused(capsys, "--socket-dir", "/a/\udcff")
    assert code == 2
    assert text.splitlines()[-1].endswith("is no UTF-8, and no client could be told of it")


def test_every_bound_can_be_set() -> None:
    argv = [f"--set={field.name}=7" for bounds in (Limits, Deadlines) for field in fields(bounds)]
    config = parse(*argv)
    assert {getattr(config.limits, field.name) for field in fields(Limits)} == {7}
    assert {getattr(config.deadlines, field.name) for field in fields(Deadlines)} == {7.0}


def test_no_bound_is_a_limit_and_a_deadline_at_once() -> None:
    names = [field.name for bounds in (Limits, Deadlines) for field in fields(bounds)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("rust_log", "level"),
    [
        ("", LogLevel.INFO),
        ("debug", LogLevel.DEBUG),
        ("TRACE", LogLevel.TRACE),
        ("info,hyper=warn", LogLevel.INFO),
        ("hyper=warn, error", LogLevel.ERROR),
        ("hyper=trace", LogLevel.INFO),
        ("nonsense", LogLevel.INFO),
    ],
)
def test_the_level_comes_from_rust_log_when_it_is_not_given(rust_log: str, level: LogLevel) -> None:
    assert parse(RUST_LOG=rust_log).initial.log_level is level


def test_a_level_that_is_given_wins_over_rust_log() -> None:
    assert parse("-l", "warn", RUST_LOG="trace").initial.log_level is LogLevel.WARN


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version_prints_the_name_and_the_number(
    capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse(flag)
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"kcserver {__version__}\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_flag(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse(flag)
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    for name in {name for name, *_ in LONG + SHORT} | {"--help", "-h", "--version", "-V"}:
        assert name in text
