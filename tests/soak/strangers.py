"""Whatever may arrive at the main listener: noise, halves of requests, crowds, wrong tokens."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import trio

from tests.soak.record import CheckFailed
from tests.soak.world import pause

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from tests.soak.world import World

__all__ = ["come_and_go"]

DOCUMENTED: Final = {"200", "400", "401", "403", "404", "405", "408", "413", "426", "431"}
STATUS: Final = re.compile(rb"HTTP/1\.1 (\d\d\d) ")
PATIENCE: Final = 1.0
"""How long an answer is waited for that need not come: half a request has none."""
ANSWER_SECONDS: Final = 5.0
"""The bound of one that has to."""
UPGRADE: Final = "Upgrade: websocket\r\nConnection: Upgrade\r\n"


class Stranger:
    """One visit to the server."""

    def __init__(self, world: World, dice: random.Random) -> None:
        """Nothing is sent yet."""
        self.world = world
        self.dice = dice
        token = world.client.target.token
        self.token = "" if token is None else f"Authorization: Bearer {token}\r\n"

    async def connect(self) -> trio.SocketStream:
        """Open a connection."""
        details = self.world.server.details
        if details.socket_path is not None:
            return await trio.open_unix_socket(details.socket_path)
        assert details.port is not None
        return await trio.open_tcp_stream("127.0.0.1", details.port)

    async def say(self, data: bytes, wanted: set[str] | None = None) -> None:
        """Send bytes; whatever is answered has to be a documented status."""
        answer, began, end = bytearray(), trio.current_time(), "nothing more in time"
        async with await self.connect() as stream:
            with trio.move_on_after(ANSWER_SECONDS if wanted else PATIENCE):
                try:
                    await stream.send_all(data)
                    while not (STATUS.match(answer) and wanted):
                        received = await stream.receive_some()
                        if not received:
                            end = "the end"
                            break
                        answer += received
                except trio.BrokenResourceError as exc:
                    end = f"{exc.__cause__}"
        statuses = {found.decode() for found in STATUS.findall(bytes(answer))}
        for status in statuses:
            self.world.record.answers[f"strangers {status}"] += 1
        came = f"{bytes(answer[:200])!r}, then {end}, in {trio.current_time() - began:.1f} s"
        if statuses - DOCUMENTED or (answer and not answer.startswith(b"HTTP/1.1 ")):
            raise CheckFailed(f"{data[:50]!r} was answered with {came}")
        if wanted and not statuses & wanted:
            raise CheckFailed(f"{data[:50]!r} was answered with {came}; due was one of {wanted}")

    def request(self, line: str, body: bytes = b"", more: str = "", *, token: bool = True) -> bytes:
        """Make a request."""
        given = self.token if token else ""
        size = f"Content-Length: {len(body)}\r\n" if body else ""
        return f"{line} HTTP/1.1\r\nHost: localhost\r\n{given}{size}{more}\r\n".encode() + body

    async def noise(self) -> None:
        """Random bytes."""
        await self.say(self.dice.randbytes(self.dice.choice([1, 100, 5000])))

    async def half_a_request(self) -> None:
        """A request that stops somewhere."""
        whole = self.request("PUT /sessions", b'{"session_id": "half"' + b" " * 200)
        await self.say(whole[: self.dice.randrange(1, len(whole) - 1)])

    async def bad_body(self) -> None:
        """JSON that is none, or of the wrong shape."""
        body = self.dice.choice(
            [b"{", b"[]", b"null", b'{"session_id": 5}', b"\xff\xfe", b"[" * 50_000]
        )
        await self.say(self.request("PUT /sessions", body), {"400"})

    async def wrong_token(self) -> None:
        """No token or another one."""
        more = self.dice.choice(["", "Authorization: Bearer no\r\n", "Authorization: \r\n"])
        path = self.dice.choice(["/sessions", "/metrics", "/sessions/one", "/server_configuration"])
        wanted = {"401"} if self.token else None
        await self.say(self.request(f"GET {path}", more=more, token=False), wanted)

    async def wrong_path(self) -> None:
        """Paths and methods that are none."""
        line = self.dice.choice(
            [
                "GET /no",
                "DELETE /status",
                "PATCH /sessions",
                "GET /sessions/no",
                "POST /sessions/no/start",
                "GET /%00",
                "GET //",
                "BREW /coffee",
            ]
        )
        await self.say(self.request(line), {"404", "405", "400"})

    async def huge_head(self) -> None:
        """A head that is too long, or has too many fields."""
        more = self.dice.choice([f"X: {'x' * 70_000}\r\n", "X: y\r\n" * 150])
        await self.say(self.request("GET /status", more=more), {"431"})

    async def bad_upgrade(self) -> None:
        """An upgrade to a channel that is none."""
        more = self.dice.choice(
            [
                UPGRADE,
                f"{UPGRADE}Sec-WebSocket-Version: 12\r\n",
                f"{UPGRADE}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n",
            ]
        )
        await self.say(self.request("GET /sessions/no/channels", more=more), {"400", "404", "426"})

    async def pipeline(self) -> None:
        """Requests that do not wait for answers."""
        await self.say(self.request("GET /status") * self.dice.randrange(2, 50), {"200"})

    async def crowd(self) -> None:
        """Many connections, dropped before, amid or after half a request."""
        streams = []
        try:
            for _ in range(self.dice.choice([10, 100, 300])):
                stream = await self.connect()
                streams.append(stream)
                await stream.send_all(self.dice.choice([b"G", b"GET /sta", b"\r\n"]))
        finally:
            for stream in streams:
                await trio.aclose_forcefully(stream)

    async def crawl(self) -> None:
        """A head that comes byte by byte, and never ends."""
        async with await self.connect() as stream:
            for byte in self.request("GET /status")[: self.dice.randrange(10, 40)]:
                await stream.send_all(bytes([byte]))
                await pause(0.05)

    async def two_lengths(self) -> None:
        """What is used to smuggle requests."""
        more = self.dice.choice(
            [
                "Content-Length: 5\r\nContent-Length: 6\r\n",
                "Bad Name: x\r\n",
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            ]
        )
        body = json.dumps({}).encode()
        await self.say(self.request("POST /client_heartbeat", more=more) + body)


VISITS: Final[dict[str, Callable[[Stranger], Awaitable[None]]]] = {
    "noise": Stranger.noise,
    "half a request": Stranger.half_a_request,
    "a bad body": Stranger.bad_body,
    "a wrong token": Stranger.wrong_token,
    "a wrong path or method": Stranger.wrong_path,
    "a huge head": Stranger.huge_head,
    "a bad upgrade": Stranger.bad_upgrade,
    "pipelined requests": Stranger.pipeline,
    "a crowd of connections": Stranger.crowd,
    "a slow head": Stranger.crawl,
    "ambiguous lengths": Stranger.two_lengths,
}


async def come_and_go(world: World, actor: int) -> None:
    """Visit again and again until it is time to end."""
    turn = 0
    while not world.over:
        turn += 1
        dice = world.chance("stranger", actor, turn)
        name = dice.choice(sorted(VISITS))
        world.record.deeds[f"stranger: {name}"] += 1
        with world.record.noting(f"{world.stage}, stranger {actor}, turn {turn}, {name}"):
            await VISITS[name](Stranger(world, dice))
        await pause(dice.random() * 0.5)
