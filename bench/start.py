"""What a cached graph saves: ``python bench/start.py [NETWORK] [--rounds N]``.

``topfive serve`` with the CPU's own engine, which needs no torch where the graph is in the cache, and with torch;
interleaved. Seconds until the first answer, and resident memory of the replica then, medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import load
from servers import FLEET, running, servers

ENGINES = ("onnx_cpu", "torch_cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", nargs="?", default="googlenet")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    server = servers()["topfive"]
    seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    megabytes: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory(prefix="topfive-bench-") as name:
        folder = Path(name)
        picture = load.digit(folder) if options.network == "lenet5" else load.photograph(folder)
        body = server.body(picture.path.read_bytes(), picture.content_type)
        # Once more than is counted: the first start exports the graph.
        for round_ in range(options.rounds + 1):
            for engine in ENGINES:
                configured = replace(server, fleet=f'{FLEET}engine = "{engine}"\n')
                started = time.monotonic()
                with running(configured, options.network, folder, body, os.cpu_count() or 1) as up:
                    if round_:
                        seconds[engine].append(time.monotonic() - started)
                        megabytes[engine].append(up.tree.memory_mb()[1])
    for engine in ENGINES:
        median_s, median_mb = statistics.median(seconds[engine]), statistics.median(megabytes[engine])
        print(f"{options.network}, {engine:9}: first answer after {median_s:.1f} s, replica {median_mb:.0f} MB")


if __name__ == "__main__":
    main()
