"""At level trace every message is in the log, by its type and id alone (CONTRACT 1.1)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from kallichore.models import ServerConfiguration
from tests.listening import Ear
from tests.puppets import start_puppet

if TYPE_CHECKING:
    from tests.serving import Serving

TRACE = 5
pytestmark = pytest.mark.usefixtures("restored_logging")


def traced(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno == TRACE]


async def test_every_message_is_traced_without_what_it_says(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    client = serving.client
    await start_puppet(client)
    await client.set_server_configuration(ServerConfiguration(log_level="trace"))
    async with client.open_channel("one") as channel:
        ear = Ear(channel)
        msg_id = await ear.send("say('a secret')")
        await ear.until("iopub:status=idle", parent=msg_id)
        await ear.execute("raw(b'nonsense')")
        await ear.execute("pass")  # the replies of those before it have come
    everything = traced(caplog)
    said = everything[everything.index(f"to shell: execute_request {msg_id}") :]
    kinds = [line.split(" ")[2] for line in said if line.startswith("from iopub: ")]
    assert "status" in kinds
    assert [one for one in kinds if one != "status"][:2] == ["execute_input", "stream"]
    assert "from iopub: something malformed, 13 bytes" in said
    assert any(line.startswith("from shell: execute_reply ") for line in said)
    assert "secret" not in "".join(everything)


@pytest.mark.parametrize("level", ["debug", "info"])
async def test_at_other_levels_none_is(
    serving: Serving, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    client = serving.client
    await client.set_server_configuration(ServerConfiguration(log_level=level))
    caplog.handler.setLevel(logging.NOTSET)
    await start_puppet(client)
    async with client.open_channel("one") as channel:
        await Ear(channel).execute("say('x')")
    assert traced(caplog) == []
