"""`kcclient` as people run it: a process with arguments, output and an exit code."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.client.running import kcclient
from tests.client.samples import SESSION, STATUS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.client.fake_server import FakeServer


async def test_list_prints_a_table_or_json(one_session: FakeServer) -> None:
    code, out, err = await kcclient("-u", one_session.address, "list")
    assert (code, err) == (0, "")
    titles, row = out.splitlines()
    assert titles.split()[:4] == ["SESSION", "STATUS", "LANGUAGE", "NAME"]
    assert row.split()[:4] == ["one", "idle", "python", "Python"]
    code, out, _ = await kcclient("list", "--json", "-u", one_session.address)
    assert (code, json.loads(out)["sessions"][0]["session_id"]) == (0, "one")


async def test_an_empty_list_says_so(lone_server: FakeServer) -> None:
    lone_server.answer("GET", "/sessions", {"total": 0, "sessions": []})
    assert await kcclient("-u", lone_server.address, "list") == (0, "There are no sessions.\n", "")
    code, _, err = await kcclient("-u", lone_server.address, "info")
    assert (code, err) == (1, "Error: There is no session; `kcclient start` starts one.\n")


async def test_status_names_version_and_process(lone_server: FakeServer) -> None:
    lone_server.answer("GET", "/status", STATUS)
    code, out, _ = await kcclient("-u", lone_server.address, "status")
    assert code == 0
    assert ["Version:", "1.2.3"] in [line.split() for line in out.splitlines()]
    assert ["Process:", "42"] in [line.split() for line in out.splitlines()]


async def test_the_token_may_be_in_a_file(lone_server: FakeServer, tmp_path: Path) -> None:
    lone_server.answer("GET", "/status", STATUS)
    (tmp_path / "token").write_text("hidden\n")
    await kcclient("-u", lone_server.address, "--token", str(tmp_path / "token"), "status")
    assert lone_server.requests[0].headers["authorization"] == "Bearer hidden"


async def test_the_environment_names_the_usual_server(server: FakeServer, tmp_path: Path) -> None:
    server.answer("GET", "/status", STATUS)
    details = (
        {"transport": "tcp", "base_path": server.address, "bearer_token": "t"}
        if server.socket_path is None
        else {"transport": "socket", "socket_path": server.socket_path, "bearer_token": "t"}
    )
    path = tmp_path / "kc.json"
    path.write_text(json.dumps(details))
    code, _, _ = await kcclient("status", env={"KALLICHORE_CONNECTION_FILE": str(path)})
    assert code == 0
    code, _, _ = await kcclient("status", "--connection-file", str(path))
    assert code == 0
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer t"}


async def test_configuration_and_idle_timeout(lone_server: FakeServer) -> None:
    settings: dict[str, Any] = {
        "idle_shutdown_hours": -1,
        "resource_sample_interval_ms": 1000,
        "resource_include_children": True,
        "log_level": "info",
    }
    lone_server.answer("GET", "/server_configuration", settings)
    lone_server.answer("POST", "/server_configuration", None)
    _, out, _ = await kcclient("-u", lone_server.address, "configuration")
    assert "never" in out
    assert "every 1000 ms" in out
    assert (await kcclient("-u", lone_server.address, "idle-timeout-hours"))[:2] == (0, "never\n")
    await kcclient("-u", lone_server.address, "idle-timeout-hours", "-1")
    posted = [request.json for request in lone_server.requests if request.method == "POST"]
    assert posted == [{"idle_shutdown_hours": -1}]


async def test_info_describes_the_first_session(one_session: FakeServer) -> None:
    code, out, _ = await kcclient("-u", one_session.address, "info")
    assert code == 0
    assert ["Session:", "one"] in [line.split() for line in out.splitlines()]
    code, out, _ = await kcclient("-u", one_session.address, "info", "-s", "one", "--json")
    assert json.loads(out) == SESSION


async def test_of_several_sessions_the_first_is_meant(lone_server: FakeServer) -> None:
    sessions = [{**SESSION, "session_id": name} for name in ("z", "a")]
    lone_server.answer("GET", "/sessions", {"total": 2, "sessions": sessions})
    for name in ("z", "a"):
        lone_server.answer("POST", f"/sessions/{name}/interrupt", None)
    for chosen, said in (((), "Interrupted z.\n"), (("--session-id", "a"), "Interrupted a.\n")):
        assert (await kcclient("-u", lone_server.address, "interrupt", *chosen))[1] == said


@pytest.mark.parametrize(
    ("command", "method", "path", "said"),
    [
        ("interrupt", "POST", "/sessions/one/interrupt", "Interrupted one."),
        ("kill", "POST", "/sessions/one/kill", "Killed the kernel of one."),
        ("restart", "POST", "/sessions/one/restart", "Restarted one."),
        ("delete", "DELETE", "/sessions/one", "Deleted one."),
        ("shutdown", "POST", "/shutdown", "The server is shutting down."),
    ],
)
async def test_a_deed_is_done_and_said(
    one_session: FakeServer, command: str, method: str, path: str, said: str
) -> None:
    one_session.answer(method, path, None)
    assert await kcclient("-u", one_session.address, command) == (0, said + "\n", "")
    assert (one_session.requests[-1].method, one_session.requests[-1].target) == (method, path)


async def test_deleting_a_running_session_is_refused_with_advice(one_session: FakeServer) -> None:
    error = {"code": "KS-2", "message": "Session one is running"}
    one_session.answer("DELETE", "/sessions/one", error, 400)
    code, out, err = await kcclient("-u", one_session.address, "delete", "-s", "one")
    assert (code, out) == (1, "")
    assert err == "Error: Session one is running; `kcclient kill` ends its kernel.\n"


async def test_start_creates_and_starts_a_session(lone_server: FakeServer, tmp_path: Path) -> None:
    lone_server.answer("PUT", "/sessions", {"session_id": "mine"})
    lone_server.answer("POST", "/sessions/mine/start", {"implementation": "ipython"})
    home = tmp_path / "kernels" / "toy"
    home.mkdir(parents=True)
    (home / "kernel.json").write_text('{"argv": ["toy", "{connection_file}"], "language": "toy"}')
    code, out, err = await kcclient(
        *("-u", lone_server.address, "start", "-k", "toy", "-s", "mine", "-d", str(tmp_path)),
        env={"JUPYTER_PATH": str(tmp_path)},
    )
    assert (code, out, err) == (0, "Started mine (ipython).\n", "")
    asked = lone_server.requests[0].json
    assert (asked["argv"], asked["session_id"]) == (["toy", "{connection_file}"], "mine")
    assert asked["working_directory"] == str(tmp_path)


async def test_a_failed_start_shows_the_kernels_output_and_leaves_no_session(
    lone_server: FakeServer,
) -> None:
    error = {"code": "KS-8", "message": "The process exited abnormally (exit status: 1)"}
    lone_server.answer("PUT", "/sessions", {"session_id": "mine"})
    body = {"error": error, "output": "No module named x\n", "exit_code": 1}
    lone_server.answer("POST", "/sessions/mine/start", body, 500)
    lone_server.answer("DELETE", "/sessions/mine", None)
    code, _, err = await kcclient("-u", lone_server.address, "start", "-s", "mine")
    assert code == 1
    assert err == f"Error: {error['message']} (KS-8)\nNo module named x\n"
    assert lone_server.requests[-1].method == "DELETE"


async def test_nobody_there_is_one_sentence_and_exit_code_1(short_path: Path) -> None:
    code, out, err = await kcclient("-u", f"unix:{short_path}/none", "list")
    assert (code, out) == (1, "")
    assert err == f"Error: No server answers at Unix socket {short_path}/none.\n"


async def test_no_server_named_is_said_before_anything_is_loaded() -> None:
    code, _, err = await kcclient("list", env={"KALLICHORE_CONNECTION_FILE": ""})
    assert (code, err.startswith("Error: No server is named")) == (1, True)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["list", "--nonsense"], ["execute"]])
async def test_a_wrong_command_line_is_exit_code_2(arguments: list[str]) -> None:
    code, out, err = await kcclient(*arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err


async def test_help_and_version_load_nothing_heavy() -> None:
    text = (
        "import sys; from kallichore.client.command import main\n"
        "try: main(['--help'])\nexcept SystemExit as exc: assert exc.code == 0\n"
        "assert not {'trio', 'httpx', 'msgspec'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = await trio.run_process([sys.executable, "-c", text], capture_stdout=True)
    assert b"interrupt" in done.stdout
    assert (await kcclient("--version"))[1].startswith("kcclient ")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["-s", "a" * 256], "expected at most 255 bytes of UTF-8, got 256"),
        (["-s", "\udcff"], "is no text that JSON could carry"),
        (["-n", "\udcff"], "is no text that JSON could carry"),
    ],
)
async def test_a_session_that_cannot_be_is_a_sentence(
    lone_server: FakeServer, options: list[str], why: str
) -> None:
    code, out, err = await kcclient("-u", lone_server.address, "start", *options)
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert err.endswith(f"{why}.\n")
    assert err.count("\n") == 1


async def test_what_another_web_server_says_is_one_line(lone_server: FakeServer) -> None:
    lone_server.answers["GET", "/sessions"] = 404, b"<!DOCTYPE html>\n<p>Not found"
    code, _, err = await kcclient("-u", lone_server.address, "list")
    why = "Error: The server answered 404 <!DOCTYPE html> <p>Not found (http_404)\n"
    assert (code, err) == (1, why)
