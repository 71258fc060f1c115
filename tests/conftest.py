"""What every test shares: how long hypothesis may search, and a logging set-up that is put back."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# In the suite the same examples each time, so that a failure is never luck; `nox -s fuzz` draws
# new ones, and many more.
settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "fuzz", settings.get_profile("suite"), derandomize=False, max_examples=5000
)
settings.load_profile("suite")

# Whoever runs the tests in the background may have these ignored, and so would what they spawn.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        _usual = signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        signal.signal(_number, _usual)


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Put the handlers and levels back that a test of logging has changed."""
    loggers = [logging.getLogger(), logging.getLogger("kallichore")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.setLevel(level)
        logger.handlers[:] = handlers
