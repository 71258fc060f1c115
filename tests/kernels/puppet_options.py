"""What a test may ask of a puppet when it starts it."""

from __future__ import annotations

import sys
from typing import Any


class Options:
    """What a test may ask for at start, and what happens otherwise."""

    def __init__(self, given: dict[str, Any]) -> None:
        """Take the options; unknown ones are a mistake in the test."""
        self.before: str = given.pop("before", "")  # code run before any socket is bound
        self.ready: str = given.pop("ready", "")  # code run when the sockets are bound
        self.welcome: bool = given.pop("welcome", True)  # send iopub_welcome
        self.quiet: bool = given.pop("quiet", False)  # no busy and idle around kernel_info
        self.mute: bool = given.pop("mute", False)  # never answer kernel_info
        self.key: str | None = given.pop("key", None)  # sign with this instead
        self.info: dict[str, Any] = given.pop("info", {})  # joins the kernel_info_reply
        self.polite: bool = given.pop("polite", True)  # obey shutdown_request
        self.register: list[dict[str, Any]] = given.pop(
            "register", [{}]
        )  # attempts at registration
        self.bind: bool = given.pop("bind", True)  # bind sockets at all
        if given:
            sys.exit(f"unknown options: {sorted(given)}")
