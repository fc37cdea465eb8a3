"""How far the engines are from the arithmetic: ``python bench/floor.py [--networks NAME ...]``.

The floor of a network is its multiply-adds over this machine's rate in a large float32 matrix product: no faster than
that can a network run that does the products it is made of. (Winograd's and FFT convolutions do fewer, so that a
network of 3x3 filters may come near it or below.) The engine's milliseconds are medians, a picture in a batch of 1 and
of 16.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
_SIDE = 2048
_BATCHES = (1, 16)
#: Runs a network alone in a process, so that the weights of the last one are gone and threads are its own.
_ENGINE = Path(__file__).parent / "peers" / "limit.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="by default all")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=3, help="of each network and batch size")
    options = parser.parse_args()
    rates = [multiply_adds_per_second(options.threads)]
    rows = []
    for name, multiply_adds in multiply_adds_of(options.networks).items():
        taken = [engine_ms(name, batch, options.threads, options.seconds) for batch in _BATCHES]
        # Between the networks as well: machines are shared, and the rate drifts.
        rates.append(multiply_adds_per_second(options.threads))
        rows.append((name, multiply_adds, taken))
        print(f"{name}: {taken[0]:.2f} and {taken[1]:.2f} ms", file=sys.stderr, flush=True)
    rate = statistics.median(rates)
    table = Table(title=f"{options.threads} threads, {rate / 1e9:.1f} G multiply-adds/s in a matrix product")
    for heading in ("variant", "multiply-adds, M", "floor, ms", "batch 1, ms", "x floor", "batch 16, ms", "x floor"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for name, multiply_adds, taken in rows:
        floor_ms = multiply_adds / rate * 1000
        figures = [text for ms in taken for text in (f"{ms:.2f}", f"{ms / floor_ms:.1f}")]
        table.add_row(name, f"{multiply_adds / 1e6:,.1f}", f"{floor_ms:.3f}", *figures)
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def multiply_adds_of(names: list[str] | None) -> dict[str, int]:
    """Of one picture, as ``topfive models`` counts them."""
    command = [sys.executable, "-m", "service.commands.main", "models", "--json", "--untrained"]
    answer = json.loads(subprocess.check_output(command, cwd=ROOT, timeout=120))  # noqa: S603 - our own
    found = {model["variant"]: model["multiply_adds"] for model in answer["models"]}
    unknown = set(names or ()) - set(found)
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(found)}")
    return {name: found[name] for name in names or found}


def multiply_adds_per_second(threads: int) -> float:
    """Median rate of ten products of two square float32 matrices."""
    import torch

    torch.set_num_threads(threads)
    random = np.random.default_rng(0)
    a, b = (torch.from_numpy(random.standard_normal((_SIDE, _SIDE), np.float32)) for _ in range(2))
    times = []
    for _ in range(12):
        started = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - started)
    return _SIDE**3 / statistics.median(times[2:])


def engine_ms(name: str, batch: int, threads: int, seconds: float) -> float:
    """Median milliseconds of the engine for a picture, in a process of its own."""
    command = [sys.executable, str(_ENGINE), name, "--engine-only", "--batch", str(batch), "--threads", str(threads)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.check_output([*command, "--seconds", str(seconds)], env=environment, timeout=seconds + 240)  # noqa: S603
    figures = json.loads(answer.splitlines()[-1])
    return float(figures["p50_ms"]) / batch


if __name__ == "__main__":
    main()
