"""Mixed budgets on the real service: ``python bench/budgets.py [--quick]``.

Finds the most answers within their budgets that the service gives a second, then runs at 70 % of that, through a burst
of three times as much, and through a minute of it. Prints what came of it, and exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
from load import photograph
from open_loop import Outcome, arrivals, goodput, prediction_error, send
from running import Service

#: Beyond its budget an answer is late; by so much it may be so because of the client and the network.
GRACE_MS = 100.0


class Bench:
    """One service, and the photograph that it gets."""

    def __init__(self, service: Service, picture: bytes) -> None:
        self._service = service
        self._picture = picture
        self._seed = 0

    def run(self, *phases: tuple[float, float], resend: bool = False) -> list[Outcome]:
        """Phases of (requests a second, seconds), one after the other."""
        due, start = list[tuple[float, str]](), 0.0
        for rate, seconds in phases:
            self._seed += 1
            due += arrivals(rate, seconds, self._seed, start)
            start += seconds
        return asyncio.run(send(self._service.url, self._picture, due, resend=resend))

    def peak(self, seconds: float) -> tuple[float, float]:
        """The highest goodput, and the rate at which it is: more is asked for until that brings nothing any more. The
        best of several short looks was lucky too, so that the figure is of a look four times as long at that rate."""
        best, best_rate, rate = 0.0, 0.0, 10.0
        while rate < 2.5 * max(best, 10.0):
            good = goodput(self.run((rate, seconds)), seconds)
            print(f"  {rate:5.1f} requests/s: {good:5.1f} within budget", flush=True)
            best, best_rate = max((best, best_rate), (good, rate))
            rate *= 1.35
        return goodput(self.run((best_rate, 4 * seconds)), 4 * seconds), best_rate


class Memory:
    """Resident memory of the replica, sampled."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self.samples: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Memory:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(0.2):
            self.samples.append((time.monotonic() - self._began, self._process.memory_info().rss / 1e6))

    def mean(self, start: float, end: float) -> float:
        return statistics.fmean(size for when, size in self.samples if start <= when < end)


def describe(outcomes: Sequence[Outcome]) -> str:
    statuses = Counter(outcome.status for outcome in outcomes)
    models = Counter(outcome.model for outcome in outcomes if outcome.model)
    return f"statuses {dict(sorted(statuses.items()))}, answered by {dict(models.most_common())}"


def steady(bench: Bench, peak: float, seconds: float) -> bool:
    outcomes = bench.run((0.7 * peak, seconds))
    accepted = [o for o in outcomes if o.status not in (422, 429)]
    within, error = sum(o.good for o in accepted) / len(accepted), prediction_error(outcomes)
    print(f"70 %: {within:.2%} of {len(accepted)} accepted within their budgets (>= 99 %); {describe(outcomes)}")
    print(f"70 %: median |predicted - actual| / actual {error:.1%} (<= 20 %)", flush=True)
    return within >= 0.99 and error <= 0.20


def burst(bench: Bench, peak: float, calm_s: float) -> bool:
    outcomes = bench.run((3 * peak, 5.0), (0.3 * peak, calm_s), resend=True)
    late = [o for o in outcomes if o.took_ms > o.budget_ms + GRACE_MS]
    again = [o for o in outcomes if o.again]
    succeeded = sum(o.status == 200 for o in again) / max(1, len(again))
    waits = [o.retry_after_s for o in outcomes if o.retry_after_s and not o.again]
    print(f"burst: {len(late)} of {len(outcomes)} waited past their deadlines (0); {describe(outcomes)}")
    print(f"burst: of {len(again)} sent again after Retry-After {succeeded:.1%} succeeded (>= 90 %); ", end="")
    print(f"Retry-After {min(waits, default=0)} to {max(waits, default=0)} s", flush=True)
    return not late and succeeded >= 0.90


def overload(bench: Bench, peak: float, pid: int, seconds: float) -> bool:
    with Memory(pid) as memory:
        outcomes = bench.run((3 * peak, seconds))
    good = goodput(outcomes, seconds)
    third = seconds / 3
    first, last = memory.mean(0, third), memory.mean(2 * third, seconds)
    late = [o for o in outcomes if o.took_ms > o.budget_ms + GRACE_MS]
    print(f"overload: {good:.1f} a second within budget, {good / peak:.0%} of the peak (>= 90 %); {describe(outcomes)}")
    print(f"overload: {len(late)} waited past their deadlines; ", end="")
    print(
        f"RSS {first:.0f} MB in the first third, {last:.0f} in the last, {last / first - 1:+.1%} (<= 5 %)", flush=True
    )
    return good >= 0.9 * peak and abs(last / first - 1) <= 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a third of the time")
    parser.add_argument("--fleet", default="local")
    options = parser.parse_args()
    scale = 1 / 3 if options.quick else 1.0
    service = Service("--untrained", "--fleet", options.fleet)
    service.start(within_s=600)
    try:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(service, photograph(Path(folder)).path.read_bytes())
        bench.run((5.0, 5.0))
        peak, rate = bench.peak(8.0 * scale)
        print(f"peak: {peak:.1f} answers a second within budget, at {rate:.1f} requests a second", flush=True)
        pid = service.replicas()[0]["pid"]
        kept = [
            steady(bench, peak, 60 * scale),
            burst(bench, peak, 30 * scale),
            overload(bench, peak, pid, 60 * scale),
        ]
    finally:
        service.stop()
    raise SystemExit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
