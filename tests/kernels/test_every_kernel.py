"""What every kernel must do under us, whatever its language: one suite for all of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernels.languages import KERNELS, Kernel
from tests.listening import Ear, Frame, word, words
from tests.puppets import session_of
from tests.serving import Serving, open_serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kallichore.models import InterruptMode

PATIENCE = 100
"""Seconds: some kernels call a compiler for every line."""
UP = {"ready", "idle"}
"""What a kernel is after a start: ready, if its own idle came before its iopub was connected."""
EVERY_KERNEL = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
IN_EACH_MODE = pytest.mark.parametrize(
    ("kernel", "mode"),
    [
        pytest.param(kernel, mode, id=f"{kernel.name}-{mode}")
        for kernel in KERNELS
        for mode in kernel.interrupts
    ],
)
THAT_ASK = pytest.mark.parametrize(
    "kernel", [one for one in KERNELS if one.question], ids=lambda kernel: kernel.name
)
THAT_HAVE_COMMS = pytest.mark.parametrize(
    "kernel", [one for one in KERNELS if one.comm], ids=lambda kernel: kernel.name
)
EVERY_CRASH = pytest.mark.parametrize(
    ("kernel", "code", "exit_code", "signal"),
    [
        pytest.param(kernel, code, exit_code, signal, id=f"{kernel.name}-{signal or exit_code}")
        for kernel in KERNELS
        for code, (exit_code, signal) in kernel.crashes
    ],
)


@asynccontextmanager
async def running(
    kernel: Kernel, mode: InterruptMode | None = None
) -> AsyncIterator[tuple[Serving, Ear]]:
    """Start a kernel, and listen to it from the first."""
    mode = mode or kernel.interrupts[0]
    async with open_serving(patience=PATIENCE) as serving:
        client = serving.client
        changes = {"interrupt_mode": mode, **kernel.changes}
        await client.new_session(session_of(kernel.argv, "one", **changes))
        async with client.open_channel("one") as channel:
            info = await client.start_session("one")
            assert info["language_info"]["name"]
            assert (await client.get_session("one")).status in UP
            yield serving, Ear(channel)


def text_of(frames: list[Frame]) -> str:
    """All that was printed."""
    return "".join(one["content"]["text"] for one in frames if word(one) == "iopub:stream")


async def prints(ear: Ear, code: str, wanted: str) -> list[Frame]:
    """Run code until it has ended and has printed what is wanted; some kernels print late.

    One of them refuses what comes within 200 ms of an error; the server's own word is "aborted".
    """
    frames = await ear.execute(code)
    while "shell:execute_reply=abort" in words(frames):
        frames = await ear.execute(code)
    while wanted not in text_of(frames):
        frames.append(await ear.next())
    return frames


async def shows(ear: Ear, code: str) -> dict[str, Any]:
    """Run code until it has ended and has shown something, and give the MIME bundle."""
    frames = await ear.execute(code)
    while True:
        for one in frames:
            if word(one) in {"iopub:execute_result", "iopub:display_data"}:
                data: dict[str, Any] = one["content"]["data"]
                return data
        frames = [await ear.next()]


async def says_go(ear: Ear) -> None:
    """Wait until the loop runs: an interrupt that comes sooner may be lost, or end the kernel."""
    heard = ""
    while "go" not in heard:
        heard += text_of([await ear.next()])


@EVERY_KERNEL
async def test_it_prints_evaluates_displays_and_fails(kernel: Kernel) -> None:
    async with running(kernel) as (serving, ear):
        frames = await prints(ear, kernel.hello, "hello\n")
        said = words(frames, "iopub")
        starting, up, *rest = [one for one in said if one.startswith("status=")]
        assert (starting, up.removeprefix("status=") in UP) == ("status=starting", True)
        assert rest == ["status=busy", "status=idle"]
        assert said.index("status=busy") < said.index("iopub:status=busy")
        assert "shell:execute_reply=ok" in words(frames)
        if kernel.value:
            assert "42" in (await shows(ear, kernel.value))["text/plain"]
        assert "<b>x</b>" in (await shows(ear, kernel.display))["text/html"]
        frames = await ear.execute(kernel.error)
        assert "shell:execute_reply=error" in words(frames)
        assert kernel.error_words in str(frames)
        await prints(ear, kernel.hello, "hello\n")
        history = await serving.client.get_session_history("one")
        assert [history[0].input, history[-1].input] == [kernel.hello] * 2


@IN_EACH_MODE
async def test_a_busy_loop_is_interrupted_and_a_restart_forgets(
    kernel: Kernel, mode: InterruptMode
) -> None:
    async with running(kernel, mode) as (serving, ear):
        client = serving.client
        await ear.execute(kernel.remember)
        await prints(ear, kernel.recall, "kept")
        msg_id = await ear.send(kernel.loop)
        await says_go(ear)
        await client.interrupt_session("one")
        await ear.until("iopub:status=idle", parent=msg_id)
        await prints(ear, kernel.hello, "hello\n")
        await client.restart_session("one")
        assert (await client.get_session("one")).status in UP
        await ear.until("status=starting")
        assert "kept" not in text_of(await ear.execute(kernel.recall))


@THAT_ASK
async def test_it_asks_and_is_answered(kernel: Kernel) -> None:
    assert kernel.question is not None
    async with running(kernel) as (_, ear):
        msg_id = await ear.send(kernel.question, allow_stdin=True)
        (*_, asked) = await ear.until("stdin:input_request")
        assert asked["content"]["prompt"] == kernel.prompt
        assert asked["parent_header"]["msg_id"] == msg_id
        await ear.channel.request("input_reply", {"value": "Kalli"}, channel="stdin")
        (*_, printed) = await ear.until("iopub:stream", parent=msg_id)
        assert printed["content"]["text"].startswith("Kalli")


@THAT_HAVE_COMMS
async def test_a_comm_can_be_opened_and_carries_messages(kernel: Kernel) -> None:
    comm = kernel.comm
    assert comm is not None
    async with running(kernel) as (_, ear):
        if comm.code:
            await ear.send(comm.code)
            (*_, opened) = await ear.until("iopub:comm_open")
            assert opened["content"]["target_name"] == comm.target
            comm_id = opened["content"]["comm_id"]
        else:
            comm_id = "ours"
            opening = {"comm_id": comm_id, "target_name": comm.target, "data": comm.opening}
            await ear.channel.request("comm_open", opening)
        if comm.says:
            said = {"comm_id": comm_id, "data": {"word": comm.says}}
            await ear.channel.request("comm_msg", said)
        if comm.hears:
            (*_, heard) = await ear.until("iopub:comm_msg")
            assert heard["content"]["comm_id"] == comm_id
            assert comm.hears in str(heard["content"]["data"])


@EVERY_CRASH
async def test_its_crash_is_told_and_it_can_be_started_again(
    kernel: Kernel, code: str, exit_code: int, signal: str | None
) -> None:
    async with running(kernel) as (serving, ear):
        client = serving.client
        await ear.send(code)
        frames = await ear.until(f"exited={exit_code}")
        assert words(frames)[-2:] == ["status=exited", f"exited={exit_code}"]
        last = (await client.get_session("one")).last_exit
        assert last is not None
        assert (last.exit_code, last.signal, last.requested) == (exit_code, signal, False)
        await client.start_session("one")
        await prints(ear, kernel.hello, "hello\n")
