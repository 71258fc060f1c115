"""Every error a client can be told of: its code, its HTTP status and its message.

Codes never change meaning (CONTRACT 2.1). An error is raised where it is noticed and becomes an
answer in one place, `kallichore.web`.
"""

from __future__ import annotations

from typing import ClassVar, Self

from kallichore.models import Error, StartupError

__all__ = [
    "BadRequest",
    "BodyTooLarge",
    "ConnectFailed",
    "ConnectTimeout",
    "CreateFailed",
    "ExecutionTimeout",
    "ExitedBeforeConnecting",
    "Forbidden",
    "InternalError",
    "InterruptFailed",
    "KallichoreError",
    "KernelPathNotFound",
    "MethodNotAllowed",
    "NoConnectionInfo",
    "NoKernelInfo",
    "NoProcess",
    "NotFound",
    "ProcessExited",
    "ProcessNotFound",
    "ProxyFailed",
    "RegistrationFailed",
    "RestartFailed",
    "ServerStopping",
    "SessionExists",
    "SessionNotFound",
    "SessionNotReady",
    "SessionNotRunning",
    "SessionRunning",
    "SocketPathTooLong",
    "SpawnFailed",
    "StartFailed",
    "StartupFailed",
    "StartupRefusal",
    "TooManySessions",
]


class KallichoreError(Exception):
    """An error with a code. `status` is the HTTP status where the operation names no other."""

    code: ClassVar[str]
    status: ClassVar[int] = 500
    empty_body: ClassVar[bool] = False
    """The answer has this status and no body at all."""

    def __init__(self, message: str, details: str | None = None) -> None:
        """Say what is wrong, and optionally what else is known of it."""
        super().__init__(message)
        self.message = message
        self.details = details

    def with_details(self, details: str | None) -> Self:
        """Set `details`, and return the error itself."""
        self.details = details
        return self

    def to_model(self) -> Error:
        """The error object of the answer."""
        return Error(code=self.code, message=self.message, details=self.details)


class SessionExists(KallichoreError):
    """A session with this id is there already."""

    code = "KS-0"
    status = 400

    def __init__(self, session_id: str) -> None:
        super().__init__(f"Session {session_id} already exists")


class SessionNotFound(KallichoreError):
    """No session has this id. The answer is an empty 404; the text is for other places."""

    code = "KS-1"
    status = 404
    empty_body = True

    def __init__(self, session_id: str) -> None:
        super().__init__(f"Session {session_id} not found")


class SessionRunning(KallichoreError):
    """The operation needs a session without a kernel."""

    code = "KS-2"
    status = 400

    def __init__(self, session_id: str) -> None:
        super().__init__(f"Session {session_id} is running")


class SessionNotRunning(KallichoreError):
    """The operation needs a session with a kernel."""

    code = "KS-3"
    status = 400

    def __init__(self, session_id: str) -> None:
        super().__init__(f"Session {session_id} is not running")


class ProcessNotFound(KallichoreError):
    """The kernel's process has vanished, or cannot be signalled."""

    code = "KS-4"
    status = 400

    def __init__(self, pid: int, session_id: str) -> None:
        super().__init__(f"Can't find process {pid} for session {session_id}")


class SpawnFailed(KallichoreError):
    """The operating system did not start the process."""

    code = "KS-5"

    def __init__(self, why: str) -> None:
        super().__init__(f"Failed to start process for session: {why}")


class ConnectFailed(KallichoreError):
    """The kernel's sockets could not be connected."""

    code = "KS-6"

    def __init__(self, why: str) -> None:
        super().__init__(f"Failed to connect to session's ZeroMQ sockets: {why}")


class ConnectTimeout(KallichoreError):
    """The kernel's sockets were never connected."""

    code = "KS-7"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"Timed out waiting to connect to session's ZeroMQ sockets after {seconds:g} seconds"
        )


class ProcessExited(KallichoreError):
    """The process ended while it started; `how` is like ``exit status: 1``."""

    code = "KS-8"

    def __init__(self, how: str) -> None:
        super().__init__(f"The process exited abnormally ({how})")


class CreateFailed(KallichoreError):
    """The session could not be created."""

    code = "KS-9"
    status = 400

    def __init__(self, session_id: str, why: str) -> None:
        super().__init__(f"Failed to create session {session_id}: {why}")


class InterruptFailed(KallichoreError):
    """The kernel could not be interrupted."""

    code = "KS-10"
    status = 400

    def __init__(self, session_id: str, why: str) -> None:
        super().__init__(f"Failed to interrupt session {session_id}: {why}")


class ProxyFailed(KallichoreError):
    """Messages could not be passed between the client and the kernel."""

    code = "KS-11"

    def __init__(self, why: str) -> None:
        super().__init__(f"Error receiving or proxying ZeroMQ messages: {why}")


