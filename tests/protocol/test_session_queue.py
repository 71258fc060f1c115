"""The execution queue of a session (CONTRACT 3.6): who goes when, and what ends an execution."""

from __future__ import annotations

from typing import Any

import pytest

from kallichore.config import Limits
from kallichore.protocol.events import (
    ExpectReply,
    HeartbeatLost,
    InfoRequested,
    KernelAnswered,
    ReplyOverdue,
    StartAccepted,
)
from kallichore.protocol.message import Channel
from tests.protocol.scene import OWN, Scene, in_words, reply, said, status

BUSY = ["-> busy (execute_request)", "deliver status busy c-1"]
IDLE = ["-> idle (execute_request)", "deliver status idle c-1", "locate"]


@pytest.fixture
def scene() -> Scene:
    return Scene().started()


def ask(scene: Scene, *ids: str, **content: Any) -> list[str]:
    return [word for msg_id in ids for word in scene.ask(msg_id, **content)]


def run(scene: Scene, msg_id: str, outcome: str = "ok") -> list[str]:
    """A kernel's answer from beginning to end."""
    return scene.say(status("busy", msg_id), reply(msg_id, outcome), status("idle", msg_id))


# -- one after the other -------------------------------------------------------------------------


def test_an_execution_from_beginning_to_end(scene: Scene) -> None:
    assert scene.ask() == ["send c-1"]
    assert scene.say(status("busy", "c-1")) == BUSY
    assert scene.say(said(Channel.IOPUB, "execute_input", "c-1")) == ["deliver execute_input c-1"]
    assert scene.say(reply("c-1")) == ["deliver execute_reply c-1"]
    assert scene.say(status("idle", "c-1")) == [*IDLE, "finish c-1"]
    assert scene.active is None


def test_requests_behind_another_are_held_and_go_out_in_order(scene: Scene) -> None:
    assert ask(scene, "c-1", "c-2", "c-3") == ["send c-1", "queued c-2", "queued c-3"]
    assert (scene.active, scene.held) == ("c-1", ["c-2", "c-3"])
    assert run(scene, "c-1") == [
        *BUSY,
        "deliver execute_reply c-1",
        *IDLE,
        "finish c-1",
        "send c-2",
    ]
    assert run(scene, "c-2")[-1] == "send c-3"
    assert run(scene, "c-3")[-1] == "finish c-3"


def test_a_held_request_goes_out_on_the_channel_it_named(scene: Scene) -> None:
    ask(scene, "c-1")
    scene.ask("c-2", channel=Channel.CONTROL)
    scene.say(reply("c-1"))
    sent = scene.effects(status("idle", "c-1"))[-1]
    assert sent.message.channel is Channel.CONTROL  # type: ignore[union-attr]
    scene.waiting[Channel.CONTROL] = [reply("c-2", channel=Channel.CONTROL)]
    assert scene.say(status("idle", "c-2"))[-1] == "finish c-2"


def test_only_the_idle_of_the_active_request_counts(scene: Scene) -> None:
    ask(scene, "c-1", "c-2")
    scene.say(reply("c-1"), status("idle"), status("idle", "foreign"), status("idle", "c-2"))
    assert (scene.active, scene.held) == ("c-1", ["c-2"])


def test_a_second_idle_of_the_same_request_means_nothing(scene: Scene) -> None:
    ask(scene, "c-1", "c-2", "c-3")
    run(scene, "c-1")
    assert scene.say(status("idle", "c-1")) == ["deliver status idle c-1"]
    assert scene.active == "c-2"


def test_other_requests_are_not_held(scene: Scene) -> None:
    ask(scene, "c-1", "c-2")
    assert scene.ask("c-3", "complete_request") == ["send c-3"]
    assert scene.ask("c-4", "input_reply", channel=Channel.STDIN) == ["send c-4"]


def test_a_second_idle_means_nothing_while_the_reply_is_waited_for_either(scene: Scene) -> None:
    ask(scene, "c-1", "c-2")
    scene.say(status("idle", "c-1"))
    assert scene.say(status("busy", "c-1"), status("idle", "c-1")) == [
        *BUSY,
        "-> idle (execute_request)",
        "deliver status idle c-1",
    ]


# -- two sockets, one story ----------------------------------------------------------------------


def test_what_was_published_before_a_reply_reaches_the_client_before_it(scene: Scene) -> None:
    ask(scene, "c-1", "c-2")
    scene.say(status("busy", "c-1"))
    output = said(Channel.IOPUB, "stream", "c-1", b'{"name":"stdout","text":"a"}')
    scene.waiting[Channel.IOPUB] = [output, output]
    assert scene.say(reply("c-1")) == [
        *["deliver stream stdout c-1"] * 2,
        "deliver execute_reply c-1",
    ]


def test_a_reply_goes_before_the_idle_that_was_published_with_it(scene: Scene) -> None:
    ask(scene, "c-1", "c-2")
    scene.say(status("busy", "c-1"))
    scene.waiting[Channel.IOPUB] = [status("idle", "c-1"), said(Channel.IOPUB, "x", "c-1")]
    assert scene.say(reply("c-1")) == [
        "deliver execute_reply c-1",
        *IDLE,
        "finish c-1",
        "send c-2",
        "deliver x c-1",
    ]


