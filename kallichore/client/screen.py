"""What `kcclient execute -w` and `listen` show of the messages of a kernel."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec

from kallichore import models
from kallichore.client.messages import (
    ClientDisconnected,
    Exited,
    FrameRefused,
    JupyterMessage,
    Output,
    WorkingDirChanged,
)

if TYPE_CHECKING:
    from kallichore.client.messages import Event

__all__ = ["Screen"]

_COLORS: Final = re.compile(r"\x1b\[[0-9;]*m")


class Screen:
    """Shows messages as they arrive: output as the kernel meant it, or one JSON line each."""

    def __init__(self, *, as_json: bool) -> None:
        """Write to the process's stdout and stderr."""
        self._as_json = as_json
        self._raised = False

    def show(self, message: JupyterMessage) -> None:
        """Show a message of the kernel, if it is one that people look at."""
        if self._as_json:
            _write(sys.stdout, msgspec.json.encode(message).decode() + "\n")
            return
        content = message.content
        match message.type:
            case "stream":
                target = sys.stderr if content.get("name") == "stderr" else sys.stdout
                _write(target, _text(content.get("text")))
            case "execute_result" | "display_data" | "update_display_data":
                self._show_display(content.get("data"))
            case "error":
                self._show_error(content)
            case "execute_reply":
                self._show_failure(content)
            case _:
                pass

    def show_event(self, event: Event) -> None:
        """Show an event of the supervisor."""
        match event:
            case models.StatusChange(status=status, reason=reason):
                _note(f"{status} ({reason})" if reason else str(status))
            case Output(stream=stream, text=text):
                _write(sys.stderr if stream is models.StreamName.STDERR else sys.stdout, text)
            case Exited(exit_code=code):
                _note(f"the kernel has ended with exit code {code}")
            case WorkingDirChanged(path=path):
                _note(f"the working directory is {path}")
            case models.ExecutionRequested(code=code):
                _note(f"somebody else runs: {code}")
            case ClientDisconnected(reason=reason):
                _note(reason)
            case FrameRefused(error=error):
                _note(error.message)
            case _:
                pass

    def _show_display(self, data: object) -> None:
        """Show a display's plain text, and its MIME types where there are better ones."""
        bundle = data if isinstance(data, dict) else {}
        if "text/plain" in bundle:
            _write(sys.stdout, _text(bundle["text/plain"]) + "\n")
        if set(bundle) != {"text/plain"}:
            _write(sys.stdout, f"[{', '.join(sorted(bundle))}]\n")

    def _show_error(self, content: dict[str, Any]) -> None:
        self._raised = True
        traceback = content.get("traceback")
        lines = [_text(line) for line in traceback] if isinstance(traceback, list) else []
        text = "\n".join(lines) or f"{content.get('ename')}: {content.get('evalue')}"
        _write(sys.stderr, text if sys.stderr.isatty() else _COLORS.sub("", text))
        _write(sys.stderr, "\n")

    def _show_failure(self, content: dict[str, Any]) -> None:
        """Say what a reply says that no output has said."""
        if content.get("status") == "aborted":
            _note("the kernel did not run this")
        elif content.get("status") == "error" and not self._raised:
            self._show_error(content)


def _text(value: object) -> str:
    """Join what nbformat would split into lines."""
    if isinstance(value, list):
        return "".join(map(str, value))
    return value if isinstance(value, str) else str(value)


def _write(target: TextIO, text: str) -> None:
    # A lone surrogate in a kernel's text is no reason to die.
    target.write(text.encode("utf-8", "replace").decode())
    target.flush()


def _note(text: str) -> None:
    _write(sys.stderr, f"[{text}]\n")
