"""What the server answers when something went wrong."""

from __future__ import annotations

import msgspec

__all__ = ["Error", "StartupError"]


class Error(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error with its stable code."""

    code: str
    message: str
    details: str | None = None


class StartupError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a kernel did not start, with what it left behind."""

    exit_code: int | None = None
    output: str | None = None
    error: Error