def test_a_reply_that_waits_goes_before_an_idle_that_is_seen_first(scene: Scene) -> None:
    ask(scene, "c-1", "c-2")
    scene.say(status("busy", "c-1"))
    scene.waiting[Channel.SHELL] = [said(Channel.SHELL, "comm_info_reply", "x"), reply("c-1")]
    assert scene.say(status("idle", "c-1")) == [
        "deliver comm_info_reply x",
        "deliver execute_reply c-1",
        *IDLE,
        "finish c-1",
        "send c-2",
    ]


def test_an_idle_that_overtakes_its_reply_is_told_and_the_next_one_waits_for_it(
    scene: Scene,
) -> None:
    ask(scene, "c-1", "c-2")
    scene.say(status("busy", "c-1"))
    assert scene.say(status("idle", "c-1")) == [*IDLE, "expect reply c-1"]
    assert scene.active == "c-1"
    assert scene.say(reply("c-1")) == ["deliver execute_reply c-1", "finish c-1", "send c-2"]


def test_a_reply_that_does_not_come_is_not_waited_for(scene: Scene) -> None:
    ask(scene, "c-1", "c-2")
    (expected,) = [
        effect for effect in scene.effects(status("idle", "c-1")) if isinstance(effect, ExpectReply)
    ]
    overdue = ReplyOverdue(expected.execution)
    assert scene.say(overdue) == ["send c-2"]
    assert scene.say(overdue) == []
    assert scene.say(reply("c-1")) == ["deliver execute_reply c-1", "finish c-1"]
    assert scene.active == "c-2"


def test_replies_of_two_executions_may_be_drained_together(scene: Scene) -> None:
    ask(scene, "c-1", "c-2")
    overdue = scene.effects(status("idle", "c-1"))[-1]
    scene.say(ReplyOverdue(overdue.execution))  # type: ignore[union-attr]
    scene.waiting[Channel.SHELL] = [reply("c-1"), reply("c-2")]
    words = scene.say(status("idle", "c-2"))
    assert words[:3] == [
        "deliver execute_reply c-1",
        "finish c-1",
        "deliver execute_reply c-2",
    ]
    assert words[-1] == "finish c-2"


def test_a_reply_may_be_drained_on_while_another_is_in_hand(scene: Scene) -> None:
    ask(scene, "c-1", "c-2")
    overdue = scene.effects(status("idle", "c-1"))[-1]
    scene.say(ReplyOverdue(overdue.execution))  # type: ignore[union-attr]
    scene.waiting[Channel.IOPUB] = [status("idle", "c-2")]
    words = scene.say(reply("c-1"))
    assert words == [
        "deliver status idle c-2",
        "locate",
        "expect reply c-2",
        "deliver execute_reply c-1",
        "finish c-1",
    ]


def idle_without_reply(scene: Scene, *ids: str) -> list[str]:
    """Executions whose replies do not come in time."""
    words: list[str] = []
    for msg_id in ids:
        ask(scene, msg_id)
        effects = scene.effects(status("idle", msg_id))
        words += [in_words(effect) for effect in effects]
        scene.say(ReplyOverdue(effects[-1].execution))  # type: ignore[union-attr]
    return words


def test_a_kernel_that_never_replies_is_not_watched_for_ever(scene: Scene) -> None:
    words = idle_without_reply(scene, *(f"c-{number}" for number in range(20)))
    answered = [word for word in words if word.startswith("answer")]
    assert answered == [f"answer c-{number} error: reply" for number in range(4)]
    assert scene.say(reply("c-0")) == ["deliver execute_reply c-0"]
    assert scene.say(reply("c-4")) == ["deliver execute_reply c-4", "finish c-4"]


def test_a_reply_that_is_given_up_just_when_it_comes_is_delivered(scene: Scene) -> None:
    idle_without_reply(scene, *(f"c-{number}" for number in range(16)))
    ask(scene, "c-16")
    scene.waiting[Channel.IOPUB] = [status("idle", "c-16")]
    words = scene.say(reply("c-0"))
    assert words[-4:-1] == ["answer c-0 error: reply", "finish c-0", "expect reply c-16"]
    assert words[-1] == "deliver execute_reply c-0"


# -- errors --------------------------------------------------------------------------------------


def test_an_error_is_the_end_of_what_is_held(scene: Scene) -> None:
    ask(scene, "c-1", "c-2", "c-3")
    assert run(scene, "c-1", "error") == [
        *BUSY,
        "deliver execute_reply c-1",
        "answer c-2 aborted: busy reply idle",
        "answer c-3 aborted: busy reply idle",
        *IDLE,
        "finish c-1",
    ]
    assert scene.ask("c-4") == ["send c-4"]


def test_an_error_that_is_not_to_stop_others_does_not(scene: Scene) -> None:
    ask(scene, "c-1", stop_on_error=False)
    ask(scene, "c-2")
    assert run(scene, "c-1", "error")[-1] == "send c-2"


