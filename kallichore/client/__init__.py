"""A client of Kallichore servers, for Trio programs.

>>> async with open_client("/run/user/1000/kc.json") as client:
...     async with client.open_channel("my-session") as channel:
...         async for message in channel.execute("print(6 * 7)"):
...             print(message.type, message.content)

Names are imported when they are first used, so that ``kcclient --help`` does not wait for httpx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kallichore.client.channel import Channel, Execution
    from kallichore.client.client import Client, open_client
    from kallichore.client.errors import (
        BadTarget,
        ChannelClosed,
        ClientError,
        KernelspecNotFound,
        LaunchFailed,
        RequestFailed,
        ServerGone,
        SessionUnknown,
        StartFailed,
        TakenOver,
        TokenRefused,
        UnexpectedAnswer,
        UnusableRequest,
    )
    from kallichore.client.kernelspec import Kernelspec, build_session, find_kernelspec
    from kallichore.client.launch import LaunchedServer, launch_server, open_server
    from kallichore.client.messages import Header, JupyterMessage, Received, new_message
    from kallichore.client.target import ConnectionDetails, Target

__all__ = [
    "BadTarget",
    "Channel",
    "ChannelClosed",
    "Client",
    "ClientError",
    "ConnectionDetails",
    "Execution",
    "Header",
    "JupyterMessage",
    "Kernelspec",
    "KernelspecNotFound",
    "LaunchFailed",
    "LaunchedServer",
    "Received",
    "RequestFailed",
    "ServerGone",
    "SessionUnknown",
    "StartFailed",
    "TakenOver",
    "Target",
    "TokenRefused",
    "UnexpectedAnswer",
    "UnusableRequest",
    "build_session",
    "find_kernelspec",
    "launch_server",
    "new_message",
    "open_client",
    "open_server",
]

_HOMES: Final = {
    "channel": ("Channel", "Execution"),
    "client": ("Client", "open_client"),
    "errors": (
        "BadTarget",
        "ChannelClosed",
        "ClientError",
        "KernelspecNotFound",
        "LaunchFailed",
        "RequestFailed",
        "ServerGone",
        "SessionUnknown",
        "StartFailed",
        "TakenOver",
        "TokenRefused",
        "UnexpectedAnswer",
        "UnusableRequest",
    ),
    "kernelspec": ("Kernelspec", "build_session", "find_kernelspec"),
    "launch": ("LaunchedServer", "launch_server", "open_server"),
    "messages": ("Header", "JupyterMessage", "Received", "new_message"),
    "target": ("ConnectionDetails", "Target"),
}


def __getattr__(name: str) -> object:
    """Import a public name from its module when it is first asked for."""
    for module, names in _HOMES.items():
        if name in names:
            value: object = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
