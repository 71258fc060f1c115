"""A session's status (CONTRACT 3.1): every change with its reason, and what goes before what."""

from __future__ import annotations

import pytest

from kallichore.models import Status
from kallichore.protocol.events import (
    AdoptionFailed,
    HeartbeatBack,
    HeartbeatLost,
    InfoRequested,
    KernelAnswered,
    RunEnded,
    StartAccepted,
)
from kallichore.protocol.message import Channel
from tests.protocol.scene import OWN, Scene, reply, said, status


@pytest.fixture
def scene() -> Scene:
    return Scene()


# -- starting ------------------------------------------------------------------------------------


def test_a_session_begins_uninitialized(scene: Scene) -> None:
    assert scene.state.status is Status.UNINITIALIZED


def test_a_kernel_that_says_nothing_on_iopub_is_ready(scene: Scene) -> None:
    assert scene.say(StartAccepted()) == ["-> starting (start API called)"]
    assert scene.say(InfoRequested(OWN)) == []
    assert scene.say(KernelAnswered()) == ["-> ready (kernel ready)"]


def test_a_kernel_whose_status_was_heard_is_idle_at_once(scene: Scene) -> None:
    scene.say(StartAccepted(), InfoRequested(OWN))
    assert scene.say(status("busy", OWN), status("idle", OWN)) == ["status heard"] * 2
    assert scene.say(KernelAnswered()) == ["-> idle (kernel_info_request)"]


def test_our_own_request_never_shows(scene: Scene) -> None:
    info = said(Channel.SHELL, "kernel_info_reply", OWN, b'{"banner": "hello"}')
    scene.say(StartAccepted(), InfoRequested(OWN))
    assert scene.say(status("busy", OWN)) == ["status heard"]
    assert scene.say(info) == ['info {"banner": "hello"}']
    assert scene.say(said(Channel.IOPUB, "debug_event", OWN)) == []
    scene.say(KernelAnswered())
    assert scene.say(status("busy", OWN), info, status("idle", OWN)) == []
    assert scene.state.status is Status.IDLE


def test_a_ready_kernel_is_idle_when_our_own_idle_comes_late(scene: Scene) -> None:
    scene.started(heard=False)
    assert scene.say(status("busy", OWN, "kernel_info_request")) == []
    assert scene.say(status("idle", OWN, "kernel_info_request")) == [
        "-> idle (kernel_info_request)"
    ]


def test_our_own_late_idle_says_nothing_of_a_kernel_that_works(scene: Scene) -> None:
    scene.started(heard=False)
    scene.ask()
    scene.say(status("busy", "c-1"))
    assert scene.say(status("idle", OWN)) == []
    assert scene.state.status is Status.BUSY


def test_statuses_of_others_while_starting_are_delivered_but_change_nothing(scene: Scene) -> None:
    scene.say(StartAccepted(), InfoRequested(OWN))
    assert scene.say(status("starting"), status("busy", "x"), status("idle", "x")) == [
        "deliver status starting -",
        "deliver status busy x",
        "status heard",
        "deliver status idle x",
        "status heard",
    ]
    assert scene.state.status is Status.STARTING


@pytest.mark.parametrize("state", ["busy", "idle"])
def test_a_started_kernel_is_never_busy_from_the_start(scene: Scene, state: str) -> None:
    scene.say(StartAccepted(), InfoRequested(OWN), status(state, "x"))
    assert scene.say(KernelAnswered()) == ["-> idle (kernel_info_request)"]


def test_what_a_failed_try_was_heard_to_say_does_not_count_for_the_next(scene: Scene) -> None:
    scene.say(StartAccepted(), InfoRequested("first"), status("busy", "first"))
    scene.say(InfoRequested(OWN))
    assert scene.say(KernelAnswered()) == ["-> ready (kernel ready)"]


def test_a_kernel_that_answers_twice_is_ready_once(scene: Scene) -> None:
    scene.started()
    assert scene.say(KernelAnswered()) == []


# -- busy and idle -------------------------------------------------------------------------------


