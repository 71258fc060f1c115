"""Big buffers, in both directions: what they cost, how long they take, how much memory."""

from __future__ import annotations

import base64
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import msgspec

from tests.bench.client import request_frame
from tests.bench.direct import open_kernel
from tests.bench.kernels import FAKE
from tests.bench.machine import MIB, CpuClock, peak_memory
from tests.bench.messages import Signer, command, header, new_id, signed
from tests.bench.report import By, Figure
from tests.bench.road import open_road
from tests.bench.subject import TCP, UNIX, open_kallichore

if TYPE_CHECKING:
    from tests.bench.direct import DirectClient
    from tests.bench.plan import Plan
    from tests.bench.road import Road

MEGABYTE: Final = 1_000_000
HUGE: Final = 50 * MIB
UPLOADS: Final = 10
DOWN: Final = "to the client"
UP: Final = "to the kernel"


class _Frame(msgspec.Struct):
    header: msgspec.Raw
    content: msgspec.Raw
    buffers: list[bytes]


def decoding_seconds(buffer: bytes) -> float:
    """CPU time that decoding a client's frame and signing it costs by themselves."""
    text = b'{"header":%b,"content":{},"buffers":["%b"]}' % (
        header(new_id(), "comm_msg"),
        base64.b64encode(buffer),
    )
    decoder, signer = msgspec.json.Decoder(_Frame), Signer(b"key")
    begin = time.process_time()
    for _ in range(UPLOADS):
        frame = decoder.decode(text)
        signed(signer, [bytes(frame.header), b"{}", b"{}", bytes(frame.content)], frame.buffers)
    return (time.process_time() - begin) / UPLOADS


def uploads(plan: Plan, roads: list[Road]) -> list[Figure]:
    """CPU time of the server for 1 MB from client to kernel."""
    buffer = os.urandom(MEGABYTE)
    costs: dict[str, list[float]] = {road.name: [] for road in roads}
    floor: list[float] = []
    for _ in range(plan.rounds):
        floor.append(decoding_seconds(buffer) * 1000)
        for road in roads:
            ids = [new_id() for _ in range(UPLOADS)]
            frames = [request_frame("pass", msg_id, [buffer]) for msg_id in ids]
            with CpuClock(road.pid) as cpu:
                for msg_id, frame in zip(ids, frames, strict=True):
                    road.client.round_trip(frame, msg_id)
            costs[road.name].append(cpu.seconds / UPLOADS * 1000)
    return [
        Figure(
            what=f"{road.name}: client to kernel, 1 MB of buffers, CPU",
            unit="ms",
            rounds=costs[road.name],
            floor_rounds=floor,
            by=By.RATIO,
            target=2.0,
        )
        for road in roads
    ]


class Huge:
    """One 50 MB buffer in one direction: time, and the server's memory at its peak."""

    def __init__(self, way: str, target: float, rust: str) -> None:
        self._way = way
        self._target = target
        self._rust = rust
        self._buffers = [] if way == DOWN else [os.urandom(HUGE)]
        self._code = command("buffer", bytes=HUGE) if way == DOWN else "pass"
        self._times: dict[str, list[float]] = {}
        self._peaks: dict[str, list[float]] = {}
        self._floor: list[float] = []

    def once(self, roads: list[Road], direct: DirectClient) -> None:
        """Measure one round."""
        seconds = direct.round_trip([*direct.request(self._code), *self._buffers])
        self._floor.append(seconds * 1000)
        for road in roads:
            msg_id = new_id()
            frame = request_frame(self._code, msg_id, self._buffers)
            with peak_memory(road.pid) as grown:
                seconds = road.client.round_trip(frame, msg_id)
            self._times.setdefault(road.name, []).append(seconds * 1000)
            self._peaks.setdefault(road.name, []).append(grown[0] / HUGE)

    def figures(self) -> list[Figure]:
        """Give what was measured; the first round was for warming up."""
        times = [
            Figure(
                what=f"{name}: one 50 MB buffer {self._way}",
                unit="ms",
                rounds=rounds[1:],
                floor_rounds=self._floor[1:],
                target=self._target,
                rust=self._rust,
            )
            for name, rounds in self._times.items()
        ]
        peaks = [
            Figure(
                what=f"{name}: one 50 MB buffer {self._way}, peak memory",
                unit="sizes",
                rounds=rounds[1:],
                target=4.0,
            )
            for name, rounds in self._peaks.items()
        ]
        return times + peaks


def huge(plan: Plan, roads: list[Road], direct: DirectClient) -> list[Figure]:
    """Both directions, interleaved."""
    ways = (Huge(DOWN, 300, "1 370"), Huge(UP, 250, "impossible"))
    for _ in range(plan.rounds + 1):
        for way in ways:
            way.once(roads, direct)
    return [figure for way in ways for figure in way.figures()]


def measure(plan: Plan) -> list[Figure]:
    """Both directions, over both transports."""
    with ExitStack() as stack:
        direct, _ = stack.enter_context(open_kernel(FAKE))
        servers = [stack.enter_context(open_kallichore(transport)) for transport in (TCP, UNIX)]
        roads = [stack.enter_context(open_road(server)) for server in servers]
        return [*uploads(plan, roads), *huge(plan, roads, direct)]
