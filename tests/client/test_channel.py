"""The channel: what is sent, what is received, how it ends, and how it does not begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from kallichore import models
from kallichore.client import (
    ChannelClosed,
    Client,
    JupyterMessage,
    TakenOver,
    Target,
    UnexpectedAnswer,
    new_message,
)
from kallichore.client.messages import ClientDisconnected, Exited, Output
from kallichore.config import ClientBounds
from tests.client.fake_server import FakeServer, jupyter, kernel

if TYPE_CHECKING:
    from tests.client.fake_server import FakeChannel

CHANNELS = "/sessions/one/channels"


async def idle_until_closed(channel: FakeChannel) -> None:
    await channel.wait_closed()


async def test_the_upgrade_carries_the_token_and_goes_to_the_sessions_path(
    server: FakeServer, client: Client
) -> None:
    server.script = idle_until_closed
    async with client.open_channel("one"):
        pass
    upgrade = server.requests[-1]
    assert upgrade.target == CHANNELS
    assert upgrade.headers["authorization"] == "Bearer secret"
    assert upgrade.headers["sec-websocket-version"] == "13"
    assert "sec-websocket-extensions" not in upgrade.headers


async def test_over_a_unix_socket_the_sessions_own_socket_is_asked_for_first(
    server: FakeServer, client: Client
) -> None:
    server.script = idle_until_closed
    async with client.open_channel("one"):
        pass
    upgrades = ["upgrade" in request.headers for request in server.requests]
    assert upgrades == ([True] if server.socket_path is None else [False, True])


async def test_frames_become_messages_and_events_in_order(
    server: FakeServer, client: Client
) -> None:
    async def script(channel: FakeChannel) -> None:
        await channel.send_json(
            kernel("status", {"status": "ready", "reason": None}),
            jupyter("stream", {"name": "stdout", "text": "hi"}, {"msg_id": "p"}),
            kernel("output", ["stderr", "oops"]),
            kernel("exited", -1),
        )
        await channel.close()

    server.script = script
    async with client.open_channel("one") as channel:
        received = [item async for item in channel]
    status, message, output, exited = received
    assert status == models.StatusChange(status=models.Status.READY, reason=None)
    assert isinstance(message, JupyterMessage)
    assert (message.type, message.parent_id, message.content["text"]) == ("stream", "p", "hi")
    assert output == Output(models.StreamName.STDERR, "oops")
    assert exited == Exited(-1)


async def test_a_message_is_sent_in_the_contracts_envelope(
    server: FakeServer, client: Client
) -> None:
    frames: list[dict[str, Any]] = []

    async def script(channel: FakeChannel) -> None:
        frames.append(await channel.receive_json())
        await idle_until_closed(channel)

    server.script = script
    async with client.open_channel("one") as channel:
        msg_id = await channel.request(
            "comm_msg", {"data": 1}, metadata={"m": 2}, buffers=[b"\x00\x01"]
        )
    (frame,) = frames
    assert frame["header"]["msg_id"] == msg_id
    assert (frame["header"]["msg_type"], frame["header"]["version"]) == ("comm_msg", "5.3")
    assert (frame["channel"], frame["content"], frame["metadata"]) == (
        "shell",
        {"data": 1},
        {"m": 2},
    )
    assert (frame["buffers"], frame["parent_header"]) == (["AAE="], {})


async def test_an_input_request_is_answered_on_stdin_with_its_header_as_parent(
    server: FakeServer, client: Client
) -> None:
    frames: list[dict[str, Any]] = []

    async def script(channel: FakeChannel) -> None:
        await channel.send_json(jupyter("input_request", {"prompt": "?"}, channel="stdin"))
        frames.append(await channel.receive_json())
        await idle_until_closed(channel)

    server.script = script
    async with client.open_channel("one") as channel:
        request = await channel.receive()
        assert isinstance(request, JupyterMessage)
        await channel.answer_input(request, "42")
    assert frames[0]["channel"] == "stdin"
    assert frames[0]["content"] == {"value": "42"}
    assert frames[0]["parent_header"]["msg_id"] == "k-input_request"


def answers(request: dict[str, Any], *, idle_first: bool) -> list[dict[str, Any]]:
    parent = request["header"]
    reply = jupyter("execute_reply", {"status": "ok"}, parent, "shell")
    idle = jupyter("status", {"execution_state": "idle"}, parent)
    return [
        jupyter("status", {"execution_state": "busy"}, parent),
        jupyter("stream", {"name": "stdout", "text": "1\n"}, parent),
        *([idle, reply] if idle_first else [reply, idle]),
    ]


@pytest.mark.parametrize("idle_first", [False, True])
async def test_execute_ends_when_reply_and_idle_have_both_come(
    server: FakeServer, client: Client, *, idle_first: bool
) -> None:
    async def script(channel: FakeChannel) -> None:
        request = await channel.receive_json()
        assert request["content"]["code"] == "print(1)"
        assert request["content"]["allow_stdin"] is False
        await channel.send_json(*answers(request, idle_first=idle_first))
        await idle_until_closed(channel)

    server.script = script
    async with client.open_channel("one") as channel:
        execution = channel.execute("print(1)")
        types = [message.type async for message in execution]
    last = ["status", "execute_reply"] if idle_first else ["execute_reply", "status"]
    assert types == ["status", "stream", *last]
    assert execution.reply is not None
    assert execution.reply.content == {"status": "ok"}


async def test_what_is_not_of_the_execution_is_kept_for_receive(
    server: FakeServer, client: Client
) -> None:
    async def script(channel: FakeChannel) -> None:
        request = await channel.receive_json()
        await channel.send_json(
            kernel("workingDirChanged", "/a"),
            jupyter("stream", {"name": "stdout", "text": "another's"}, {"msg_id": "other"}),
            *answers(request, idle_first=False),
        )
        await channel.close()

    server.script = script
    async with client.open_channel("one") as channel:
        async for _ in channel.execute("1"):
            pass
        kept = [type(item).__name__ async for item in channel]
    assert kept == ["WorkingDirChanged", "JupyterMessage"]


async def test_too_many_messages_set_aside_are_counted_as_dropped(server: FakeServer) -> None:
    async def script(channel: FakeChannel) -> None:
        request = await channel.receive_json()
        await channel.send_json(*(kernel("exited", code) for code in range(5)))
        await channel.send_json(*answers(request, idle_first=False))
        await channel.close()

    server.script = script
    bounds = ClientBounds(set_aside_messages=2)
    async with (
        Client(Target.parse(server.address), bounds) as client,
        client.open_channel("one") as channel,
    ):
        async for _ in channel.execute("1"):
            pass
        assert channel.dropped == 3
        assert [item async for item in channel] == [Exited(3), Exited(4)]


async def test_resuming_asks_for_what_is_missing_and_counts_on(
    server: FakeServer, client: Client
) -> None:
    async def script(channel: FakeChannel) -> None:
        await channel.send_json(
            kernel("resumed", {"after": 3, "oldest": 7}), {"seq": 8, **kernel("exited", 0)}
        )
        await channel.close()

    server.script = script
    async with client.open_channel("one", after=3) as channel:
        assert channel.seq == 3
        received = [item async for item in channel]
        assert channel.seq == 8
    assert received[0] == models.Resumed(after=3, oldest=7)
    assert server.requests[-1].target == f"{CHANNELS}?after=3"


async def test_a_takeover_is_told_apart_from_other_ends(server: FakeServer, client: Client) -> None:
    async def script(channel: FakeChannel) -> None:
        await channel.send_json(kernel("clientDisconnected", "Another client is connecting."))
        await channel.close()

    server.script = script
    async with client.open_channel("one") as channel:
        assert await channel.receive() == ClientDisconnected("Another client is connecting.")
        with pytest.raises(TakenOver, match="Another client is connecting"):
            await channel.receive()
        with pytest.raises(TakenOver):
            await channel.send(new_message("x", {}))


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(1000, "closed"), (1001, "shut down"), (1009, "code 1009. too big")],
)
async def test_a_close_code_says_why(
    server: FakeServer, client: Client, code: int, sentence: str
) -> None:
    async def script(channel: FakeChannel) -> None:
        await channel.close(code, "too big" if code == 1009 else "")

    server.script = script
    async with client.open_channel("one") as channel:
        with pytest.raises(ChannelClosed, match=sentence) as caught:
            await channel.receive()
    assert caught.value.close_code == code


async def test_a_server_that_closes_need_not_wait_for_the_end_of_the_block(
    server: FakeServer, client: Client
) -> None:
    hung_up = trio.Event()

    async def script(channel: FakeChannel) -> None:
        await channel.close()
        assert isinstance(channel.stream, trio.SocketStream)
        await channel.stream.send_eof()
        assert await channel.stream.receive_some() == b""
        hung_up.set()

    server.script = script
    async with client.open_channel("one") as channel:
        with pytest.raises(ChannelClosed):
            await channel.receive()
        await hung_up.wait()


async def test_a_connection_that_breaks_is_an_error_of_the_iteration(
    server: FakeServer, client: Client
) -> None:
    async def script(channel: FakeChannel) -> None:
        await channel.send_json(kernel("exited", 0))

    server.script = script
    async with client.open_channel("one") as channel:
        assert await anext(channel) == Exited(0)
        with pytest.raises(ChannelClosed, match="broke") as caught:
            await anext(channel)
    assert caught.value.close_code == 1006


async def test_a_frame_that_is_none_spoils_only_itself(server: FakeServer, client: Client) -> None:
    async def script(channel: FakeChannel) -> None:
        await channel.send_json({"kind": "jupyter"}, kernel("exited", 0), kernel("news", [1]))
        await channel.close()

    server.script = script
    async with client.open_channel("one") as channel:
        with pytest.raises(UnexpectedAnswer):
            await channel.receive()
        assert await channel.receive() == Exited(0)
        assert "news" in repr(await channel.receive())


async def test_a_big_message_arrives_whole(server: FakeServer, client: Client) -> None:
    text = "x" * 3_000_000

    async def script(channel: FakeChannel) -> None:
        await channel.send_json(jupyter("stream", {"name": "stdout", "text": text}))
        await channel.close()

    server.script = script
    async with client.open_channel("one") as channel:
        message = await channel.receive()
    assert isinstance(message, JupyterMessage)
    assert message.content["text"] == text


async def test_a_message_beyond_the_bound_closes_the_channel_with_1009(
    server: FakeServer,
) -> None:
    async def script(channel: FakeChannel) -> None:
        await channel.send_json(kernel("output", ["stdout", "x" * 2000]))
        await idle_until_closed(channel)

    server.script = script
    async with (
        Client(Target.parse(server.address), ClientBounds(message_bytes=1000)) as client,
        client.open_channel("one") as channel,
    ):
        with pytest.raises(ChannelClosed) as caught:
            await channel.receive()
    assert caught.value.close_code == 1009


async def test_pings_are_answered_while_nobody_receives(server: FakeServer, client: Client) -> None:
    answered = trio.Event()

    async def script(channel: FakeChannel) -> None:
        await channel.send_json(kernel("exited", 0))
        await channel.ping()
        answered.set()
        await idle_until_closed(channel)

    server.script = script
    async with client.open_channel("one"):
        await answered.wait()


async def test_only_one_task_may_receive(server: FakeServer, client: Client) -> None:
    server.script = idle_until_closed
    async with client.open_channel("one") as channel, trio.open_nursery() as receiving:
        receiving.start_soon(channel.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await channel.receive()
        receiving.cancel_scope.cancel(reason="seen enough")


async def test_after_a_cancelled_send_the_channel_sends_no_more(
    server: FakeServer, client: Client
) -> None:
    server.script = idle_until_closed
    async with client.open_channel("one") as channel:
        with trio.CancelScope() as scope:
            scope.cancel(reason="the test wants it")
            await channel.send(new_message("x", {}))
        with pytest.raises(ChannelClosed, match="cancelled"):
            await channel.send(new_message("x", {}))
