"""Run the benchmarks: ``python -m tests.bench [--quick] [--json FILE] [--only PART] [peers]``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench import bulk, fairness, loss, many, peers, road, starting
from tests.bench.machine import describe
from tests.bench.plan import FULL, QUICK
from tests.bench.report import Figure, progress, save, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.plan import Plan

PARTS: Final[dict[str, Callable[[Plan], list[Figure]]]] = {
    "road": road.measure,
    "bulk": bulk.measure,
    "starting": starting.measure,
    "many": many.measure,
    "fairness": fairness.measure,
    "loss": loss.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, within two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part alone")
    parser.add_argument("peers", nargs="?", choices=["peers"], help="measure other servers instead")
    args = parser.parse_args()
    machine = describe()
    figures: list[Figure] = []
    parts = {"peers": peers.measure} if args.peers else PARTS
    for name, part in parts.items():
        if args.only is None or name in args.only:
            progress(f"measuring: {name}")
            figures += part(QUICK if args.quick else FULL)
    machine["load_average_after"] = list(os.getloadavg())
    print(table(figures))
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    if args.json is not None:
        save(args.json, machine, figures)


if __name__ == "__main__":
    main()
