"""Changes to a kernel's environment variables."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from kallichore.models.base import EnvName, Text

__all__ = ["EnvVarActions", "VarAction", "VarActionType"]


class VarActionType(StrEnum):
    """What to do with a variable's value."""

    REPLACE = "replace"
    APPEND = "append"
    PREPEND = "prepend"


class VarAction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change to one environment variable."""

    action: VarActionType
    name: EnvName
    value: Text


EnvVarActions = list[VarAction]
