"""How executions end that the kernel does not end: each requester is answered just once."""

from __future__ import annotations

import pytest

from kallichore.protocol.events import (
    ExecutionWithdrawn,
    InfoRequested,
    KernelAnswered,
    QueueCleared,
    ReplyOverdue,
    SendFailed,
    Settled,
    StartAccepted,
)
from kallichore.protocol.message import Channel
from tests.protocol.scene import OWN, Scene, in_words, reply, said, status

ALL = "aborted: busy reply idle"


@pytest.fixture
def scene() -> Scene:
    return Scene().started()


# -- at an exit ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "answer"),
    [
        ([], ALL),
        ([status("busy", "c-1")], "aborted: reply idle"),
        ([status("busy", "c-1"), said(Channel.IOPUB, "stream", "c-1")], "aborted: reply idle"),
        ([status("busy", "c-1"), reply("c-1")], "aborted: idle"),
        ([reply("c-1")], "aborted: idle"),
        ([status("busy", "c-1"), status("idle", "c-1")], "aborted: reply"),
        ([status("idle", "c-1")], "aborted: reply"),
    ],
)
def test_at_an_exit_the_active_request_gets_what_it_has_not_got_yet(
    scene: Scene, seen: list[object], answer: str
) -> None:
    scene.ask()
    scene.say(*seen)  # type: ignore[arg-type]
    scene.ask("c-2")
    assert scene.ended() == [
        f"answer c-1 {answer}",
        "finish c-1",
        f"answer c-2 {ALL}",
        "-> exited (It is over)",
        "exited 0",
    ]


def test_at_an_exit_a_finished_request_gets_nothing_more(scene: Scene) -> None:
    scene.ask()
    scene.say(status("busy", "c-1"), reply("c-1"), status("idle", "c-1"))
    assert scene.ended() == ["-> exited (It is over)", "exited 0"]


def test_at_an_exit_the_held_are_answered_behind_the_active_one(scene: Scene) -> None:
    scene.ask()
    scene.say(scene.injected())
    scene.ask("c-2", channel=Channel.CONTROL)
    assert scene.ended() == [
        f"answer c-1 {ALL}",
        "finish c-1",
        f"answer i-1 {ALL}",
        "finish i-1",
        f"answer c-2 {ALL}",
        "-> exited (It is over)",
        "exited 0",
    ]


def test_what_is_being_drained_when_the_kernel_ends_comes_to_nothing_more(scene: Scene) -> None:
    """It cannot happen, for draining does not wait; but if it did, nobody is answered twice."""
    for last, delivered in (
        (status("idle", "c-1"), ["deliver status idle c-1"]),
        (reply("c-1"), []),
    ):
        scene.ask()
        (drain,) = scene.state.receive(last)
        assert in_words(drain).startswith("drain")
        assert scene.ended()[0] == f"answer c-1 {ALL}"
        assert scene.say(Settled(last)) == delivered
        scene.started()
        assert scene.ask("c-2") == ["send c-2"]
        scene.ended()
        scene.started()


# -- clearing ------------------------------------------------------------------------------------


def test_clearing_answers_the_held_and_leaves_the_active_one_to_the_kernel(scene: Scene) -> None:
    scene.ask()
    scene.ask("c-2")
    scene.say(scene.injected())
    assert scene.say(QueueCleared()) == [
        f"answer c-2 {ALL}",
        f"answer i-1 {ALL}",
        "finish i-1",
    ]
    assert scene.say(QueueCleared()) == []
    assert (scene.active, scene.held) == ("c-1", [])
    assert scene.say(reply("c-1", "error"), status("idle", "c-1"))[-1] == "finish c-1"


def test_an_interrupt_of_a_start_clears_what_was_to_be_executed_and_nothing_else() -> None:
    scene = Scene()
    scene.ask()
    scene.say(StartAccepted(), InfoRequested(OWN))
    scene.ask("c-2", "comm_msg")
    scene.ask("c-3")
    assert scene.say(QueueCleared()) == [f"answer c-1 {ALL}", f"answer c-3 {ALL}"]
    assert scene.say(KernelAnswered()) == ["-> ready (kernel ready)", "send c-2"]


