"""What every life of a kernel must do, launched, adopted or fake (`kallichore.kernel.run`).

`Life` runs one; the functions below are the suite. Each takes a `Life` that has not begun.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio

from kallichore.kernel.run import own_request
from kallichore.protocol.message import Channel, KernelMessage
from kallichore.protocol.wire import Signer, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from kallichore.kernel.run import KernelRun, RunExit
    from kallichore.models import ConnectionInfo

__all__ = ["SUITE", "Life"]


class Life:
    """A run under test and its host (a `RunHost`), which keeps what it is told."""

    def __init__(self, make: Callable[[Life], KernelRun]) -> None:
        """Make the run."""
        self.heard: list[KernelMessage] = []
        self.told: list[str] = []
        self.own = ""
        self.connection: ConnectionInfo | None = None
        self.ended: RunExit | None = None
        self.over = trio.Event()
        self.beat = trio.Event()
        self.scope = trio.CancelScope()
        self._news = trio.Event()
        self.run = make(self)

    async def live(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Be the task of the run."""
        try:
            with self.scope:
                self.ended = await self.run.run(task_status=task_status)
        finally:
            self.over.set()

    async def until(self, msg_type: str, parent: str) -> KernelMessage:
        """Wait for a message of the kernel that answers ``parent``, and take it."""
        while True:
            for message in self.heard:
                if (message.msg_type, message.parent_id) == (msg_type, parent):
                    self.heard.remove(message)
                    return message
            await self._news.wait()

    # -- as a `RunHost` -------------------------------------------------------------------------

    def from_kernel(self, channel: Channel, batch: list[list[bytes]], signer: Signer) -> None:
        for frames in batch:
            message = parse(channel, frames, signer)
            self.heard.append(message)
            if message.parent_id == self.own:
                if message.msg_type == "kernel_info_reply":
                    self.run.info_received()
                elif message.msg_type == "status":
                    self.run.status_heard()
        self._news.set()
        self._news = trio.Event()

    def output(self, stream: str, text: str) -> None:
        self.told.append(f"{stream}: {text}")

    def registered(self, connection: ConnectionInfo) -> None:
        self.connection = connection

    def info_requested(self, msg_id: str) -> None:
        self.own = msg_id
        self.told.append("info requested")

    def kernel_answered(self) -> None:
        self.told.append("answered")

    def heartbeat(self) -> None:
        self.beat.set()

    def heartbeat_lost(self) -> None:
        self.told.append("lost")

    def heartbeat_back(self) -> None:
        self.told.append("back")


def execute(code: str) -> Any:
    return own_request(Channel.SHELL, "execute_request", {"code": code})


async def it_has_started_when_the_kernel_has_answered(life: Life, nursery: trio.Nursery) -> None:
    assert not life.run.exited.is_set()
    await nursery.start(life.live)
    assert life.told == ["info requested", "answered"]
    assert life.run.connection is not None
    await life.until("kernel_info_reply", life.own)
    assert not life.run.requested
    life.scope.cancel()
    await life.over.wait()


async def its_heartbeat_is_heard(life: Life, nursery: trio.Nursery) -> None:
    await nursery.start(life.live)
    with trio.fail_after(5):
        await life.beat.wait()
    life.scope.cancel()
    await life.over.wait()


async def messages_go_there_and_come_back_in_order(life: Life, nursery: trio.Nursery) -> None:
    await nursery.start(life.live)
    request = execute("1")
    assert life.run.send(request)
    reply = await life.until("execute_reply", request.msg_id)
    assert reply.channel is Channel.SHELL
    assert json.loads(reply.content)["status"] == "ok"
    states = [(await life.until("status", request.msg_id)).detail for _ in range(2)]
    assert states == ["busy", "idle"]
    for channel in (Channel.SHELL, Channel.IOPUB, Channel.CONTROL, Channel.STDIN):
        life.run.drain(channel)
    asked = own_request(Channel.CONTROL, "kernel_info_request", {})
    assert life.run.send(asked)
    assert (await life.until("kernel_info_reply", asked.msg_id)).channel is Channel.CONTROL
    life.scope.cancel()
    await life.over.wait()


async def it_ends_when_it_is_asked_to(life: Life, nursery: trio.Nursery) -> None:
    await nursery.start(life.live)
    with trio.fail_after(5):
        await life.run.shut_down(restart=False, polite_seconds=2)
    assert life.run.exited.is_set()
    assert life.run.requested
    await life.over.wait()
    assert life.ended is not None
    assert (life.ended.exit_code, life.ended.requested, life.ended.signal) == (0, True, None)
    assert "shut down" in life.ended.reason


async def nothing_is_sent_to_it_after_its_end(life: Life, nursery: trio.Nursery) -> None:
    await nursery.start(life.live)
    await life.run.shut_down(restart=True, polite_seconds=2)
    await life.over.wait()
    assert not life.run.send(execute("1"))
    life.run.drain(Channel.SHELL)


async def nothing_is_sent_to_it_before_its_beginning(life: Life, nursery: trio.Nursery) -> None:
    del nursery
    assert not life.run.send(execute("1"))
    await trio.lowlevel.checkpoint()


async def cancelling_it_ends_it_in_bounded_time(life: Life, nursery: trio.Nursery) -> None:
    await nursery.start(life.live)
    life.scope.cancel()
    with trio.fail_after(5):
        await life.over.wait()
    assert life.run.exited.is_set()
    assert life.ended is None


async def it_can_be_asked_twice_to_end(life: Life, nursery: trio.Nursery) -> None:
    await nursery.start(life.live)
    async with trio.open_nursery() as asking:
        for _ in range(2):
            asking.start_soon(lambda: life.run.shut_down(restart=False, polite_seconds=2))
    await life.over.wait()
    assert life.ended is not None


SUITE = [
    it_has_started_when_the_kernel_has_answered,
    its_heartbeat_is_heard,
    messages_go_there_and_come_back_in_order,
    it_ends_when_it_is_asked_to,
    nothing_is_sent_to_it_after_its_end,
    nothing_is_sent_to_it_before_its_beginning,
    cancelling_it_ends_it_in_bounded_time,
    it_can_be_asked_twice_to_end,
]
