"""`kcclient execute` and `listen`: what is shown, and what Ctrl-C does."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.client.fake_server import jupyter, kernel
from tests.client.running import all_of, first_line, kcclient, open_kcclient
from tests.client.samples import SESSION

if TYPE_CHECKING:
    from tests.client.fake_server import FakeChannel, FakeServer

CHANNELS = "/sessions/one/channels"


async def run_code(channel: FakeChannel, status: str, *outputs: tuple[str, Any]) -> None:
    request = await channel.receive_json()
    parent = request["header"]
    await channel.send_json(jupyter("status", {"execution_state": "busy"}, parent))
    await channel.send_json(*(jupyter(kind, content, parent) for kind, content in outputs))
    await channel.send_json(
        jupyter("status", {"execution_state": "idle"}, parent),
        jupyter("execute_reply", {"status": status}, parent, "shell"),
    )
    await channel.wait_closed()


async def test_execute_and_wait_shows_streams_results_and_mime_types(
    one_session: FakeServer,
) -> None:
    async def script(channel: FakeChannel) -> None:
        await run_code(
            channel,
            "ok",
            ("stream", {"name": "stdout", "text": "out\n"}),
            ("stream", {"name": "stderr", "text": "err\n"}),
            ("execute_result", {"data": {"text/plain": "42"}}),
            ("display_data", {"data": {"image/png": "AAAA", "text/plain": "<Figure>"}}),
        )

    one_session.script = script
    code, out, err = await kcclient("-u", one_session.address, "execute", "-c", "x", "-w")
    assert (code, err) == (0, "err\n")
    assert out == "out\n42\n<Figure>\n[image/png, text/plain]\n"


async def test_execute_and_wait_ends_with_1_and_the_traceback_when_the_code_raised(
    one_session: FakeServer,
) -> None:
    async def script(channel: FakeChannel) -> None:
        error = {"ename": "E", "evalue": "v", "traceback": ["\x1b[31mTraceback\x1b[0m", "E: v"]}
        await run_code(channel, "error", ("error", error))

    one_session.script = script
    code, out, err = await kcclient("-u", one_session.address, "execute", "-c", "x", "-w")
    assert (code, out, err) == (1, "", "Traceback\nE: v\n")


async def test_execute_and_wait_in_json_prints_a_line_for_each_message(
    one_session: FakeServer,
) -> None:
    async def script(channel: FakeChannel) -> None:
        await run_code(channel, "ok", ("stream", {"name": "stdout", "text": "1\n"}))

    one_session.script = script
    code, out, _ = await kcclient(
        "-u", one_session.address, "--json", "execute", "-c", "-", "-w", stdin=b"print(1)"
    )
    types = [json.loads(line)["header"]["msg_type"] for line in out.splitlines()]
    assert (code, types) == (0, ["status", "stream", "status", "execute_reply"])


async def test_execute_shows_the_output_at_the_end_and_takes_no_channel(
    one_session: FakeServer,
) -> None:
    reply = {
        "status": "ok",
        "execution_count": 1,
        "output": [{"type": "stream", "stream_name": "stdout", "text": "hi\n"}],
    }
    one_session.answer("POST", "/sessions/one/execute", reply)
    arguments = ("-u", one_session.address, "execute", "-c", "x = 1")
    assert await kcclient(*arguments) == (0, "hi\n", "")
    code, out, _ = await kcclient(*arguments, "--json")
    assert (code, json.loads(out)) == (0, reply)
    assert one_session.requests[-1].json["code"] == "x = 1"


async def test_execute_leaves_the_channel_of_another_client_alone(one_session: FakeServer) -> None:
    one_session.answer("GET", "/sessions/one", SESSION | {"connected": True})
    reply = {
        "status": "error",
        "execution_count": 1,
        "output": [{"type": "stream", "stream_name": "stdout", "text": "hi\n"}],
        "data": {"text/plain": "3"},
        "error_name": "E",
        "error_message": "v",
        "error_traceback": ["E: v"],
    }
    one_session.answer("POST", "/sessions/one/execute", reply)
    code, out, err = await kcclient("-u", one_session.address, "execute", "-c", "x", "-w")
    assert (code, out) == (1, "hi\n3\n")
    assert err.splitlines()[1:] == ["E: v"]
    assert "another client is connected" in err
    assert not any(request.target == CHANNELS for request in one_session.requests)


async def test_execute_in_a_session_without_a_kernel_says_what_to_do(
    one_session: FakeServer,
) -> None:
    one_session.answer("GET", "/sessions/one", SESSION | {"status": "exited"})
    code, _, err = await kcclient("-u", one_session.address, "execute", "-c", "x", "-w")
    assert (code, "`kcclient restart` starts one." in err) == (1, True)


async def test_listen_shows_events_and_output_until_the_session_ends(
    one_session: FakeServer,
) -> None:
    async def script(channel: FakeChannel) -> None:
        await channel.send_json(
            kernel("status", {"status": "busy", "reason": "execute_request"}),
            jupyter("stream", {"name": "stdout", "text": "hi\n"}),
            kernel("output", ["stdout", "raw\n"]),
            kernel("exited", 3),
        )
        await channel.close()

    one_session.script = script
    code, out, err = await kcclient("-u", one_session.address, "listen")
    assert (code, out) == (0, "hi\nraw\n")
    assert err == "[busy (execute_request)]\n[the kernel has ended with exit code 3]\n"


@pytest.mark.parametrize("form", [[], ["--json"]])
async def test_listen_ends_with_1_when_another_client_comes(
    one_session: FakeServer, form: list[str]
) -> None:
    async def script(channel: FakeChannel) -> None:
        await channel.send_json(kernel("clientDisconnected", "Another client is connecting."))
        await channel.close()

    one_session.script = script
    code, out, err = await kcclient("-u", one_session.address, *form, "listen")
    assert (code, err.splitlines()[-1]) == (1, "Error: Another client is connecting.")
    assert [json.loads(line)["kind"] for line in out.splitlines()] == ["kernel"] * len(form)


async def test_listen_takes_no_channel_without_being_told(one_session: FakeServer) -> None:
    one_session.answer("GET", "/sessions/one", SESSION | {"connected": True})
    code, _, err = await kcclient("-u", one_session.address, "listen")
    assert (code, "--take" in err) == (1, True)

    async def script(channel: FakeChannel) -> None:
        await channel.close()

    one_session.script = script
    assert (await kcclient("-u", one_session.address, "listen", "--take", "--after", "0"))[0] == 0
    assert one_session.requests[-1].target == f"{CHANNELS}?after=0"


async def test_ctrl_c_ends_listening_without_a_traceback(one_session: FakeServer) -> None:
    connected = trio.Event()

    async def script(channel: FakeChannel) -> None:
        connected.set()
        await channel.wait_closed()

    one_session.script = script
    process = await open_kcclient(one_session, "listen")
    await connected.wait()
    process.send_signal(signal.SIGINT)
    assert (await all_of(process.stdout), await all_of(process.stderr)) == ("", "")
    assert await process.wait() == 130


async def test_ctrl_c_interrupts_the_code_and_its_end_is_shown(one_session: FakeServer) -> None:
    running, interrupted = trio.Event(), trio.Event()
    one_session.answer("POST", "/sessions/one/interrupt", None)

    async def script(channel: FakeChannel) -> None:
        request = await channel.receive_json()
        running.set()
        await interrupted.wait()
        error = {"ename": "KeyboardInterrupt", "evalue": "", "traceback": []}
        await channel.send_json(
            jupyter("error", error, request["header"]),
            jupyter("execute_reply", {"status": "error"}, request["header"], "shell"),
            jupyter("status", {"execution_state": "idle"}, request["header"]),
        )
        await channel.wait_closed()

    one_session.script = script
    process = await open_kcclient(one_session, "execute", "-c", "while True: pass", "-w")
    await running.wait()
    process.send_signal(signal.SIGINT)
    assert await first_line(process.stderr) == "[interrupting; Ctrl-C again leaves]\n"
    interrupted.set()
    assert "KeyboardInterrupt" in await all_of(process.stderr)
    assert await all_of(process.stdout) == ""
    assert await process.wait() == 1


async def test_a_second_ctrl_c_leaves(one_session: FakeServer) -> None:
    running = trio.Event()
    one_session.answer("POST", "/sessions/one/interrupt", None)

    async def script(channel: FakeChannel) -> None:
        await channel.receive_json()
        running.set()
        await channel.wait_closed()

    one_session.script = script
    process = await open_kcclient(one_session, "execute", "-c", "while True: pass", "-w")
    await running.wait()
    process.send_signal(signal.SIGINT)
    assert await first_line(process.stderr) == "[interrupting; Ctrl-C again leaves]\n"
    process.send_signal(signal.SIGINT)
    assert await all_of(process.stderr) == ""
    assert await all_of(process.stdout) == ""
    assert await process.wait() == 130


async def test_a_reader_that_leaves_ends_it_quietly(one_session: FakeServer) -> None:
    connected, left = trio.Event(), trio.Event()

    async def script(channel: FakeChannel) -> None:
        connected.set()
        await left.wait()
        await channel.send_json(jupyter("stream", {"name": "stdout", "text": "hi\n"}))
        await channel.wait_closed()

    one_session.script = script
    process = await open_kcclient(one_session, "listen")
    await connected.wait()
    assert process.stdout is not None
    await process.stdout.aclose()
    left.set()
    assert await all_of(process.stderr) == ""
    assert await process.wait() == 1
