"""The client against the real server and a real ipykernel, on both transports."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from kallichore import models
from kallichore.client import (
    ChannelClosed,
    Client,
    JupyterMessage,
    Kernelspec,
    RequestFailed,
    SessionUnknown,
    StartFailed,
    TakenOver,
    TokenRefused,
    build_session,
    find_kernelspec,
    open_client,
    open_server,
)
from kallichore.client.messages import Exited

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kallichore.client import Channel, LaunchedServer

PATIENCE = 60
TRANSPORTS = {"tcp": ("--transport", "tcp"), "socket": ()}
SESSION = "the/one"


@pytest.fixture(params=TRANSPORTS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[LaunchedServer]:
    with trio.fail_after(PATIENCE):
        async with open_server(*TRANSPORTS[request.param]) as opened:
            yield opened


@pytest.fixture
async def lone_server() -> AsyncIterator[LaunchedServer]:
    """A server on a Unix socket only, for tests to which the transport makes no difference."""
    with trio.fail_after(PATIENCE):
        async with open_server() as opened:
            yield opened


@asynccontextmanager
async def open_kernel(client: Client) -> AsyncIterator[Channel]:
    """Start an ipykernel, and connect to it."""
    await client.new_session(build_session(find_kernelspec("python3"), SESSION))
    await client.start_session(SESSION)
    async with client.open_channel(SESSION) as channel:
        yield channel


async def run(channel: Channel, code: str, **options: Any) -> list[JupyterMessage]:
    return [message async for message in channel.execute(code, **options)]


async def read_to_the_end(channel: Channel) -> None:
    while True:
        await channel.receive()


async def wait_for(channel: Channel, wanted: object) -> None:
    async for received in channel:
        if received == wanted:
            return


def texts(messages: list[JupyterMessage]) -> str:
    return "".join(one.content["text"] for one in messages if one.type == "stream")


async def test_a_print_gives_the_messages_of_the_contract(server: LaunchedServer) -> None:
    async with open_kernel(server.client) as channel:
        messages = await run(channel, "print(1)")
    assert [one.type for one in messages if one.channel == "iopub"] == [
        "status",
        "execute_input",
        "stream",
        "status",
    ]
    assert [one.type for one in messages if one.channel == "shell"] == ["execute_reply"]
    stream = next(one for one in messages if one.type == "stream")
    assert stream.content == {"name": "stdout", "text": "1\n"}
    assert stream.header.session
    assert stream.header.version.startswith("5.")


async def test_results_displays_and_errors_come_with_what_the_kernel_gave_them(
    lone_server: LaunchedServer,
) -> None:
    async with open_kernel(lone_server.client) as channel:
        shown = await run(
            channel,
            "from IPython.display import display, HTML\ndisplay(HTML('<b>x</b>'))\n6 * 7",
        )
        failed = await run(channel, "1 / 0")
    displayed = next(one for one in shown if one.type == "display_data")
    assert displayed.content["data"]["text/html"] == "<b>x</b>"
    result = next(one for one in shown if one.type == "execute_result")
    assert result.content["data"] == {"text/plain": "42"}
    error = next(one for one in failed if one.type == "error")
    assert error.content["ename"] == "ZeroDivisionError"
    reply = next(one for one in failed if one.type == "execute_reply")
    assert reply.content["status"] == "error"


async def test_buffers_go_to_the_kernel_and_come_back(server: LaunchedServer) -> None:
    echo = """
from comm import create_comm, get_comm_manager
def opened(comm, message):
    comm.on_msg(lambda m: comm.send({"back": 1}, buffers=[bytes(b)[::-1] for b in m["buffers"]]))
