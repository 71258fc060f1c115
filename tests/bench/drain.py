"""A client in a process of its own, that has its kernel flood it until it is told to stop.

Run as ``python -m tests.bench.drain ADDRESS PATH [TOKEN]``, the address as JSON. Says on stdout
when the flood runs, ends when stdin ends, and then says how many messages came in how many seconds.
"""

from __future__ import annotations

import json
import select
import sys
import time
from typing import Final

from tests.bench.client import WebSocketClient, request_frame
from tests.bench.messages import command, new_id

FLOOD: Final = 20_000
SIZE: Final = 200


def main(address: str, path: str, token: str | None = None) -> None:
    where = json.loads(address)
    target = where if isinstance(where, str) else (where[0], where[1])
    request = command("flood", count=FLOOD, size=SIZE)
    with WebSocketClient(target, path, token) as client:
        client.wait_quiet()
        # Two requests are under way at any time, so that the kernel never waits for the next.
        client.send(request_frame(request, new_id()))
        count, begin = 0, 0.0
        while not select.select([sys.stdin], [], [], 0)[0]:
            client.send(request_frame(request, new_id()))
            flood = client.count_flood(FLOOD)
            if not count:
                print("flooding", flush=True)
                begin = time.perf_counter()
            count += flood.seen
        print(json.dumps([count, time.perf_counter() - begin]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
