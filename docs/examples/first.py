"""Start a server and a kernel, run code, and show what comes back."""

from __future__ import annotations

import trio

from kallichore.client import build_session, find_kernelspec, open_server


async def main() -> None:
    """Print the text that the kernel prints."""
    async with open_server() as server:
        session_id = await server.client.new_session(build_session(find_kernelspec("python3")))
        await server.client.start_session(session_id)
        async with server.client.open_channel(session_id) as channel:
            async for message in channel.execute("print(6 * 7)"):
                if message.type == "stream":
                    print(message.content["text"], end="")


trio.run(main)