def test_a_status_change_goes_before_the_message_that_caused_it(scene: Scene) -> None:
    scene.started()
    assert scene.say(status("busy", "x", "comm_msg")) == [
        "-> busy (comm_msg)",
        "deliver status busy x",
    ]
    assert scene.say(status("idle", "x", "comm_msg")) == [
        "-> idle (comm_msg)",
        "deliver status idle x",
    ]


def test_the_reason_is_null_without_a_parent(scene: Scene) -> None:
    scene.started()
    assert scene.say(status("busy"))[0] == "-> busy (None)"


def test_the_same_status_is_not_sent_again(scene: Scene) -> None:
    scene.started()
    assert scene.say(status("idle", "x")) == ["deliver status idle x"]
    scene.say(status("busy", "x"))
    assert scene.say(status("busy", "y")) == ["deliver status busy y"]


@pytest.mark.parametrize("state", ["sleeping", "", "restarting"])
def test_only_three_execution_states_reach_a_client(scene: Scene, state: str) -> None:
    scene.started()
    assert scene.say(status("starting")) == ["deliver status starting -"]
    assert scene.say(status(state)) == []


# -- the heartbeat -------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["ready", "idle", "busy"])
def test_a_lost_heartbeat_makes_it_offline_and_one_that_is_back_what_it_was(
    scene: Scene, before: str
) -> None:
    scene.started(heard=before != "ready")
    if before == "busy":
        scene.say(status("busy", "x"))
    assert scene.say(HeartbeatLost()) == ["-> offline (lost heartbeat)"]
    assert scene.say(HeartbeatLost()) == []
    after = "busy" if before == "busy" else "idle"
    assert scene.say(HeartbeatBack()) == [f"-> {after} (heartbeat detected after offline)"]
    assert scene.say(HeartbeatBack()) == []


def test_a_status_heard_while_offline_counts_when_the_heartbeat_is_back(scene: Scene) -> None:
    scene.started()
    scene.say(HeartbeatLost())
    assert scene.say(status("busy", "x")) == ["deliver status busy x"]
    assert scene.state.status is Status.OFFLINE
    assert scene.say(HeartbeatBack()) == ["-> busy (heartbeat detected after offline)"]


@pytest.mark.parametrize("started", [False, True])
def test_a_heartbeat_is_of_no_interest_without_a_kernel_that_answers(
    scene: Scene,
    started: bool,  # noqa: FBT001
) -> None:
    if started:
        scene.say(StartAccepted())
    assert scene.say(HeartbeatLost(), HeartbeatBack()) == []


# -- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["starting", "ready", "idle", "busy", "offline"])
def test_an_end_is_told_once_and_the_status_first(scene: Scene, when: str) -> None:
    if when == "starting":
        scene.say(StartAccepted())
    else:
        scene.started(heard=when != "ready")
    if when == "busy":
        scene.say(status("busy", "x"))
    elif when == "offline":
        scene.say(HeartbeatLost())
    assert scene.state.status == when
    assert scene.ended(-1, "It was killed") == ["-> exited (It was killed)", "exited -1"]
    assert scene.ended(0, "again") == []


def test_a_restart_is_heard_step_by_step(scene: Scene) -> None:
    scene.started()
    heard = scene.ended(0, "The kernel was shut down")
    heard += scene.say(StartAccepted(), InfoRequested("own-2"), status("idle", "own-2"))
    heard += scene.say(KernelAnswered())
    assert heard == [
        "-> exited (The kernel was shut down)",
        "exited 0",
        "-> starting (start API called)",
        "status heard",
        "-> idle (kernel_info_request)",
    ]


def test_the_next_kernel_inherits_nothing_of_what_was_heard(scene: Scene) -> None:
    scene.started()
    scene.say(status("busy", "x"))
    scene.ended()
    scene.say(StartAccepted(), InfoRequested("own-2"))
    assert scene.say(status("busy", OWN)) == ["deliver status busy own-1", "status heard"]
    scene.ended()
    scene.say(StartAccepted(), InfoRequested("own-3"))
    assert scene.say(KernelAnswered()) == ["-> ready (kernel ready)"]