class NoProcess(KallichoreError):
    """The session has no process of ours."""

    code = "KS-12"
    status = 400

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"There is no process associated with session {session_id} (has it exited?)"
        )


class RestartFailed(KallichoreError):
    """The kernel was not restarted."""

    code = "KS-13"

    def __init__(self, why: str) -> None:
        super().__init__(f"Failed to restart kernel: {why}")


class ExitedBeforeConnecting(KallichoreError):
    """The kernel ended before it registered."""

    code = "KS-14"

    def __init__(self) -> None:
        super().__init__("The kernel exited before a connection could be established")


class NoKernelInfo(KallichoreError):
    """The kernel is connected and does not say what it is."""

    code = "KS-15"

    def __init__(self, why: str) -> None:
        super().__init__(f"Failed to get kernel info from the kernel process: {why}")


class StartFailed(KallichoreError):
    """The kernel did not start for a reason without a code of its own."""

    code = "KS-16"

    def __init__(self, why: str) -> None:
        super().__init__(f"Failed to start kernel: {why}")


class RegistrationFailed(KallichoreError):
    """The kernel did not register (JEP 66)."""

    code = "KS-17"

    def __init__(self, session_id: str, why: str) -> None:
        super().__init__(f"JEP 66 handshake failed for session {session_id}: {why}")


class NoConnectionInfo(KallichoreError):
    """The session's ports are not known."""

    code = "KS-18"

    def __init__(self, session_id: str, why: str) -> None:
        super().__init__(f"Connection information is not available for session {session_id}: {why}")


class KernelPathNotFound(KallichoreError):
    """The first argument is no program."""

    code = "KS-19"
    status = 400

    def __init__(self, argv0: str) -> None:
        super().__init__(f"Kernel path not found: {argv0}")


class BadRequest(KallichoreError):
    """The request cannot be understood; the message names the field and what was expected."""

    code = "bad_request"
    status = 400


class SocketPathTooLong(KallichoreError):
    """The operating system takes no socket path of this length."""

    code = "socket_path_too_long"
    status = 400

    def __init__(self, path: str, limit: int) -> None:
        super().__init__(
            f"The socket path {path} has {len(path.encode(errors='surrogateescape'))} bytes; "
            f"at most {limit} are possible"
        )


class SessionNotReady(KallichoreError):
    """The session's kernel cannot run code now."""

    code = "session_not_ready"
    status = 400

    def __init__(self, session_id: str, why: str) -> None:
        super().__init__(f"Session {session_id} cannot run code: {why}")


class ExecutionTimeout(KallichoreError):
    """The code took longer than the caller allowed."""

    code = "timeout"
    status = 408

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The code did not finish within {seconds:g} seconds")


class TooManySessions(KallichoreError):
    """The server has as many sessions as it may."""

    code = "too_many_sessions"
    status = 400

    def __init__(self, limit: int) -> None:
        super().__init__(f"There are {limit} sessions already, and no more are allowed")


class NotFound(KallichoreError):
    """No operation has this path."""

    code = "not_found"
    status = 404

    def __init__(self, path: str) -> None:
        super().__init__(f"There is nothing at {path}")


class MethodNotAllowed(KallichoreError):
    """The path has operations, but none with this method."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"{path} has no method {method}")


class Forbidden(KallichoreError):
    """The request comes from where none may come (Host, Origin)."""

    code = "forbidden"
    status = 403


class BodyTooLarge(KallichoreError):
    """The request's body is over the limit."""

    code = "body_too_large"
    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request's body has more than {limit} bytes")


class ServerStopping(KallichoreError):
    """The server is shutting down and starts nothing new."""

    code = "server_stopping"
    status = 503

    def __init__(self) -> None:
        super().__init__("The server is shutting down")


class InternalError(KallichoreError):
    """A fault of ours; the log has the rest."""

    code = "internal_error"

    def __init__(self) -> None:
        super().__init__("The server failed to answer this request; its log says why")


class StartupFailed(Exception):
    """A start or restart failed: the error, and what the process left behind."""

    status: ClassVar[int] = 500

    def __init__(
        self, error: KallichoreError, exit_code: int | None = None, output: str | None = None
    ) -> None:
        """Keep the error together with the exit code and the output, where they are known."""
        super().__init__(error.message)
        self.error = error
        self.exit_code = exit_code
        self.output = output

    def to_model(self) -> StartupError:
        """The body of the answer."""
        return StartupError(
            exit_code=self.exit_code, output=self.output, error=self.error.to_model()
        )


class StartupRefusal(Exception):
    """The server cannot start; the one sentence is what the person at the terminal sees."""
