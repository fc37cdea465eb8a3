"""``make bench-gpu``: engine loops, decoding and the service on a machine with a GPU, in one command of a few minutes.

    python -m bench.gpu                      writes bench/results/<the GPU>.json and the tables in docs/gpu.md
    python -m bench.gpu --pretend --minutes 1   the same with an engine that pretends; writes nothing

It needs no network and nothing but the service's own packages. What ``--minutes`` does not suffice for is left out, and
the tables say so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.gpu import decoding, serving
from bench.gpu.budget import Budget
from bench.gpu.pictures import photograph
from bench.gpu.serving import ROOT, Cell, StartError
from bench.gpu.table import markdown, write_section

PAGE, RESULTS = ROOT / "docs" / "gpu.md", ROOT / "bench" / "results"
#: The first two are served.
NETWORKS = ("googlenet", "vgg16", "inception_v3", "alexnet")
_SERVED = 2
#: What a step is taken to need before one was measured: an engine's process, and a start of the service.
_ENGINE_S, _START_S = 30.0, 35.0
#: The load's processes have to start, and to wait for the last answers.
_AROUND_LOAD_S = 3.0


def cells(cores: int) -> list[Cell]:
    """Ways to serve, the most telling first. The owner of the device and the load generator need cores too, so not
    every core gets a front."""
    most = max(1, cores - 2)
    fronts = dict.fromkeys((most, min(4, most), 1))
    first, *rest = fronts
    return [
        Cell("cpu", first),
        Cell("gpu", first),
        *(Cell("cpu", count) for count in rest),
        Cell("gpu", 0),
        Cell("cpu", 0),
    ]


class Bench:
    """One run.

    Args:
        options: of the command line.
        budget: its minutes.
    """

    def __init__(self, options: argparse.Namespace, budget: Budget) -> None:
        self._options = options
        self._budget = budget
        self._cores = len(os.sched_getaffinity(0))
        self.figures: dict[str, Any] = {
            "device": None,
            "torch": None,
            "python": sys.version.split()[0],
            "cores": self._cores,
            "date": datetime.now(UTC).date().isoformat(),
            "minutes": options.minutes,
            "pretended": options.pretend,
            "connections": options.connections,
            "seconds": options.seconds,
            "engines": [],
            "decoding": [],
            "served": [],
            "left_out": budget.left_out,
        }

    def run(self) -> dict[str, Any]:
        """Measures as much as the budget allows, and returns the figures.

        Raises:
            SystemExit: there is no GPU here.
        """
        served, others = NETWORKS[:_SERVED], NETWORKS[_SERVED:]
        for network in served:
            self._engines(network)
        self._decoding()
        self._served(served)
        for network in others:
            self._engines(network)
        self.figures["took_s"] = round(self._budget.took_s, 1)
        return self.figures

    def _engines(self, network: str) -> None:
        step, began = f"engine loops of {network}", self._budget.took_s
        if not self._budget.allows(step, 3.0 if self._options.pretend else _ENGINE_S):
            return
        command = [sys.executable, "-m", "bench.gpu.engines", network, "--seconds", str(self._options.seconds / 4)]
        command += ["--pretend"] * self._options.pretend
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(  # noqa: S603 - our own
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
            late = threading.Timer(self._budget.left_s, process.kill)
            late.start()
            with process:
                assert process.stdout is not None
                for line in process.stdout:
                    row = json.loads(line)
                    if "device" in row:
                        self.figures |= row
                    else:
                        self.figures["engines"].append(row)
            late.cancel()
            log.seek(0)
            code, said = process.returncode, log.read()
        if code and self.figures["device"] is None:
            raise SystemExit(f"no engine runs on a GPU here; --pretend measures without one:\n{said[-500:]}")
        if code:
            self._budget.cut(step, "cut off" if code < 0 else said.strip().rpartition("\n")[2])
        self._say(f"{step}: {self._budget.took_s - began:.0f} s")

    def _decoding(self) -> None:
        seconds = min(2.0, self._options.seconds)
        for processes in decoding.counts(self._cores):
            if self._budget.allows(f"{processes} processes that decode", seconds + 3):
                rate = decoding.measured(processes, seconds, photograph())
                self.figures["decoding"].append({"processes": processes, "per_second": rate})
                self._say(f"{processes} processes decode {rate:.0f} pictures/s")

    def _served(self, networks: Sequence[str]) -> None:
        start_s = 4.0 if self._options.pretend else _START_S
        each_s = 2 * (self._options.seconds + _AROUND_LOAD_S) + 2
        with tempfile.TemporaryDirectory(prefix="topfive-bench-gpu-") as folder:
            for cell in cells(self._cores):
                if not self._budget.allows(cell.name, start_s + each_s * len(networks)):
                    continue
                began = self._budget.took_s
                try:
                    self._cell(cell, networks, Path(folder))
                except (StartError, TimeoutError) as error:
                    self._say(f"{cell.name}: {error}")
                    self._budget.cut(cell.name, str(error).partition("\n")[0])
                self._say(f"{cell.name}: {self._budget.took_s - began:.0f} s")

    def _cell(self, cell: Cell, networks: Sequence[str], folder: Path) -> None:
        options, pretend = self._options, self._options.pretend
        with serving.serving(cell, networks, folder, self._budget.left_s, pretend=pretend) as port:
            for network in networks:
                row = serving.measured(
                    port,
                    network,
                    photograph(),
                    connections=options.connections,
                    processes=max(1, self._cores // 4),
                    seconds=options.seconds,
                    warm_s=options.seconds / 3,
                )
                self.figures["served"].append({"decode": cell.decode, "fronts": cell.fronts, **row})
                self._say(f"  {network}: {row['per_second']:.0f} pictures/s")

    def _say(self, text: str) -> None:
        print(f"{self._budget.took_s:5.0f} s  {text}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m bench.gpu"
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load; engine loops take a quarter")
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--results", type=Path, help="where the figures go, instead of bench/results")
    parser.add_argument("--pretend", action="store_true", help="without a GPU; writes no page")
    options = parser.parse_args(arguments)
    figures = Bench(options, Budget(60 * options.minutes)).run()
    text = markdown(figures)
    print(f"\n{text}")
    results = options.results or (None if options.pretend else RESULTS / f"{_slug(figures['device'])}.json")
    if results is not None:
        results.write_text(json.dumps(figures, indent=1) + "\n")
    if not options.pretend:
        write_section(PAGE, text)


def _slug(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


if __name__ == "__main__":
    main()
