"""How a kernel's process is started: its arguments, its environment and its startup step.

Decides only; `kallichore.kernel.process` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["SERVER_MARK", "SESSION_MARK", "Launch", "StartupStep"]

SESSION_MARK: Final = "KALLICHORE_SESSION"
"""The environment variable by which a kernel's descendants are found: the session's id."""
SERVER_MARK: Final = "KALLICHORE_SERVER"
"""The same for the server: its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupStep:
    """What a shell does before it becomes the kernel."""

    shell: str
    argument: str
    marker_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything needed to start a process."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    startup: StartupStep | None = None