# -- adoption ------------------------------------------------------------------------------------


@pytest.mark.parametrize("exited", [False, True])
@pytest.mark.parametrize(
    ("heard", "change"),
    [
        ([], "-> ready (kernel ready)"),
        ([status("busy", OWN), status("idle", OWN)], "-> idle (kernel_info_request)"),
        ([status("busy", "x")], "-> busy (None)"),
        ([status("busy", "x"), status("idle", "x")], "-> idle (kernel_info_request)"),
    ],
)
def test_an_adopted_kernel_is_what_it_says_it_is(
    scene: Scene,
    exited: bool,  # noqa: FBT001
    heard: list[object],
    change: str,
) -> None:
    if exited:
        scene.started().ended()
    scene.say(InfoRequested(OWN), *heard)  # type: ignore[arg-type]
    assert scene.say(KernelAnswered()) == [change]


@pytest.mark.parametrize("exited", [False, True])
def test_a_failed_adoption_leaves_the_session_as_it_was(scene: Scene, exited: bool) -> None:  # noqa: FBT001
    if exited:
        scene.started().ended()
    before = scene.state.status
    scene.say(InfoRequested(OWN))
    assert scene.say(status("busy", "x")) == ["deliver status busy x", "status heard"]
    assert scene.say(AdoptionFailed()) == []
    assert scene.state.status is before
    assert scene.say(StartAccepted()) == ["-> starting (start API called)"]
    assert scene.say(InfoRequested("own-2"), KernelAnswered()) == ["-> ready (kernel ready)"]


def test_an_adopted_kernel_that_is_gone_has_exited(scene: Scene) -> None:
    scene.say(InfoRequested(OWN), KernelAnswered())
    assert scene.ended(0, "The adopted kernel is gone") == [
        "-> exited (The adopted kernel is gone)",
        "exited 0",
    ]


# -- what is passed on ---------------------------------------------------------------------------


@pytest.mark.parametrize("channel", Channel)
def test_messages_the_core_has_no_opinion_on_are_delivered(scene: Scene, channel: Channel) -> None:
    scene.started()
    message = said(channel, "comm_msg", "x")
    (effect,) = scene.effects(message)
    assert effect.message is message  # type: ignore[union-attr]


def test_replies_nobody_waits_for_are_delivered(scene: Scene) -> None:
    scene.started()
    assert scene.say(reply("foreign")) == ["deliver execute_reply foreign"]
    info = said(Channel.SHELL, "kernel_info_reply", "the client's")
    assert scene.say(info) == ["deliver kernel_info_reply the client's"]


def test_a_welcome_is_for_the_subscriber_alone(scene: Scene) -> None:
    assert scene.say(said(Channel.IOPUB, "iopub_welcome")) == []


@pytest.mark.parametrize(
    ("content", "delivered"),
    [
        (b'{"name":"stdout","text":"a"}', b'{"name":"stdout","text":"a"}'),
        (b'{"name":"stderr","text":"a"}', b'{"name":"stderr","text":"a"}'),
        (b'{"name":"log","text":"a"}', b'{"name":"stdout","text":"a"}'),
        (b'{"text":"a"}', b'{"name":"stdout","text":"a"}'),
        (b'{"name":5,"text":"\\ud800"}', b'{"name":"stdout","text":"\\ud800"}'),
    ],
)
def test_a_stream_of_another_name_goes_on_as_stdout(
    scene: Scene, content: bytes, delivered: bytes
) -> None:
    scene.started()
    (effect,) = scene.effects(said(Channel.IOPUB, "stream", "x", content))
    assert effect.message.content == delivered  # type: ignore[union-attr]


def test_an_end_without_a_life_is_told_as_one(scene: Scene) -> None:
    """A run that fails in a way nobody thought of."""
    assert scene.say(RunEnded(-1, "why")) == ["-> exited (why)", "exited -1"]
