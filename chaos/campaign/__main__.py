"""`python -m chaos.campaign`: a campaign of faults, with its table and verdict."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from chaos.campaign.campaign import Options, check_again, run_campaign, table
from chaos.worlds.worlds import WORLDS, make_world


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.campaign", description=__doc__)
    parser.add_argument("--faults", type=int, default=int(os.environ.get("FAULTS", "200")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FAULT_SEED", "1")))
    parser.add_argument("--world", choices=WORLDS, default=os.environ.get("FAULT_WORLD", WORLDS[0]))
    parser.add_argument("--rate", type=float, default=1_000.0, help="commands per second of all clients together")
    parser.add_argument("--keep", type=Path, help="an empty or new directory that keeps logs and history")
    parser.add_argument("--check", type=Path, help="check a kept campaign again instead of running one")
    options = parser.parse_args()
    if options.check:
        report = check_again(options.check)
        print(table(report))
        return 0 if report.is_good else 1
    directory = options.keep or Path(tempfile.mkdtemp(prefix="evenkeel-faults-"))
    print(f"logs and history in {directory}", flush=True)
    world = make_world(options.world, directory / "data")
    campaign = Options(options.seed, options.faults, options.rate)
    report = run_campaign(world, directory, campaign, lambda line: print(line, flush=True))
    print(table(report))
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
