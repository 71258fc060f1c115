"""Leave a channel while the kernel works, come back, and miss nothing."""

from __future__ import annotations

import trio

from kallichore.client import (
    Channel,
    JupyterMessage,
    build_session,
    find_kernelspec,
    new_message,
    open_server,
)

CODE = "for number in range(5): print(number, flush=True)"


async def printed(channel: Channel, request: JupyterMessage, lines: int) -> str:
    """Collect what the request prints, until there are so many lines."""
    text = ""
    while text.count("\n") < lines:
        message = await channel.receive()
        if not isinstance(message, JupyterMessage) or message.type != "stream":
            continue
        if message.parent_id == request.header.msg_id:
            text += message.content["text"]
    return text


async def main() -> None:
    """Hang up after the request, reconnect with the number of the last frame seen."""
    async with open_server() as server:
        client = server.client
        session_id = await client.new_session(build_session(find_kernelspec("python3")))
        await client.start_session(session_id)
        request = new_message("execute_request", {"code": CODE, "silent": False})
        async with client.open_channel(session_id, after=0) as channel:
            await channel.send(request)
            seen = channel.seq
        async with client.open_channel(session_id, after=seen) as channel:
            print(await printed(channel, request, 5), end="")


trio.run(main)
