"""A kernel whose output outruns its socket drops messages; an idle among them stops nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kallichore.protocol.events import ClientRequested, IdleOverdue, RunEnded
from tests.protocol.samples import asked
from tests.protocol.scene import Scene, reply, said, status

if TYPE_CHECKING:
    from kallichore.protocol.message import ClientMessage

ASKED = "own-2"


def question(msg_id: str = ASKED) -> ClientMessage:
    return asked(msg_id, "kernel_info_request")


def doubtful() -> Scene:
    """A scene in which the first of two executions has its reply, and no idle."""
    scene = Scene().started()
    scene.ask("c-1")
    scene.ask("c-2")
    scene.say(status("busy", "c-1"), reply("c-1"))
    assert scene.state.idle_is_due
    return scene


def test_a_kernel_that_is_idle_later_was_idle_before() -> None:
    scene = doubtful()
    assert scene.say(IdleOverdue(question())) == [f"send {ASKED}"]
    assert scene.say(status("busy", ASKED)) == []
    assert scene.say(status("idle", ASKED)) == [
        "-> idle (kernel_info_request)",
        "answer c-1 ok: idle",
        "finish c-1",
        "locate",
        "send c-2",
    ]
    assert scene.active == "c-2"
    assert not scene.state.idle_is_due
    # That c-2 is at work is told by the kernel, as always.
    assert scene.say(status("busy", "c-2"), reply("c-2"), status("idle", "c-2"))[-2:] == [
        "locate",
        "finish c-2",
    ]


def test_the_answer_itself_is_hidden() -> None:
    scene = doubtful()
    scene.say(IdleOverdue(question()))
    assert scene.say(said(reply("x").channel, "kernel_info_reply", ASKED)) == []


def test_an_idle_that_comes_after_all_is_the_end() -> None:
    scene = doubtful()
    scene.say(IdleOverdue(question()))
    assert "send c-2" in scene.say(status("idle", "c-1"))
    assert scene.say(status("idle", ASKED)) == []
    assert scene.active == "c-2"
    # And once more, with nothing behind it.
    scene.say(reply("c-2"))
    scene.say(IdleOverdue(question("own-3")), status("idle", "c-2"))
    assert scene.say(status("idle", "own-3")) == []


def test_who_is_at_work_is_not_doubted() -> None:
    scene = Scene().started()
    assert scene.say(IdleOverdue(question())) == []
    scene.ask("c-1")
    assert scene.say(status("busy", "c-1"), IdleOverdue(question())) == [
        "-> busy (execute_request)",
        "deliver status busy c-1",
    ]


def test_busy_with_no_execution_ends_too() -> None:
    """A request of another kind, whose idle is lost, leaves the session busy."""
    scene = Scene().started()
    scene.say(status("busy", "x", "comm_msg"))
    assert scene.state.idle_is_due
    assert scene.say(IdleOverdue(question())) == [f"send {ASKED}"]
    assert scene.say(status("idle", ASKED)) == ["-> idle (kernel_info_request)"]
    assert not scene.state.idle_is_due


def test_what_is_asked_meanwhile_is_not_ended() -> None:
    scene = Scene().started()
    scene.say(status("busy", "x", "comm_msg"), IdleOverdue(question()))
    scene.ask("c-1")
    assert scene.say(status("idle", ASKED)) == []
    assert scene.active == "c-1"


def test_only_the_last_question_counts() -> None:
    """The idle after the first one may be lost as well."""
    scene = doubtful()
    scene.say(IdleOverdue(question()), IdleOverdue(question("own-3")))
    assert scene.say(status("idle", ASKED)) == []
    assert "send c-2" in scene.say(status("idle", "own-3"))


def test_the_next_kernel_was_not_asked() -> None:
    scene = doubtful()
    scene.say(IdleOverdue(question()), RunEnded(0, "a reason"))
    scene.started()
    scene.ask("c-3")
    scene.say(status("busy", "c-3"), reply("c-3"))
    assert scene.say(status("idle", ASKED))[-1:] == [f"deliver status idle {ASKED}"]
    assert scene.active == "c-3"


def test_an_execute_ends_too() -> None:
    scene = Scene().started()
    request: ClientRequested = scene.injected("i-1")
    scene.say(request, status("busy", "i-1"), reply("i-1"), IdleOverdue(question()))
    assert "finish i-1" in scene.say(status("idle", ASKED))
