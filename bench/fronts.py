"""Do two fronts answer more than one? ``python bench/fronts.py [--fronts 1 2]``.

A pretend device (``engine = "pretend"``: 0.2 ms a picture, hardly any CPU) and photographs of 500x375, so that HTTP and
decoding alone limit the rate. Serves a fleet without Ray with each number of fronts, all at once, puts one after the
other under the same closed loop, in rounds, and prints the rates and their ratios to the first: medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import load
from path import GENERATORS
from rounds import Contender, compared, counted, ratio, show
from servers import OURS, Server, without_ray

#: What two fronts must give of one's rate, on two cores or more.
LEAST_OF_TWO = 1.6
_SOLO = next(server for server in OURS if server.key == "solo")


def pretending(fronts: int) -> Server:
    """A service without Ray whose device is pretended."""
    return replace(_SOLO, key=f"fronts-{fronts}", fleet=f'{without_ray(fronts)}engine = "pretend"\n')


def name_of(fronts: int) -> str:
    return f"{fronts} front{'s' * (fronts > 1)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fronts", type=int, nargs="+", default=[1, 2], help="the first is what ratios are to")
    parser.add_argument("--network", default="googlenet", help="whose crops are decoded")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--generator", choices=GENERATORS, default="python")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    workload = load.Workload(options.network, options.connections, options.seconds)
    names = [name_of(fronts) for fronts in options.fronts]
    with tempfile.TemporaryDirectory(prefix="topfive-bench-") as name:
        folder = Path(name)
        # The profile of a device that does not exist stays out of the user's cache.
        os.environ["TOPFIVE_CACHE_DIR"] = str(folder / "cache")
        rounds = compared(
            [Contender(name_of(fronts), pretending(fronts)) for fronts in options.fronts],
            workload,
            load.photograph(folder),
            folder,
            threads=len(os.sched_getaffinity(0)),
            rounds=options.rounds,
            warm_up_s=1.0,
            generate=GENERATORS[options.generator],
        )
    ratios = [ratio(counted(rounds), name, names[0]) for name in names[1:]]
    show(counted(rounds), ratios)
    print(f"two fronts should give {LEAST_OF_TWO} times the rate of one, on two cores or more")
    if options.json is not None:
        written = {"workload": load.described(workload), "rounds": rounds, "ratios": [asdict(r) for r in ratios]}
        options.json.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