# -- withdrawing ---------------------------------------------------------------------------------


def test_a_held_request_that_is_withdrawn_never_runs(scene: Scene) -> None:
    scene.ask()
    event = scene.injected()
    assert event.execution is not None
    assert scene.say(event) == ["queued i-1"]
    assert scene.say(ExecutionWithdrawn(event.execution)) == [f"answer i-1 {ALL}"]
    assert scene.say(ExecutionWithdrawn(event.execution)) == []
    assert scene.say(reply("c-1"), status("idle", "c-1"))[-1] == "finish c-1"


def test_a_withdrawn_request_that_runs_goes_on_and_its_failure_aborts_nothing(
    scene: Scene,
) -> None:
    """The interrupt that ends it is no failure of what was asked for behind it."""
    event = scene.injected()
    assert event.execution is not None
    scene.say(event)
    assert scene.say(ExecutionWithdrawn(event.execution)) == []
    scene.ask("c-2")
    told = scene.say(reply("i-1", "error"), status("idle", "i-1"))
    assert told[-2:] == ["finish i-1", "send c-2"]
    assert scene.active == "c-2"


# -- two requests under one id -------------------------------------------------------------------


def test_a_held_request_under_the_id_of_the_active_one_does_not_stop_the_queue(
    scene: Scene,
) -> None:
    scene.ask("twin")
    scene.ask("twin")
    assert scene.say(QueueCleared()) == [f"answer twin {ALL}"]
    assert scene.say(reply("twin"), status("idle", "twin"))[-1] == "finish twin"
    assert scene.active is None


def test_requests_under_one_id_run_one_after_the_other(scene: Scene) -> None:
    scene.ask("twin")
    scene.ask("twin")
    assert scene.say(reply("twin"), status("idle", "twin"))[-2:] == ["finish twin", "send twin"]
    assert scene.say(reply("twin"), status("idle", "twin"))[-1] == "finish twin"
    assert scene.active is None


def test_a_request_under_the_id_of_one_that_lacks_its_reply_ends_that_one(scene: Scene) -> None:
    scene.ask("twin")
    overdue = scene.effects(status("idle", "twin"))[-1]
    scene.say(ReplyOverdue(overdue.execution))  # type: ignore[union-attr]
    assert scene.ask("twin") == ["finish twin", "send twin"]
    assert scene.ended()[:2] == [f"answer twin {ALL}", "finish twin"]


# -- a kernel that takes nothing more ------------------------------------------------------------


def failed(scene: Scene, msg_id: str, msg_type: str = "execute_request") -> list[str]:
    """Sending fails for the request that was made last under this id."""
    execution = scene.state._open.get(msg_id)
    message = scene.request(msg_id, msg_type).message if execution is None else execution.message
    return scene.say(SendFailed(message))


def test_a_request_that_cannot_be_sent_is_answered_with_an_error(scene: Scene) -> None:
    scene.ask()
    assert failed(scene, "c-1") == ["answer c-1 error: busy reply idle", "finish c-1"]
    assert scene.ask("c-2") == ["send c-2"]


def test_behind_a_kernel_that_does_not_read_nobody_is_held(scene: Scene) -> None:
    for number in range(1001):
        scene.ask(f"c-{number}")
    words = failed(scene, "c-0")
    assert words[:2] == ["answer c-0 error: busy reply idle", "finish c-0"]
    assert words[2:] == [f"answer c-{number} aborted: busy reply idle" for number in range(1, 1001)]
    assert (scene.active, scene.held) == (None, [])


def test_another_message_that_cannot_be_sent_is_reported(scene: Scene) -> None:
    scene.ask("c-1")
    scene.ask("c-2")
    assert failed(scene, "c-3", "comm_msg") == [
        "refuse: The comm_msg was dropped: the kernel does not read, and too much waits already"
    ]
    assert (scene.active, scene.held) == ("c-1", ["c-2"])


def test_a_send_that_fails_after_the_end_is_answered_already(scene: Scene) -> None:
    scene.ask()
    execution = scene.state._open["c-1"]
    scene.ended()
    assert scene.say(SendFailed(execution.message)) == []
