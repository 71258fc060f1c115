"""What can go wrong for a client: whose fault it was, and one sentence for a person.

`ClientError` is the root. `ServerGone` and `ChannelClosed` are the world's doing, `RequestFailed`
and what derives from it is the server's considered answer, the rest are the caller's mistakes.
"""

from __future__ import annotations

__all__ = [
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
]


class ClientError(Exception):
    """Anything this library raises of its own; ``str()`` is a sentence for a person."""


class BadTarget(ClientError):
    """An address, connection file or token that cannot be used."""


class KernelspecNotFound(ClientError):
    """No kernelspec of that name, or one that cannot be read."""


class ServerGone(ClientError):
    """Nobody answers at the server's address, or the connection broke in the middle."""


class UnusableRequest(ClientError):
    """A request that cannot be sent: something in it cannot be said in JSON."""


class UnexpectedAnswer(ClientError):
    """The answer is not one that a Kallichore server gives."""


class LaunchFailed(ClientError):
    """A server that we started did not come up.

    Attributes:
        output: the last of what it wrote to stdout and stderr.
    """

    def __init__(self, sentence: str, output: str) -> None:
        """Make the error; the output becomes a part of the sentence when there is any."""
        super().__init__(f"{sentence}\n{output}".rstrip())
        self.output = output


class RequestFailed(ClientError):
    """The server refused a request.

    Attributes:
        status: the HTTP status.
        code: ``KS-2`` or a word such as ``session_not_ready``; made of the status where the
            server gave none.
        message: the server's sentence.
        details: more of it, if the server said more.
    """

    def __init__(self, status: int, code: str, message: str, details: str | None = None) -> None:
        """Make the error from the members of the server's error object."""
        super().__init__(f"{message} ({code})")
        self.status = status
        self.code = code
        self.message = message
        self.details = details


class TokenRefused(RequestFailed):
    """401: the token is missing or wrong."""


class SessionUnknown(RequestFailed):
    """404 without a body: there is no session of that id."""


class StartFailed(RequestFailed):
    """A kernel did not start, or did not start again.

    Attributes:
        exit_code: the kernel's exit code, if it ran and is gone.
        output: what it wrote to stdout and stderr, if it ran.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: str | None = None,
        *,
        exit_code: int | None = None,
        output: str | None = None,
    ) -> None:
        """Make the error from the members of the server's start-up error."""
        super().__init__(status, code, message, details)
        self.exit_code = exit_code
        self.output = output


class ChannelClosed(ClientError):
    """The channel has ended.

    Attributes:
        close_code: the WebSocket close code; 1000 for an ordinary end (the session was deleted,
            or we closed), 1001 for a server that shut down, 1006 for a connection that broke.
    """

    def __init__(self, close_code: int, sentence: str) -> None:
        """Make the error from the close frame."""
        super().__init__(sentence)
        self.close_code = close_code


class TakenOver(ChannelClosed):
    """Another client has connected to the session; do not reconnect of your own accord."""
