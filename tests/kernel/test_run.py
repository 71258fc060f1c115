"""Every kind of run, real or fake, under the one suite of `tests.conformance.kernel_run`."""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from kallichore.kernel.adopted import AdoptedRun
from kallichore.kernel.launch import Launch
from kallichore.kernel.launched import LaunchedRun
from kallichore.kernel.rendezvous import drawn_connection
from tests.conformance.kernel_run import SUITE, Life
from tests.fakes import FakeRun
from tests.puppets import PUPPET, puppet
from tests.serving import Serving, open_serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY = "k" * 32


@asynccontextmanager
async def fake(serving: Serving) -> AsyncIterator[Life]:
    yield Life(lambda host: FakeRun(serving.tools, host, puppet(), KEY))


@asynccontextmanager
async def launched(serving: Serving) -> AsyncIterator[Life]:
    began = trio.current_time()
    yield Life(
        lambda host: LaunchedRun(
            serving.tools, host, puppet(), KEY, began, 10, lambda _environment: None
        )
    )


@asynccontextmanager
async def registered(serving: Serving) -> AsyncIterator[Life]:
    began, spec = trio.current_time(), puppet("one", {"protocol_version": "5.5"})
    life = Life(
        lambda host: LaunchedRun(
            serving.tools, host, spec, KEY, began, 10, lambda _environment: None
        )
    )
    yield life
    assert life.connection == life.run.connection


@asynccontextmanager
async def adopted(serving: Serving) -> AsyncIterator[Life]:
    tools = serving.tools
    ports = tools.ports.reserve(5)
    connection = drawn_connection(ports, KEY)
    file = serving.directory / "foreign.json"
    file.write_bytes(msgspec.json.encode(connection))
    argv = [sys.executable, PUPPET, str(file), json.dumps({})]
    async with tools.reaper.spawn(Launch(argv=argv, env={}, cwd="/")):
        yield Life(lambda host: AdoptedRun(tools, host, "one", connection, 10))
    tools.ports.release(ports)


@pytest.mark.parametrize("kind", [fake, launched, registered, adopted], ids=lambda f: f.__name__)
@pytest.mark.parametrize("check", SUITE, ids=lambda f: f.__name__)
async def test_a_run(kind: Any, check: Any) -> None:
    async with open_serving() as serving, kind(serving) as life, trio.open_nursery() as nursery:
        await check(life, nursery)
