"""Frames that no client sends, through the door: the session and the next client are served."""

from __future__ import annotations

import json
import sys

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kallichore.config import Deadlines, Limits
from kallichore.models import ExecuteRequest
from tests.e2e.test_bad_frames import frame
from tests.fakes import fake_runs
from tests.listening import UPGRADE
from tests.puppets import session_of
from tests.serving import open_serving
from tests.web.test_hostile_input import errors_logged

IMPATIENT = Deadlines(linger_seconds=0.01, close_seconds=0.05)
ECHO = {
    "header": {"msg_id": "m", "msg_type": "execute_request"},
    "channel": "shell",
    "content": {"code": "1"},
}
TEXTS = st.one_of(
    st.just(json.dumps(ECHO).encode()),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
        lambda inner: st.dictionaries(st.sampled_from([*ECHO, "metadata", "buffers"]), inner),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
)
FRAMES = st.one_of(
    st.builds(frame, TEXTS, st.sampled_from([0, 1, 2, 8, 9, 10]), final=st.booleans()),
    st.builds(frame, TEXTS, st.integers(0, 15), masked=st.booleans(), final=st.booleans()),
    st.binary(max_size=20),
)


@settings(max_examples=max(10, settings().max_examples // 8))
@given(st.lists(st.lists(FRAMES, max_size=6), min_size=5, max_size=5))
def test_frames_that_make_no_sense_trouble_nobody_else(clients: list[list[bytes]]) -> None:
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("kallichore.control.LaunchedRun", fake_runs()[1])
        trio.run(_send_all_of, clients)


async def _send_all_of(clients: list[list[bytes]]) -> None:
    limits = Limits(client_message_bytes=1000)
    async with open_serving(deadlines=IMPATIENT, limits=limits) as serving:
        client = serving.client
        await client.new_session(session_of([sys.executable]))
        await client.start_session("one")
        path = await client.channels_upgrade("one")
        with errors_logged() as errors:
            async with trio.open_nursery() as nursery:
                for frames in clients:
                    nursery.start_soon(_send, path, UPGRADE + b"".join(frames))
            reply = await client.execute_code("one", ExecuteRequest(code="again"))
        assert reply.output[0].text == "again"
        assert errors == []


async def _send(path: str, data: bytes) -> None:
    """Send it, and read until the server has had enough."""
    async with await trio.open_unix_socket(path) as stream:
        try:
            await stream.send_all(data)
            await stream.send_eof()
            answer = b"".join([bytes(some) async for some in stream])
        except trio.BrokenResourceError:
            return
        assert answer.startswith(b"HTTP/1.1 101 ")
