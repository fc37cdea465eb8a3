"""TopFive beside other model servers: ``python bench/compare.py [--quick]``. Needs ``hey`` (Debian's package).

One after the other on this machine, with the same pictures, the same closed loop and seeded random weights: decode and
engine in a loop (the limit), TopFive in each way that it can be served (``servers.OURS``), and MOSEC, LitServe, BentoML
and Ray Serve's own batching, each as its tutorial writes it (t) and with TopFive's graph, threads and decode (s). Every
round starts every server once a network. Results are kept after every cell; ``--resume`` goes on where a run was cut
off.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import load
import report
from load import Workload
from servers import OURS, ROOT, Server, StartError, export, make_peers_venv, running, servers

LIMIT = "limit"
CONNECTIONS = {"lenet5": (1, 64), "googlenet": (1, 16), "alexnet": (16,), "vgg16": (16,)}
SLOW = {"vgg16": 3.0}
"""How much longer than the others' a network's window is, for enough batches to be in it."""
QUICK_NETWORKS = ("lenet5", "googlenet")
QUICK_SERVERS = (LIMIT, "topfive", "solo", "mosec-s", "mosec-t")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    options = arguments()
    if shutil.which("hey") is None:
        raise SystemExit("hey is not installed: apt-get install hey")
    # A polite end, so that servers are ended on the way out.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    cores = len(os.sched_getaffinity(0))
    path = options.output or RESULTS / f"cpu-{cores}-cores{'-quick' if options.quick else ''}.json"
    results = report.read(path) if options.resume or options.report else None
    if options.report:
        if results is None:
            raise SystemExit(f"there is no {path}")
        return show(results, path, options.markdown)
    results = results or {"machine": report.machine(cores), "started": now(), "cells": []}
    # What did not start is tried again.
    results["cells"] = [cell for cell in results["cells"] if "failure" not in cell]
    results["settings"] = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "warm_up_s": options.warm_up,
        "max_batch_size": 16,
        "threads": cores,
    }
    if set(options.servers) - {LIMIT, *(server.key for server in OURS)}:
        make_peers_venv()
    results["versions"] = report.versions()
    give_up = time.monotonic() + options.minutes * 60
    with tempfile.TemporaryDirectory(prefix="topfive-bench-") as name:
        for round_, network, key in plan(options):
            todo = [w for w in workloads(network, options) if not measured(results, round_, key, w)]
            if not todo:
                continue
            if time.monotonic() > give_up:
                print(f"{options.minutes:.0f} minutes are over; --resume goes on", flush=True)
                break
            for workload, figures in figures_of(key, todo, Path(name), cores, options.warm_up):
                cell = {"server": key, "round": round_, **load.described(workload), **figures, "at": now()}
                results["cells"].append(cell)
                report.save(results, path)
                print(report.line(cell), flush=True)
    return show(results, path, options.markdown)


def arguments() -> argparse.Namespace:
    known = [LIMIT, *servers()]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="two networks, of the others MOSEC alone: at most ten minutes"
    )
    parser.add_argument("--networks", nargs="+", choices=CONNECTIONS, metavar="NAME", help=", ".join(CONNECTIONS))
    parser.add_argument("--servers", nargs="+", choices=known, metavar="KEY", help=", ".join(known))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--seconds", type=float, help="window of a cell: 10, or 5 with --quick; vgg16 takes thrice that"
    )
    parser.add_argument("--warm-up", type=float, default=2, help="seconds of the same load before each window")
    parser.add_argument("--minutes", type=float, help="no server is started after these: 60, or 10 with --quick")
    parser.add_argument("--output", type=Path, help="by default a file below bench/results named for the machine")
    parser.add_argument("--resume", action="store_true", help="keep what the file has, and measure the rest")
    parser.add_argument("--report", action="store_true", help="measure nothing, show what the file has")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/load.md as well")
    options = parser.parse_args()
    options.networks = options.networks or list(QUICK_NETWORKS if options.quick else CONNECTIONS)
    options.servers = options.servers or list(QUICK_SERVERS if options.quick else known)
    options.seconds = options.seconds or (5 if options.quick else 10)
    options.minutes = options.minutes or (10 if options.quick else 60)
    return options


def plan(options: argparse.Namespace) -> Iterator[tuple[int, str, str]]:
    """Rounds outermost: what drifts on a shared machine then touches every server alike."""
    for round_ in range(1, options.rounds + 1):
        for network in options.networks:
            for key in options.servers:
                yield round_, network, key


def workloads(network: str, options: argparse.Namespace) -> list[Workload]:
    seconds = options.seconds * SLOW.get(network, 1)
    return [Workload(network, connections, seconds) for connections in CONNECTIONS[network]]


def measured(results: dict[str, Any], round_: int, key: str, workload: Workload) -> bool:
    wanted = (key, round_, workload.network, workload.connections)
    return any((c["server"], c["round"], c["network"], c["connections"]) == wanted for c in results["cells"])


def figures_of(
    key: str, todo: list[Workload], folder: Path, threads: int, warm_up_s: float
) -> Iterator[tuple[Workload, dict[str, Any]]]:
    """The figures of one server for one network; a server that does not start has errors instead."""
    network = todo[0].network
    picture = load.digit(folder) if network == "lenet5" else load.photograph(folder)
    if key == LIMIT:
        for workload in todo:
            yield workload, load.limit(workload, picture, threads)
        return
    server: Server = servers()[key]
    body = server.body(picture.path.read_bytes(), picture.content_type)
    done = 0
    try:
        if server not in OURS:
            export(network, folder)
        started = time.monotonic()
        with running(server, network, folder, body, threads) as up:
            start_s = time.monotonic() - started
            classes = report.classes_in(up.answer)
            for workload in todo:
                figures = load.measure(up, body, workload, warm_up_s, folder)
                done += 1
                yield workload, {**figures, "start_s": round(start_s, 1), "classes": classes}
    except (StartError, subprocess.SubprocessError) as error:
        print(f"{key}, {network}: {error}", file=sys.stderr, flush=True)
        for workload in todo[done:]:
            yield workload, {"errors": 1, "failure": str(error).splitlines()[0]}


def show(results: dict[str, Any], path: Path, markdown: bool) -> None:
    titles = {LIMIT: "limit: decode and engine, no HTTP"} | {k: s.title for k, s in servers().items()}
    report.table(results, titles)
    picture = path.with_suffix(".png")
    report.plot(results, titles, picture)
    print(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}, {picture.name}")
    if markdown:
        print(report.markdown(results, titles))


def interrupted(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    main()