def test_an_abort_by_the_kernel_stops_nobody(scene: Scene) -> None:
    ask(scene, "c-1", "c-2")
    assert run(scene, "c-1", "aborted")[-1] == "send c-2"


def test_an_error_whose_idle_came_first_spares_those_who_asked_after_it(scene: Scene) -> None:
    ask(scene, "c-1", "c-2")
    scene.say(status("idle", "c-1"))
    ask(scene, "c-3")
    assert scene.say(reply("c-1", "error")) == [
        "deliver execute_reply c-1",
        "finish c-1",
        "answer c-2 aborted: busy reply idle",
        "send c-3",
    ]


def test_those_who_were_spared_once_are_held_like_others_then(scene: Scene) -> None:
    ask(scene, "c-1")
    scene.say(status("idle", "c-1"))
    ask(scene, "c-2", "c-3")
    assert scene.say(reply("c-1", "error"))[-1] == "send c-2"
    assert scene.say(reply("c-2", "error"))[-1] == "answer c-3 aborted: busy reply idle"


# -- limits --------------------------------------------------------------------------------------


def test_beyond_the_limit_a_request_is_answered_with_an_error() -> None:
    scene = Scene(Limits(held_executions=1)).started()
    ask(scene, "c-1", "c-2")
    assert scene.ask("c-3") == ["answer c-3 error: busy reply idle"]
    assert scene.say(scene.injected("i-1")) == ["answer i-1 error: busy reply idle", "finish i-1"]
    assert scene.held == ["c-2"]


@pytest.mark.parametrize("limits", [{"client_messages_waiting": 2}, {"client_bytes_waiting": 110}])
def test_what_waits_for_a_kernel_is_bounded(limits: dict[str, int]) -> None:
    scene = Scene(Limits(**limits))
    assert scene.ask("c-1") + scene.ask("c-2", "comm_msg") == []
    assert scene.ask("c-3") == ["answer c-3 error: busy reply idle"]
    assert scene.ask("c-4", "comm_msg") == [
        "refuse: The comm_msg was dropped: too many messages wait for the kernel to start"
    ]
    scene.say(StartAccepted(), InfoRequested(OWN), KernelAnswered())
    scene.ended()
    scene.say(StartAccepted())
    assert scene.ask("c-5") + scene.ask("c-6", "comm_msg") == []


# -- before the kernel is there ------------------------------------------------------------------


@pytest.mark.parametrize("starting", [False, True])
def test_requests_wait_for_a_kernel_in_order(starting: bool) -> None:  # noqa: FBT001
    scene = Scene()
    if starting:
        scene.say(StartAccepted())
    assert ask(scene, "c-1") + scene.ask("c-2", "comm_open") + ask(scene, "c-3") == []
    scene.say(*([] if starting else [StartAccepted()]), InfoRequested(OWN))
    assert scene.say(KernelAnswered()) == [
        "-> ready (kernel ready)",
        "queued c-3",
        "send c-1",
        "send c-2",
    ]
    assert scene.active == "c-1"


def test_requests_wait_for_an_adopted_kernel_too() -> None:
    scene = Scene()
    ask(scene, "c-1")
    assert scene.say(InfoRequested(OWN)) == []
    assert scene.say(KernelAnswered())[-1] == "send c-1"


def test_a_failed_start_answers_those_who_wait() -> None:
    scene = Scene()
    ask(scene, "c-1")
    scene.say(StartAccepted())
    scene.ask("c-2", "comm_msg")
    scene.say(scene.injected())
    assert scene.ended(1, "no") == [
        "answer c-1 aborted: busy reply idle",
        "refuse: The comm_msg was dropped: the kernel has exited",
        "answer i-1 aborted: busy reply idle",
        "finish i-1",
        "-> exited (no)",
        "exited 1",
    ]


# -- after it is gone ----------------------------------------------------------------------------


def test_an_exited_session_answers_at_once(scene: Scene) -> None:
    scene.ended()
    assert scene.ask("c-1") == ["answer c-1 aborted: busy reply idle"]
    assert scene.ask("c-2", "comm_msg") == [
        "refuse: The comm_msg was dropped: the kernel has exited"
    ]
    assert scene.say(scene.injected()) == ["answer i-1 aborted: busy reply idle", "finish i-1"]
    scene.say(InfoRequested(OWN))
    assert scene.ask("c-3") == ["answer c-3 aborted: busy reply idle"]


def test_nothing_sent_to_one_kernel_reaches_the_next(scene: Scene) -> None:
    ask(scene, "c-1", "c-2")
    scene.ended()
    scene.say(StartAccepted(), InfoRequested("own-2"))
    assert scene.say(KernelAnswered()) == ["-> ready (kernel ready)"]
    assert (scene.active, scene.held) == (None, [])
    assert scene.say(reply("c-1")) == ["deliver execute_reply c-1"]
    assert scene.ask("c-3") == ["send c-3"]


def test_a_kernel_that_is_offline_still_has_its_requests_answered_at_its_end(scene: Scene) -> None:
    scene.say(HeartbeatLost())
    assert ask(scene, "c-1", "c-2") == ["send c-1", "queued c-2"]
    assert scene.ended()[0] == "answer c-1 aborted: busy reply idle"
