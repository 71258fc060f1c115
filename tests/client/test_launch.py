"""Starting and stopping a server, with programs that behave and others that do not."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from kallichore.client import LaunchFailed, ServerGone, launch_server, open_server
from kallichore.config import ClientBounds

if TYPE_CHECKING:
    from pathlib import Path

REPORT = """
import json, os, signal, socket, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

def report(details):
    path = sys.argv[sys.argv.index("--handshake-socket") + 1]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(details.encode())

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        print("ASKED", self.path, body.decode(), file=sys.stderr)
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"null")
        self.wfile.flush()
        if self.path == "/shutdown" and "--stubborn" not in sys.argv:
            os._exit(0)

    def log_message(self, *args):
        pass

def serve():
    server = HTTPServer(("127.0.0.1", 0), Handler)
    print("ARGUMENTS", *sys.argv[1:], file=sys.stderr)
    port = server.server_address[1]
    report(json.dumps({"transport": "tcp", "port": port, "server_pid": os.getpid()}) + chr(10))
    server.serve_forever()
"""


def program(text: str) -> list[str]:
    return [sys.executable, "-c", REPORT + text]


async def test_a_server_is_ready_in_the_block_and_shut_down_at_its_end() -> None:
    async with open_server(command=program("serve()")) as server:
        assert server.details.server_pid == server.process.pid
        await server.client.client_heartbeat(7)
        directory = server.connection_file.parent
        assert directory.stat().st_mode & 0o777 == 0o700
    assert server.process.returncode == 0
    assert not directory.exists()
    assert "ASKED /shutdown" in str(server.output)


async def test_the_server_is_told_its_files_and_what_keeps_it() -> None:
    async with open_server("--log-level", "debug", command=program("serve()")) as server:
        directory = server.connection_file.parent
    said = str(server.output)
    assert f"--connection-file {directory}/connection.json" in said
    assert f"--socket-dir {directory}" in said
    assert "--idle-shutdown-hours 0 --log-level debug" in said
    assert 'ASKED /client_heartbeat {"process_id":' in said


async def test_without_a_lifeline_the_server_is_not_told_to_idle_out() -> None:
    async with open_server(command=program("serve()"), lifeline=False) as server:
        pass
    assert "--idle-shutdown-hours" not in str(server.output)
    assert "/client_heartbeat" not in str(server.output)


async def test_an_error_in_the_block_comes_out_bare_and_the_server_is_shut_down() -> None:
    processes: list[trio.Process] = []

    async def fail() -> None:
        async with open_server(command=program("serve()")) as server:
            processes.append(server.process)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail()
    assert processes[0].returncode == 0


async def test_a_cancelled_block_still_shuts_the_server_down_in_order() -> None:
    with trio.CancelScope() as scope:
        async with open_server(command=program("serve()")) as server:
            scope.cancel(reason="the test wants it")
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert server.process.returncode == 0


async def test_a_server_that_the_block_has_shut_down_is_only_waited_for() -> None:
    async with open_server(command=program("serve()")) as server:
        await server.client.shutdown_server()
        await server.process.wait()
        with pytest.raises(ServerGone):
            await server.client.shutdown_server()
    assert server.process.returncode == 0


async def test_a_server_that_does_not_stop_gets_sigterm() -> None:
    bounds = ClientBounds(stop_seconds=0.1)
    async with open_server("--stubborn", command=program("serve()"), bounds=bounds) as server:
        pass
    assert server.process.returncode == -signal.SIGTERM


async def test_a_server_that_ignores_sigterm_is_killed() -> None:
    text = "signal.signal(signal.SIGTERM, signal.SIG_IGN); serve()"
    bounds = ClientBounds(stop_seconds=0.1, term_seconds=0.1)
    async with open_server("--stubborn", command=program(text), bounds=bounds) as server:
        pass
    assert server.process.returncode == -signal.SIGKILL


async def test_a_server_that_ends_at_once_is_reported_with_its_words() -> None:
    text = "print('Error: The token is empty.', file=sys.stderr); sys.exit(1)"
    with pytest.raises(LaunchFailed, match="exit code 1 instead") as caught:
        async with launch_server(command=program(text)):
            pytest.fail("there is no server")
    assert caught.value.output == "Error: The token is empty.\n"
    assert str(caught.value).endswith("Error: The token is empty.")


async def test_a_server_that_says_nothing_is_given_up_and_ended(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    text = f"open({str(marker)!r}, 'w').write(str(os.getpid())); signal.pause()"
    with pytest.raises(LaunchFailed, match="said nothing for 1 seconds"):
        async with launch_server(command=program(text), bounds=ClientBounds(launch_seconds=1)):
            pytest.fail("there is no server")
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)


@pytest.mark.parametrize("details", ["x", "{}", '{"transport": "carrier pigeon"}'])
async def test_a_report_that_is_none_is_a_failed_launch(details: str) -> None:
    text = f"report({details!r}); signal.pause()"
    with pytest.raises(LaunchFailed, match="handshake"):
        async with launch_server(command=program(text)):
            pytest.fail("there is no server")


async def test_a_talkative_server_never_waits_for_us_and_its_last_words_are_kept() -> None:
    text = "sys.stderr.write('x' * 3_000_000 + 'END'); sys.stderr.flush(); serve()"
    bounds = ClientBounds(server_output_bytes=1000)
    async with open_server(command=program(text), bounds=bounds) as server:
        assert len(str(server.output)) <= 1000
