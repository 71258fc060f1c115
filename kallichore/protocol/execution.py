"""One execution, from its request to its last message: what it printed and how it ended.

Two readers: ``/execute`` wants the outputs whole (bounded), the history wants them clipped
(CONTRACT 2.3). Contents are decoded leniently here: what is not as specified has reached the
client untouched and only counts as empty in our own record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from kallichore.models import (
    ExecuteOutput,
    ExecuteOutputType,
    ExecuteReply,
    ExecuteStatus,
    ExecutionError,
    ExecutionHistoryEntry,
)
from kallichore.protocol.lax import lenient

if TYPE_CHECKING:
    from kallichore.protocol.message import ClientMessage, ExecuteContent, KernelMessage

__all__ = ["ClippedText", "Execution", "Origin"]


class _Display(Struct, frozen=True):
    data: dict[str, msgspec.Raw] = {}
    metadata: dict[str, msgspec.Raw] = {}


class ReplyContent(Struct, frozen=True):
    """Content of an `execute_reply` or an `error` message, as far as the server reads it."""

    status: str = "ok"
    execution_count: int | None = None
    ename: str = ""
    evalue: str = ""
    traceback: list[str] = []


class _Attribution(Struct, frozen=True):
    source: str | None = None
    agent_name: str | None = None


class _Metadata(Struct, frozen=True):
    attribution: _Attribution | None = None


class Origin(Struct, frozen=True):
    """Where a request came from."""

    at_ms: int
    """When it was accepted, in Unix milliseconds."""
    injected: bool = False
    """It came through ``/execute``, not from the session's client."""


class ClippedText:
    """Text of which the first and the last half of ``limit`` bytes are kept."""

    def __init__(self, limit: int) -> None:
        """Keep at most ``limit`` bytes of UTF-8, which must be at least 1."""
        self._half = limit // 2
        self._limit = limit
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def add(self, text: str) -> None:
        """Append text."""
        data = text.encode("utf-8", "replace")
        self._total += len(data)
        room = self._limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data[-self._limit :]
        if len(self._tail) > 4 * self._limit:
            del self._tail[: -self._limit]

    @property
    def clipped(self) -> bool:
        """Whether something was left out."""
        return self._total > self._limit

    def text(self) -> str:
        """Give what was kept, with the contract's notice where something was left out."""
        kept = bytes(self._head) + bytes(self._tail)
        if not self.clipped:
            return kept.decode("utf-8", "ignore")
        first = kept[: self._half].decode("utf-8", "ignore")
        last = kept[len(kept) - self._half :].decode("utf-8", "ignore")
        omitted = self._total - len(first.encode()) - len(last.encode())
        return f"{first}\n[... {omitted} bytes omitted ...]\n{last}"


_COLLECTED: Final = frozenset(
    {"stream", "display_data", "update_display_data", "execute_result", "error"}
)


