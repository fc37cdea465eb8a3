"""Mixed budgets on the real service: ``python bench/budgets.py [--quick]``.

Finds the most answers within their budgets that the service gives a second, then runs at 70 % of that, through a burst
of three times as much, and through a minute of it, and beside a client that ignores Retry-After. The service is started
anew for each. Prints what came of it, and exits with 1 if a promise was broken.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from attacks import attacked, sink
from load import photograph
from open_loop import Outcome, arrivals, goodput, prediction_error, queue_s, send, told_and_took
from running import Service

#: Beyond its budget an answer is late; by so much it may be so because of the client and the network.
GRACE_MS = 100.0
#: Where the polite send from, beside an attacker.
POLITE = "127.0.0.2"
#: An attacker begins so long before them.
_BEFORE_S = 3.0


class Bench:
    """One service, and the photograph that it gets."""

    def __init__(self, service: Service, picture: bytes) -> None:
        self._service = service
        self._picture = picture
        self._seed = 0

    @property
    def port(self) -> int:
        return self._service.port

    @property
    def pid(self) -> int:
        """Of the process that has the networks."""
        return int(self._service.replicas()[0]["pid"])

    def anew(self) -> None:
        """Starts the service again: the router remembers what has happened to it for minutes."""
        self._service.stop()
        self.start()

    def start(self) -> None:
        self._service.start(within_s=600)
        self.run((5.0, 5.0))

    def stop(self) -> None:
        self._service.stop()

    def beside(self, attack: str, port: int, load: tuple[float, float]) -> list[Outcome]:
        """A phase of the polite while an attacker (``attackers.py``) is at work, from before it until after it."""
        with ThreadPoolExecutor(1) as pool:
            attacking = pool.submit(attacked, attack, port, load[1] + 2 * _BEFORE_S)
            time.sleep(_BEFORE_S)
            outcomes = self.run(load, address=POLITE)
            print(f"  the attacker was answered {attacking.result()[1]['counts']}", flush=True)
        return outcomes

    def run(self, *phases: tuple[float, float], resend: bool = False, address: str | None = None) -> list[Outcome]:
        """Phases of (requests a second, seconds), one after the other; from an address of this machine."""
        due, start = list[tuple[float, str]](), 0.0
        for rate, seconds in phases:
            self._seed += 1
            due += arrivals(rate, seconds, self._seed, start)
            start += seconds
        return asyncio.run(send(self._service.url, self._picture, due, resend=resend, address=address))

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


def attained(outcomes: Sequence[Outcome]) -> float:
    """The share of all that was answered within its budget."""
    return sum(o.good for o in outcomes) / len(outcomes)


def accepted(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that were let in."""
    return [o for o in outcomes if o.status not in (422, 429, 503)]


def steady(bench: Bench, peak: float, seconds: float) -> bool:
    outcomes = bench.run((0.7 * peak, seconds))
    let_in = accepted(outcomes)
    within, error = attained(let_in), prediction_error(outcomes)
    print(f"70 %: {within:.2%} of {len(let_in)} accepted within their budgets (>= 99 %); {describe(outcomes)}")
    print(f"70 %: median |predicted - actual| / actual {error:.1%} (<= 20 %)", flush=True)
    return within >= 0.99 and error <= 0.20


def burst(bench: Bench, peak: float, calm_s: float) -> bool:
    outcomes = bench.run((3 * peak, 5.0), (0.3 * peak, calm_s), resend=True)
    late = [o for o in outcomes if o.took_ms > o.budget_ms + GRACE_MS]
    again = [o for o in outcomes if o.again]
    succeeded = sum(o.status == 200 for o in again) / len(again) if again else 1.0
    told_s, took_s = told_and_took(outcomes)
    waits = [o.retry_after_s for o in outcomes if o.retry_after_s and not o.again]
    print(f"burst: {len(late)} of {len(outcomes)} waited past their deadlines (0); {describe(outcomes)}")
    print(f"burst: of {len(again)} sent again after Retry-After {succeeded:.1%} were answered (>= 95 %)")
    print(f"burst: told {told_s:.1f} s (median; {min(waits, default=0)} to {max(waits, default=0)}), ", end="")
    print(f"nobody was refused any more after {took_s:.1f} s (median; told <= 2 x as long); ", end="")
    print(f"had the refused waited in a queue, it would have taken {queue_s(outcomes, peak):.1f} s", flush=True)
    return not late and succeeded >= 0.95 and told_s <= 2 * took_s


