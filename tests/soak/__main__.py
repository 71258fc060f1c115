"""``python -m tests.soak --minutes N``: soak a server, print the report; 1 if a check failed."""

from __future__ import annotations

import argparse
import random
import sys
from functools import partial
from pathlib import Path

import trio

from tests.soak.report import write
from tests.soak.rounds import soak


def main() -> int:
    """Read the arguments, soak, and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long (default 2)")
    parser.add_argument("--seed", type=int, help="of all decisions; a random one if not given")
    parser.add_argument("--transport", choices=["socket", "tcp"], default="socket")
    parser.add_argument("--report", type=Path, help="write the report there, too")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    course = trio.run(partial(soak, options.minutes, seed, options.transport))
    report = write(course)
    print(report)
    if options.report is not None:
        options.report.write_text(report, encoding="utf-8")
    return 0 if course.passed else 1


if __name__ == "__main__":
    sys.exit(main())