class Execution:
    """An `execute_request` under way, or waiting for its turn."""

    def __init__(
        self,
        message: ClientMessage,
        request: ExecuteContent,
        origin: Origin,
        *,
        history_bytes: int,
        output_bytes: int,
    ) -> None:
        """Take the request; nothing has been observed yet."""
        self.message = message
        self.request = request
        self.origin = origin
        self.reply: ReplyContent | None = None
        self.busy = False
        """Whether the kernel has said that it works on it."""
        self.idle = False
        self.held_since_idle = False
        """It waits behind an execution that was idle already when it came."""
        self.withdrawn = False
        """Nobody waits for it any more; what is behind it does not depend on how it ends."""
        self.ran = False
        """Whether the kernel was given it."""
        self._history_bytes = history_bytes
        self._text = ClippedText(history_bytes)
        self._error: ReplyContent | None = None
        self._room = output_bytes if origin.injected else 0
        self._outputs: list[ExecuteOutput | tuple[str, list[str]]] = []
        self._data: dict[str, str] = {}

    @property
    def msg_id(self) -> str:
        """The request's `msg_id`."""
        return self.message.msg_id

    @property
    def finished(self) -> bool:
        """Whether both the reply and the idle that end an execution have been seen."""
        return self.idle and self.reply is not None

    def replied(self, content: bytes) -> None:
        """Take note of the `execute_reply`."""
        self.reply = lenient(content, ReplyContent)

    def observe(self, message: KernelMessage) -> None:
        """Take note of an iopub message whose parent is this request."""
        kind = message.msg_type
        if kind not in _COLLECTED:
            return
        if kind == "stream":
            self._stream(message)
        elif kind == "error":
            self._failed(lenient(message.content, ReplyContent), len(message.content))
        else:
            self._displayed(kind, lenient(message.content, _Display), len(message.content))

    def _take_room(self, size: int) -> bool:
        if size > self._room:
            self._room = 0
            return False
        self._room -= size
        return True

    def _stream(self, message: KernelMessage) -> None:
        name, text = message.detail, message.text
        self._text.add(text)
        if not self._take_room(len(message.content)):
            return
        if name not in {"stdout", "stderr"}:
            name = "stdout"
        last = self._outputs[-1] if self._outputs else None
        if isinstance(last, tuple) and last[0] == name:
            last[1].append(text)
        else:
            self._outputs.append((name, [text]))

    def _failed(self, error: ReplyContent, size: int) -> None:
        self._error = error
        if self._take_room(size):
            self._outputs.append(
                ExecuteOutput(
                    type=ExecuteOutputType.ERROR,
                    error_name=error.ename,
                    error_message=error.evalue,
                    error_traceback=error.traceback,
                )
            )

    def _displayed(self, kind: str, display: _Display, size: int) -> None:
        data = {mime: _as_text(value) for mime, value in display.data.items()}
        self._text.add(data.get("text/plain", ""))
        if not self._take_room(size):
            return
        if kind == "execute_result":
            self._data = data
        else:
            self._outputs.append(
                ExecuteOutput(
                    type=ExecuteOutputType.DISPLAY_DATA,
                    data=data,
                    metadata=msgspec.Raw(msgspec.json.encode(display.metadata)),
                )
            )

    def result(self) -> ExecuteReply:
        """Give the answer to ``/execute``."""
        reply = self.reply or ReplyContent(status="aborted")
        succeeded = ExecuteReply(
            status=ExecuteStatus.OK,
            execution_count=reply.execution_count or 0,
            output=[_output(output) for output in self._outputs],
            data=self._data or None,
        )
        if reply.status == "ok":
            return succeeded
        aborted = reply.status == "aborted"
        return msgspec.structs.replace(
            succeeded,
            status=ExecuteStatus.ERROR,
            error_name=reply.ename or ("Aborted" if aborted else ""),
            error_message=reply.evalue or ("The execution was aborted" if aborted else ""),
            error_traceback=reply.traceback,
        )

    def history_entry(self) -> ExecutionHistoryEntry:
        """Give what is remembered of it."""
        source = self._clip(self.request.code)
        attribution = lenient(self.message.metadata, _Metadata).attribution or _Attribution()
        error, error_clipped = self._history_error()
        return ExecutionHistoryEntry(
            input=source.text(),
            output=self._text.text(),
            error=error,
            timestamp=self.origin.at_ms,
            source=attribution.source,
            agent=attribution.agent_name,
            truncated=source.clipped or self._text.clipped or error_clipped,
        )

    def _history_error(self) -> tuple[ExecutionError | None, bool]:
        failure = self._error
        if failure is None and self.reply is not None and self.reply.status == "error":
            failure = self.reply
        if failure is None:
            return None, False
        name, message = self._clip(failure.ename), self._clip(failure.evalue)
        traceback = self._clip("\n".join(failure.traceback))
        lines = [traceback.text()] if traceback.clipped else failure.traceback
        error = ExecutionError(name=name.text(), message=message.text(), traceback=lines)
        return error, name.clipped or message.clipped or traceback.clipped

    def _clip(self, text: str) -> ClippedText:
        clipped = ClippedText(self._history_bytes)
        clipped.add(text)
        return clipped


def _output(output: ExecuteOutput | tuple[str, list[str]]) -> ExecuteOutput:
    if isinstance(output, ExecuteOutput):
        return output
    name, pieces = output
    return ExecuteOutput(type=ExecuteOutputType.STREAM, stream_name=name, text="".join(pieces))


def _as_text(value: msgspec.Raw) -> str:
    """Give a MIME bundle's value: strings as they are, anything else as its JSON."""
    text = bytes(value)
    return msgspec.json.decode(text, type=str) if text.startswith(b'"') else text.decode()
