"""How server and kernel come to know each other's ports: drawn by us, or registered by the kernel.

Both ways write a file for the kernel and remove it when the run ends.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

import trio

from kallichore.errors import ExitedBeforeConnecting, RegistrationFailed
from kallichore.kernel.connection import connection_file_content, open_connection_file
from kallichore.kernel.handshake import Registration, registers
from kallichore.models import ConnectionInfo

if TYPE_CHECKING:
    from kallichore.errors import KallichoreError
    from kallichore.kernel.run import RunTools

__all__ = ["DrawnPorts", "RegisteredPorts", "drawn_connection", "rendezvous"]

_PORTS: Final = 5


class DrawnPorts:
    """Five ports that nobody uses, in a connection file."""

    def __init__(self, tools: RunTools, session_id: str, key: str) -> None:
        """Prepare to draw."""
        self._tools = tools
        self._session_id = session_id
        self._key = key
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Draw the ports and write the file. Raises OSError."""
        with ExitStack() as stack:
            ports = self._tools.ports.reserve(_PORTS)
            stack.callback(self._tools.ports.release, ports)
            self.connection = drawn_connection(ports, self._key)
            content = connection_file_content(self.connection)
            self.path = stack.enter_context(
                open_connection_file(self._tools.directory, self._session_id, content)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file, then free the ports."""
        self._stack.close()

    async def wait(self, nursery: trio.Nursery) -> ConnectionInfo:  # noqa: ARG002
        """Give the ports."""
        await trio.lowlevel.checkpoint()
        return self.connection

    def failure(self, waited_seconds: float | None = None) -> KallichoreError | None:  # noqa: ARG002
        """Nothing can be missing here."""
        return None


class RegisteredPorts:
    """The ports a kernel chooses and registers (JEP 66)."""

    def __init__(self, tools: RunTools, session_id: str, key: str) -> None:
        """Prepare to listen."""
        self._tools = tools
        self._session_id = session_id
        self._key = key
        self._stack = ExitStack()
        self.connection: ConnectionInfo | None = None

    def __enter__(self) -> Self:
        """Listen and write the registration file. Raises OSError, zmq.ZMQError."""
        with ExitStack() as stack:
            self._registration = Registration(
                self._tools.context, self._key, self._session_id, self._tools.limits
            )
            stack.callback(self._registration.close)
            self.path = stack.enter_context(
                open_connection_file(
                    self._tools.directory, self._session_id, self._registration.file_content()
                )
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file and stop listening."""
        self._stack.close()

    async def wait(self, nursery: trio.Nursery) -> ConnectionInfo:
        """Wait for the registration; the listener stays until the run ends."""
        nursery.start_soon(self._registration.run, name="registration")
        self.connection = await self._registration.wait()
        return self.connection

    def failure(self, waited_seconds: float | None = None) -> KallichoreError | None:
        """Say whether the kernel never registered, or only wrongly.

        It has exited, or ``waited_seconds`` were too few for it.
        """
        if self.connection is not None:
            return None
        why = self._registration.last_error
        if why is None and waited_seconds is None:
            return ExitedBeforeConnecting()
        why = why or f"the kernel did not register within {waited_seconds:g} seconds"
        return RegistrationFailed(self._session_id, why)


def drawn_connection(ports: list[int], key: str) -> ConnectionInfo:
    """Give a connection on five ports of 127.0.0.1."""
    control, shell, stdin, heartbeat, iopub = ports
    return ConnectionInfo(
        control_port=control,
        shell_port=shell,
        stdin_port=stdin,
        hb_port=heartbeat,
        iopub_port=iopub,
        signature_scheme="hmac-sha256",
        key=key,
        transport="tcp",
        ip="127.0.0.1",
    )


def rendezvous(
    tools: RunTools, session_id: str, key: str, protocol_version: str
) -> DrawnPorts | RegisteredPorts:
    """Choose the way by the session's protocol version (CONTRACT 3.2)."""
    kind = RegisteredPorts if registers(protocol_version) else DrawnPorts
    return kind(tools, session_id, key)