def overload(bench: Bench, peak: float, seconds: float) -> bool:
    with Memory(bench.pid) as memory:
        outcomes = bench.run((3 * peak, seconds))
    good = goodput(outcomes, seconds)
    third = seconds / 3
    first, last = memory.mean(0, third), memory.mean(2 * third, seconds)
    late = [o for o in outcomes if o.took_ms > o.budget_ms + GRACE_MS]
    let_in = accepted(outcomes)
    missed = sum(o.status == 504 for o in let_in) / len(let_in)
    print(f"overload: {good:.1f} a second within budget, {good / peak:.0%} of the peak (>= 95 %); {describe(outcomes)}")
    print(f"overload: {missed:.2%} of {len(let_in)} accepted were answered with 504 (<= 0.5 %), ", end="")
    print(f"{attained(let_in):.1%} within their budgets; {len(late)} waited past their deadlines; ", end="")
    print(
        f"RSS {first:.0f} MB in the first third, {last:.0f} in the last, {last / first - 1:+.1%} (<= 5 %)", flush=True
    )
    return good >= 0.95 * peak and missed <= 0.005 and abs(last / first - 1) <= 0.05


def rude(bench: Bench, peak: float, seconds: float) -> bool:
    """Half of the peak, politely, alone; beside a client of another address that sends 1,000 a second whatever it is
    told; and beside the same client sending to a server that does nothing, which shows what it takes of the cores."""
    load = (0.5 * peak, seconds)
    alone = bench.run(load, address=POLITE)
    with sink(2 * seconds + 20) as port:
        control = bench.beside("rude", port, load)
    beside = bench.beside("rude", bench.port, load)
    shares = [attained(outcomes) for outcomes in (alone, control, beside)]
    cost = 1 - shares[2] / shares[0]
    print(f"rude: the polite attain {shares[0]:.1%} alone, {shares[2]:.1%} beside a client of 1,000 a second, ", end="")
    print(f"{shares[1]:.1%} beside the same sent elsewhere: it costs them {cost:.1%} (<= 5 %)")
    print(f"rude: alone {describe(alone)}; beside {describe(beside)}", flush=True)
    return cost <= 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a third of the time")
    parser.add_argument("--fleet", default="local")
    parser.add_argument("--peak", type=float, help="answers within their budgets a second, as they were found before")
    checks = {"steady": steady, "burst": burst, "overload": overload, "rude": rude}
    parser.add_argument("--only", nargs="+", choices=checks, default=list(checks), help="some of the checks")
    options = parser.parse_args()
    scale = 1 / 3 if options.quick else 1.0
    with tempfile.TemporaryDirectory() as folder:
        picture = photograph(Path(folder)).path.read_bytes()
    bench, peak, kept = Bench(Service("--untrained", "--fleet", options.fleet), picture), options.peak, []
    bench.start()
    try:
        if peak is None:
            peak, rate = bench.peak(8.0 * scale)
            print(f"peak: {peak:.1f} answers a second within budget, at {rate:.1f} requests a second", flush=True)
            bench.anew()
        for number, name in enumerate(options.only):
            if number:
                bench.anew()
            kept.append(checks[name](bench, peak, scale * (30 if name in ("burst", "rude") else 60)))
    finally:
        bench.stop()
    raise SystemExit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