get_comm_manager().register_target("echo", opened)
"""
    sent = bytes(range(256)) * 4000
    async with open_kernel(server.client) as channel:
        await run(channel, echo)
        await channel.request("comm_open", {"comm_id": "c", "target_name": "echo", "data": {}})
        msg_id = await channel.request(
            "comm_msg", {"comm_id": "c", "data": {}}, buffers=[sent, b""]
        )
        while (message := await channel.receive_answer(msg_id)).type != "comm_msg":
            pass
    assert message.content["data"] == {"back": 1}
    assert message.buffers == [sent[::-1], b""]


async def test_a_question_of_the_kernel_is_answered(lone_server: LaunchedServer) -> None:
    async with open_kernel(lone_server.client) as channel:
        answers = []
        async for message in channel.execute("print(input('name? ') + '!')", allow_stdin=True):
            answers.append(message)
            if message.type == "input_request":
                await channel.answer_input(message, "Kalli")
    assert texts(answers) == "Kalli!\n"


async def test_execute_code_and_history_work_beside_a_channel(
    lone_server: LaunchedServer,
) -> None:
    client = lone_server.client
    async with open_kernel(client) as channel:
        reply = await client.execute_code(
            SESSION, models.ExecuteRequest(code="print('a'); x = 3; x")
        )
        raised = await client.execute_code(SESSION, models.ExecuteRequest(code="1 / 0"))
        assert texts(await run(channel, "print(x)")) == "3\n"
        history = await client.get_session_history(SESSION)
    assert reply.status is models.ExecuteStatus.OK
    assert reply.data == {"text/plain": "3"}
    assert [one.text for one in reply.output] == ["a\n"]
    assert raised.error_name == "ZeroDivisionError"
    assert [entry.input for entry in history] == ["print('a'); x = 3; x", "1 / 0", "print(x)"]


async def test_an_interrupt_ends_what_runs(lone_server: LaunchedServer) -> None:
    client = lone_server.client
    async with open_kernel(client) as channel:
        messages = []
        async for message in channel.execute("print('go')\nwhile True: pass"):
            messages.append(message)
            if message.type == "stream":
                await client.interrupt_session(SESSION)
    error = next(one for one in messages if one.type == "error")
    assert error.content["ename"] == "KeyboardInterrupt"


async def test_a_killed_kernel_is_reported_and_can_be_restarted(
    lone_server: LaunchedServer,
) -> None:
    client = lone_server.client
    async with open_kernel(client) as channel:
        await client.kill_session(SESSION)
        await wait_for(channel, Exited(-1))
        session = await client.get_session(SESSION)
        assert session.status is models.Status.EXITED
        assert session.last_exit is not None
        assert session.last_exit.signal == "SIGKILL"
        await client.restart_session(SESSION)
        assert texts(await run(channel, "print(2)")) == "2\n"


async def test_a_kernel_that_dies_answers_the_code_that_killed_it(
    lone_server: LaunchedServer,
) -> None:
    async with open_kernel(lone_server.client) as channel:
        messages = await run(channel, "import os; os._exit(3)")
        await wait_for(channel, Exited(3))
    reply = next(one for one in messages if one.type == "execute_reply")
    assert reply.content["status"] in {"aborted", "error"}


async def test_a_channel_resumes_where_it_broke_off(server: LaunchedServer) -> None:
    client = server.client
    await client.new_session(build_session(find_kernelspec("python3"), SESSION))
    await client.start_session(SESSION)
    async with client.open_channel(SESSION, after=0) as channel:
        msg_id = await channel.request(
            "execute_request",
            {"code": "for n in range(20): print(n, flush=True)", "silent": False},
        )
        while (await channel.receive_answer(msg_id)).type != "stream":
            pass
        seen = channel.seq
    numbers, first = [], ""
    async with client.open_channel(SESSION, after=seen) as channel:
        idle = False
        while not idle:  # the reply may come before the output
            message = await channel.receive_answer(msg_id)
            numbers.append(channel.seq)
            first += message.content.get("text", "")
            idle = message.content.get("execution_state") == "idle"
    assert numbers[0] == seen + 1
    assert numbers == sorted(numbers)
    assert first.endswith("19\n")


async def test_the_newest_client_has_the_channel(server: LaunchedServer) -> None:
    client = server.client
    async with open_kernel(client) as old, client.open_channel(SESSION) as new:
        with pytest.raises(TakenOver, match="Another client is connecting"):
            await read_to_the_end(old)
        assert texts(await run(new, "print('mine')")) == "mine\n"


async def test_deleting_a_session_closes_its_channel(server: LaunchedServer) -> None:
    client = server.client
    await client.new_session(build_session(find_kernelspec("python3"), SESSION))
    async with client.open_channel(SESSION) as channel:
        await client.delete_session(SESSION)
        with pytest.raises(ChannelClosed) as caught:
            await channel.receive()
    assert caught.value.close_code == 1000
    with pytest.raises(SessionUnknown):
        await client.get_session(SESSION)


async def test_a_shutdown_closes_the_channel_as_going_away(server: LaunchedServer) -> None:
    async with open_kernel(server.client) as channel:
        await server.client.shutdown_server()
        with pytest.raises(ChannelClosed) as caught:
            await read_to_the_end(channel)
    assert caught.value.close_code == 1001
    assert await server.process.wait() == 0


async def test_a_kernel_that_does_not_start_leaves_its_words(lone_server: LaunchedServer) -> None:
    client = lone_server.client
    python = find_kernelspec("python3").argv[0]
    words = "import sys; print('no module', file=sys.stderr); sys.exit(7)"
    spec = Kernelspec(argv=[python, "-c", words, "{connection_file}"], language="python")
    await client.new_session(build_session(spec, SESSION))
    with pytest.raises(StartFailed) as caught:
        await client.start_session(SESSION)
    assert caught.value.exit_code == 7
    assert caught.value.output == "no module\n"


async def test_a_command_that_is_nowhere_is_refused_at_once(lone_server: LaunchedServer) -> None:
    spec = Kernelspec(argv=["/no/such/kernel", "{connection_file}"])
    with pytest.raises(RequestFailed, match="/no/such/kernel") as caught:
        await lone_server.client.new_session(build_session(spec, SESSION))
    assert (caught.value.code, caught.value.status) == ("KS-19", 400)


async def test_a_kernel_of_somebody_else_is_adopted(
    lone_server: LaunchedServer, nursery: trio.Nursery
) -> None:
    client = lone_server.client
    spec = find_kernelspec("python3")
    await client.new_session(build_session(Kernelspec(argv=[], language="python"), SESSION))
    connection = await client.connection_info(SESSION)
    file = lone_server.connection_file.with_name("kernel.json")
    file.write_bytes(msgspec.json.encode(connection))
    argv = [part.replace("{connection_file}", str(file)) for part in spec.argv]
    await nursery.start(trio.run_process, argv)
    info = await client.adopt_session(SESSION, connection)
    assert info["language_info"]["name"] == "python"
    async with client.open_channel(SESSION) as channel:
        assert texts(await run(channel, "print('adopted')")) == "adopted\n"
    nursery.cancel_scope.cancel(reason="seen enough")


async def test_the_connection_file_lets_in_and_a_wrong_token_does_not(
    server: LaunchedServer,
) -> None:
    async with Client.from_connection_file(server.connection_file) as client:
        assert (await client.list_sessions()).total == 0
        assert (await client.server_status()).process_id == server.details.server_pid
    async with open_client(server.connection_file, "wrong") as stranger:
        await stranger.server_status()
        with pytest.raises(TokenRefused):
            await stranger.list_sessions()
        with pytest.raises(TokenRefused):
            async with stranger.open_channel(SESSION):
                pytest.fail("there is no channel")


async def test_settings_are_read_back(lone_server: LaunchedServer) -> None:
    client = lone_server.client
    await client.set_server_configuration(models.ServerConfiguration(idle_shutdown_hours=-7))
    settings = await client.get_server_configuration()
    assert settings.idle_shutdown_hours == -1


async def test_a_signal_stops_the_server_as_a_request_does(lone_server: LaunchedServer) -> None:
    async with open_kernel(lone_server.client) as channel:
        session = await lone_server.client.get_session(SESSION)
        lone_server.process.send_signal(signal.SIGTERM)
        with pytest.raises(ChannelClosed):
            await read_to_the_end(channel)
    assert await lone_server.process.wait() == 0
    assert session.process_id is not None
    with pytest.raises(ProcessLookupError):
        os.kill(session.process_id, 0)
    assert not lone_server.connection_file.exists()
