"""Stands in for Locust: writes the results that a queue in front of one server would have given, at once.

What networks take, what goes wrong and when comes from the JSON file that PRETENDED_LOCUST names.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

#: As ``loadreport.locust_process.COMMAND``.
#: Without the environment's packages, which it needs none of, it starts in a third of the time.
COMMAND = (sys.executable, "-I", "-S", str(Path(__file__).resolve()))


def pretend(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    service_s: Mapping[str, float] | None = None,
    refused: int = 0,
    trouble: Mapping[str, str] | None = None,
) -> Path:
    """Puts it in Locust's place; returns the file that has a line for each run.

    Args:
        service_s: by network, the time a picture takes; 20 ms for others.
        trouble: by the number of the run: crash, silent (no results), foreign or cut (results), failing, hang.
    """
    from loadreport import locust_process

    log = folder / "runs.log"
    log.write_text("")
    world = {"service_s": service_s or {}, "refused": refused, "trouble": trouble or {}, "log": str(log)}
    (folder / "world.json").write_text(json.dumps(world))
    monkeypatch.setenv("PRETENDED_LOCUST", str(folder / "world.json"))
    monkeypatch.setattr(locust_process, "COMMAND", COMMAND)
    return log


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("-f", "--host", "--results", "--model", "--arrivals", "--pictures", "--run-time"):
        parser.add_argument(name)
    for name in ("--users", "--spawn-rate", "--seed"):
        parser.add_argument(name, type=int)
    for name in ("--rate", "--warm-up"):
        parser.add_argument(name, type=float)
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("user", choices=["ClassifyUser", "BudgetUser"])
    asked = parser.parse_args()
    world = json.loads(Path(os.environ["PRETENDED_LOCUST"]).read_text())
    foreign = [name for name in os.environ if name.startswith(("LOCUST_", "TOPFIVE_LOADTEST_"))]
    with Path(world["log"]).open("a") as log:
        log.write(json.dumps({**vars(asked), "foreign": foreign}) + "\n")
    calls = len(Path(world["log"]).read_text().splitlines())
    trouble = world["trouble"].get(str(calls), "")
    if trouble == "crash":
        print("Traceback (most recent call last):\nValueError: no such thing", file=sys.stderr)
        return 3
    if trouble == "silent":
        return 0
    partial = trouble == "cut" or (trouble == "hang" and interrupted(Path(world["log"])))
    seconds = float(asked.run_time.removesuffix("s")) - asked.warm_up
    results = document(asked, world, seconds, partial)
    if trouble == "failing":
        results["failures"] = {"connection refused": results["sent"]}
        results |= {"answered": 0, "pictures": 0, "pictures_per_second": 0.0, "latency_ms": summary([])}
    if trouble == "foreign":
        results["format"] = 2
    Path(asked.results).write_text(json.dumps(results))
    return 1 if results["failures"] else 0


def interrupted(log: Path) -> bool:
    """Waits for SIGINT as a run does, and writes a file that says so; nothing else but SIGKILL ends it."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, lambda number, _: told.append(number))
    log.with_suffix(".hanging").write_text(str(os.getpid()))
    give_up = time.monotonic() + 60
    while not told and time.monotonic() < give_up:
        time.sleep(0.01)
    return True


def document(asked: Any, world: dict[str, Any], seconds: float, partial: bool) -> dict[str, Any]:
    service_s = world["service_s"].get(asked.model, 0.02)
    if asked.rate is None:
        latencies = [service_s * asked.users] * max(1, int(seconds / service_s))
    else:
        latencies = queue(asked.rate, seconds, service_s, asked.seed)
    refused = world["refused"] if asked.user == "BudgetUser" else 0
    budgets = {
        "latency_ms=150": budget(latencies, 150.0, refused),
        "memory_mb=100": budget(latencies, None, 0),
    }
    return {
        "format": 1,
        "host": asked.host,
        "partial": partial,
        "window_s": seconds,
        "sent": len(latencies) + refused,
        "answered": len(latencies),
        "pictures": len(latencies),
        "pictures_per_second": len(latencies) / max(seconds, latencies[-1]),
        "unsent": 0,
        "unanswered": 0,
        "latency_ms": summary(latencies),
        "lag_ms": summary([0.001]),
        "phases_ms": {"decode": summary([0.002]), "queue": summary([0.001]), "forward": summary([service_s])},
        "refused": {"/problems/no-model-fits": refused} if refused else {},
        "failures": {},
        "by_model": {str(asked.model or "a").partition("@")[0]: {"pictures": len(latencies), "mean_batch_size": 1.0}},
        "by_budget": budgets if asked.user == "BudgetUser" else {},
        "generator": {"cpu_share": 0.1, "bottleneck": False},
    }


def queue(rate: float, seconds: float, service_s: float, seed: int) -> list[float]:
    """Latencies of Poisson arrivals at one server that takes the same time for each."""
    source, due, free = random.Random(seed), 0.0, 0.0
    found: list[float] = []
    while True:
        due += source.expovariate(rate)
        if due > seconds and found:
            return found
        free = max(free, due) + service_s
        found.append(free - due)


def budget(latencies: list[float], budget_ms: float | None, refused: int) -> dict[str, Any]:
    met = sum(budget_ms is None or latency * 1000 <= budget_ms for latency in latencies)
    count = len(latencies)
    return {
        "budget_ms": budget_ms,
        "sent": count + refused,
        "accepted": count,
        "refused": refused,
        "met": met,
        "latency_ms": summary(latencies),
    }


def summary(values_s: list[float]) -> dict[str, Any]:
    """As Locust's results have it, in milliseconds."""
    if not values_s:
        return {"count": 0, "mean": None, "p50": None, "p90": None, "p95": None, "p99": None, "max": None}
    ordered = sorted(1000 * value for value in values_s)
    quantile = {f"p{q}": ordered[min(len(ordered) - 1, int(q / 100 * len(ordered)))] for q in (50, 90, 95, 99)}
    return {"count": len(ordered), "mean": sum(ordered) / len(ordered), **quantile, "max": ordered[-1]}


if __name__ == "__main__":
    sys.exit(main())
