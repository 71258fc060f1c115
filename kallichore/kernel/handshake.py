"""Registration: the kernel picks its ports and tells us (JEP 66, CONTRACT 3.3)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import trio
import zmq
from msgspec import Meta, Struct

from kallichore.kernel.zmq_socket import ZmqSocket
from kallichore.models import ConnectionInfo
from kallichore.protocol.compose import request
from kallichore.protocol.message import Channel
from kallichore.protocol.wire import Signer, WireError, parse, serialize
from kallichore.stamps import new_id, now_text

if TYPE_CHECKING:
    from kallichore.config import Limits
    from kallichore.protocol.message import KernelMessage

__all__ = ["Registration", "registers"]

log = logging.getLogger(__name__)
_LOOPBACK: Final = "127.0.0.1"
_FIRST_VERSION: Final = (5, 5)
_Port = Annotated[int, Meta(ge=1, le=65535)]


def registers(protocol_version: str) -> bool:
    """Tell whether kernels of this protocol version register with us."""
    major, dot, minor = protocol_version.partition(".")
    if not (dot and major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        return False
    return (int(major), int(minor)) >= _FIRST_VERSION


class _Request(Struct, frozen=True):
    shell_port: _Port
    iopub_port: _Port
    stdin_port: _Port
    control_port: _Port
    hb_port: _Port


class Registration:
    """A REP socket that waits for one kernel's `handshake_request`."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        key: str,
        session_id: str,
        limits: Limits,
    ) -> None:
        """Listen on a port of 127.0.0.1 that the operating system picks."""
        self._key = key
        self._session_id = session_id
        self._signer = Signer(key)
        self._registered = trio.Event()
        self._result: ConnectionInfo | None = None
        socket: zmq.Socket[bytes] = context.socket(zmq.REP)
        socket.set(zmq.LINGER, 0)
        self.port: Final = socket.bind_to_random_port(f"tcp://{_LOOPBACK}")
        # A REP socket must answer before it may receive again: one message a batch.
        self._socket = ZmqSocket(socket, replace(limits, batch_messages=1), self._handle)
        self.last_error: str | None = None

    def file_content(self) -> bytes:
        """Give the registration file the kernel is started with."""
        return msgspec.json.encode(
            {
                "transport": "tcp",
                "signature_scheme": "hmac-sha256",
                "ip": _LOOPBACK,
                "key": self._key,
                "registration_port": self.port,
            }
        )

    async def run(self) -> None:
        """Answer until cancelled; anything but a good request is answered with an error."""
        await self._socket.run()

    async def wait(self) -> ConnectionInfo:
        """Give the kernel's ports once it has registered. Cancellation is harmless."""
        await self._registered.wait()
        assert self._result is not None  # noqa: S101 (set before the event)
        return self._result

    def close(self) -> None:
        """Stop listening, once the kernel has its answer."""
        self._socket.close(linger_ms=100)

    def _handle(self, batch: list[list[bytes]]) -> None:
        for frames in batch:
            content = self._answer(frames)
            message = request(
                Channel.SHELL,
                "handshake_reply",
                content,
                msg_id=new_id(),
                session=self._session_id,
                username="kallichore",
                date=now_text(),
            )
            self._socket.send(serialize(message, self._signer))

    def _answer(self, frames: list[bytes]) -> dict[str, object]:
        try:
            self._accept(parse(Channel.SHELL, frames, self._signer))
        except (WireError, ValueError) as error:
            self.last_error = str(error)
            log.warning("a registration was refused: %s", error)
            return {"status": "error", "error": str(error), "capabilities": {}}
        return {"status": "ok", "capabilities": {}}

    def _accept(self, message: KernelMessage) -> None:
        if message.msg_type != "handshake_request":
            raise ValueError(f"expected a handshake_request, got a {message.msg_type}")
        ports = msgspec.json.decode(message.content, type=_Request)
        if self._result is not None:
            raise ValueError("a kernel has registered already")
        self._result = ConnectionInfo(
            control_port=ports.control_port,
            shell_port=ports.shell_port,
            stdin_port=ports.stdin_port,
            hb_port=ports.hb_port,
            iopub_port=ports.iopub_port,
            signature_scheme="hmac-sha256",
            key=self._key,
            transport="tcp",
            ip=_LOOPBACK,
        )
        self._registered.set()
