"""Actors that lead one session after the other through a random life."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from kallichore.client import StartFailed
from kallichore.models import InterruptMode, StartupEnvironment
from tests.e2e.test_bad_input import ODD_IDS
from tests.puppets import PUPPET, session_of
from tests.soak import client_deeds, kernel_deeds
from tests.soak.life import Life
from tests.soak.record import CheckFailed, leaves

if TYPE_CHECKING:
    import random

    from tests.soak.world import World

__all__ = ["lead_lives"]

DEEDS = {**client_deeds.ACTIONS, **client_deeds.FAULTS, **kernel_deeds.FAULTS}
DEED_SECONDS = 90.0
"""A deed that takes longer hangs."""
IGNORED = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
FAILING: dict[str, tuple[dict[str, Any], set[str]]] = {
    "exits while starting": ({"before": "os._exit(7)"}, {"500 KS-8"}),
    "killed while starting": ({"before": "os.kill(os.getpid(), 9)"}, {"500 KS-8"}),
    "never answers": ({"mute": True, "session": {"connection_timeout": 1}}, {"500 KS-15"}),
    "never listens": ({"bind": False, "session": {"connection_timeout": 1}}, {"500 KS-7"}),
    "exits before it registers": (
        {"before": "os._exit(3)", "session": {"protocol_version": "5.5"}},
        {"500 KS-14", "500 KS-8"},
    ),
    "its start-up command fails": (
        {
            "session": {
                "startup_environment": StartupEnvironment.COMMAND,
                "startup_environment_arg": "false",
            }
        },
        {"500 KS-8", "500 KS-16"},
    ),
}
"""Starts that fail: the puppet's options, and what the server may say of it."""


async def lead_lives(world: World, actor: int) -> None:
    """Lead sessions through their lives until it is time to end."""
    turn = 0
    while not world.over:
        turn += 1
        dice = world.chance("life", actor, turn)
        kind = dice.choices(["life", "failing start", "adopted", "stubborn"], [12, 3, 1, 1])[0]
        name = ODD_IDS[dice.choice(sorted(ODD_IDS))] if dice.random() < 0.2 else "a kernel"
        session_id = f"{actor}.{turn} {name}".encode()[:255].decode(errors="ignore")
        life = Life(world, session_id, dice)
        where = f"{world.stage}, actor {actor}, turn {turn}"
        with world.record.noting(f"{where}, {kind}"):
            await KINDS[kind](life, where)
        with world.record.noting(f"{where}, end of {kind}"), trio.fail_after(DEED_SECONDS):
            await life.end()


async def _live(life: Life, where: str) -> None:
    """Do random deeds; after each the session has to be well, or its kernel gone."""
    dice = life.dice
    real = dice.random() < 0.15
    chosen = [
        (name, deed, weight)
        for name, (deed, weight, any_kernel) in DEEDS.items()
        if any_kernel or not real
    ]
    names = dice.choices(
        [name for name, _, _ in chosen],
        [weight for _, _, weight in chosen],
        k=dice.randrange(1, 7),
    )
    await life.create(real=real, session=_fields(dice, real=real))
    life.record.deeds["sessions with an ipykernel" if real else "sessions with a puppet"] += 1
    for name in names:
        with trio.fail_after(DEED_SECONDS):
            try:
                if not life.alive:
                    await life.start()
                life.record.deeds[name] += 1
                await DEEDS[name][0](life)
                if life.alive:
                    await life.pulse()
            except Exception as exc:
                raise CheckFailed(f"{' > '.join(names)}: in {name}: {summary(exc)}") from exc


def _fields(dice: random.Random, *, real: bool) -> dict[str, Any]:
    """Choose how a session is to be."""
    fields: dict[str, Any] = {"interrupt_mode": dice.choice(list(InterruptMode))}
    if dice.random() < 0.2:
        fields["startup_environment"] = StartupEnvironment.SHELL
    if dice.random() < 0.3 and not real:
        fields["protocol_version"] = "5.5"
    return fields


async def _fail_to_start(life: Life, where: str) -> None:
    """A start that fails is answered with the reason, and can be tried again."""
    name = life.dice.choice(sorted(FAILING))
    options, expected = FAILING[name]
    life.record.deeds[f"start that fails: {name}"] += 1
    await life.create(**options)
    for _ in range(2):
        refusal = await life.start(may=expected)
        if not isinstance(refusal, StartFailed):
            raise CheckFailed(f"{name}, and its start was answered with {refusal}")


async def _adopt(life: Life, where: str) -> None:
    """A kernel that we run ourselves is adopted, works, and then goes."""
    life.record.deeds["adoption"] += 1
    await life.ask("new", session_of([], life.id))
    connection = await life.ask("connection info")
    with trio.fail_after(DEED_SECONDS):
        argv = [sys.executable, "-E", PUPPET, "/dev/stdin", json.dumps({})]
        process = await trio.lowlevel.open_process(
            argv, stdin=subprocess.PIPE, env=life.world.environment, cwd=life.world.directory
        )
        try:
            assert process.stdin is not None
            async with process.stdin as stdin:
                await stdin.send_all(msgspec.json.encode(connection))
            await life.ask("adopt", connection)
            await life.pulse()
            await client_deeds.queues_code(life)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):  # it is killed, so this is soon
                await process.wait()
        await life.status("exited", seconds=40)


async def _defy(life: Life, where: str) -> None:
    """A kernel that neither obeys `shutdown_request` nor SIGTERM is restarted in time."""
    life.record.deeds["restart of a kernel that does not obey"] += 1
    await life.create(polite=False, ready=IGNORED)
    await life.start()
    with trio.fail_after(15):
        await life.ask("restart")
    await life.pulse()


def summary(exc: Exception) -> str:
    """Say what went wrong, of several things each."""
    return "; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in leaves(ExceptionGroup("", [exc])))


KINDS = {"life": _live, "failing start": _fail_to_start, "adopted": _adopt, "stubborn": _defy}
