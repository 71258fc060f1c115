"""The server command ``kcserver``: what runs when, and what it exits with.

The order matters: arguments are parsed and validated, then the guardian forks, and only the
supervisor below it imports what is heavy. So nothing may be imported up here that is.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from kallichore.arguments import complain, configuration

if TYPE_CHECKING:
    from kallichore.config import Config

__all__ = ["main"]

INTERRUPTED = 130
"""The exit code after a Ctrl-C that came before the server could handle it."""


def main() -> None:
    """Be the server: returns by `SystemExit` only, with the code that CONTRACT 1.1 names."""
    try:
        config = configuration(sys.argv[1:], os.environ)
        from kallichore import guardian  # noqa: PLC0415 (not for --help or a refusal)

        guardian.guard(config.deadlines.guardian_seconds)
        code = _serve(config)
    except KeyboardInterrupt:  # while something was being imported
        code = INTERRUPTED
    raise SystemExit(code)


def _serve(config: Config) -> int:
    """Run the server until its orderly end. Returns the exit code."""
    import trio  # noqa: PLC0415 (heavy: after the guardian's fork)

    from kallichore import log  # noqa: PLC0415
    from kallichore.errors import StartupRefusal  # noqa: PLC0415

    code = 0
    try:
        log.configure(
            level=config.initial.log_level,
            log_format=config.log_format,
            log_file=config.log_file,
        )
        from kallichore.server import serve  # noqa: PLC0415

        trio.run(serve, config)
    except* StartupRefusal as group:
        for refusal in _leaves(group):
            complain(str(refusal))
        code = 1
    except* KeyboardInterrupt:  # before the server's own handlers stood
        code = INTERRUPTED
    return code


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for exc in group.exceptions:
        found += _leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return found
