"""Whether the service answers after a load what it answered before: ``python bench/after_use.py [--quick]``.

Starts a service of one network (googlenet with seeded random weights, so that there is no faster one to turn to), asks
for the same photograph within six budgets, puts the service under each of four loads in turn, and asks again after five
quiet seconds. Prints a table. Exits with 1 if after a load and within any budget fewer pictures were answered than 95 %
of those that were answered at first.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from load import photograph
from open_loop import arrivals, send
from PIL import Image
from running import Service

ROOT = Path(__file__).parents[1]
#: Callers' limits in milliseconds. The same photograph is asked for within each.
BUDGETS_MS = (100, 150, 250, 400, 600, 1000)
QUIET_S = 5.0
_FLEET = '[[deployment]]\nvariants = ["googlenet"]\n'
LEAST_SHARE = 0.95
_MEGAPIXELS = (4000, 3000)


class Asked:
    """The share of pictures that were answered within each budget, one picture after the other.

    Args:
        url: of the service.
        picture: an encoded photograph.
        budgets_ms: the limits.
        times: pictures a budget.
    """

    def __init__(self, url: str, picture: bytes, budgets_ms: tuple[int, ...], times: int) -> None:
        self.answered = dict.fromkeys(budgets_ms, 0)
        self.said: dict[int, str] = {}
        """The last refusal for each budget that was refused."""
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            # Budgets in turn, so that a slow moment of the machine hits all of them.
            for _ in range(times):
                for budget_ms in budgets_ms:
                    answer = client.post(f"/classify?latency_ms={budget_ms}", content=picture)
                    self.answered[budget_ms] += answer.status_code == 200
                    if answer.status_code != 200:
                        self.said[budget_ms] = f"{answer.status_code} {answer.json().get('detail')}"


class Loads:
    """What the service goes through, each for so many seconds.

    Args:
        url: of the service.
        picture: an encoded photograph.
        seconds: how long each load lasts.
    """

    def __init__(self, url: str, picture: bytes, seconds: float) -> None:
        self._url, self._picture, self._seconds = url, picture, seconds
        self.by_name: dict[str, Callable[[], None]] = {
            "locust": self._locust,
            "overload": self._overload,
            "12 megapixels": self._megapixels,
            "busy cores": self._busy_cores,
        }

    def _locust(self) -> None:
        """The command of the first answers in README."""
        command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest"), "--headless", "--host", self._url]
        command += ["-u", "8", "-t", f"{self._seconds:.0f}s", "--only-summary"]
        subprocess.run(  # noqa: S603 - our own
            command, cwd=ROOT, capture_output=True, check=False, timeout=self._seconds + 120
        )

    def _overload(self) -> None:
        """Mixed budgets, many times more than two cores can answer."""
        asyncio.run(send(self._url, self._picture, arrivals(150.0, self._seconds, 1), resend=False))

    def _megapixels(self) -> None:
        large = io.BytesIO()
        Image.open(io.BytesIO(self._picture)).resize(_MEGAPIXELS).save(large, "JPEG", quality=90)
        self._closed_loop(4, "/classify?latency_ms=2000", large.getvalue(), 0.0)

    def _busy_cores(self) -> None:
        """Other work on every core, and a few requests meanwhile."""
        code = f"import time\nend = time.monotonic() + {self._seconds}\nwhile time.monotonic() < end: pass"
        others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]  # noqa: S603 - our own
        self._closed_loop(2, "/classify?latency_ms=400", self._picture, 0.2)
        for other in others:
            other.wait(self._seconds + 30)

    def _closed_loop(self, clients: int, path: str, picture: bytes, pause_s: float) -> None:
        until = time.monotonic() + self._seconds

        def run() -> None:
            with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
                while time.monotonic() < until:
                    refused = client.post(path, content=picture).status_code != 200
                    time.sleep(max(pause_s, 0.05 if refused else 0.0))

        threads = [threading.Thread(target=run) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="loads of 25 seconds instead of 60")
    parser.add_argument("--seconds", type=float, help="of each load")
    parser.add_argument("--loads", nargs="+", metavar="LOAD", help="some of: locust, overload, '12 megapixels', ...")
    parser.add_argument("--budgets-ms", type=int, nargs="+", default=BUDGETS_MS, metavar="MS")
    parser.add_argument("--times", type=int, default=20, help="pictures a budget")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = photograph(Path(folder)).path.read_bytes()
        fleet = Path(folder) / "googlenet.toml"
        fleet.write_text(_FLEET)
        service = Service("--untrained", "--fleet", str(fleet))
        service.start(within_s=300)
        try:
            kept = _compare(service.url, picture, options)
        finally:
            service.stop()
    raise SystemExit(0 if kept else 1)


def _compare(url: str, picture: bytes, options: argparse.Namespace) -> bool:
    budgets_ms = tuple(options.budgets_ms)
    loads = Loads(url, picture, options.seconds or (25.0 if options.quick else 60.0))
    fresh = Asked(url, picture, budgets_ms, options.times)
    print("| after | " + " | ".join(f"{ms} ms" for ms in budgets_ms) + " |")
    print("|---" * (1 + len(budgets_ms)) + "|")
    _print("the start", fresh, options.times)
    kept = True
    for name in options.loads or loads.by_name:
        loads.by_name[name]()
        time.sleep(QUIET_S)
        after = Asked(url, picture, budgets_ms, options.times)
        _print(name, after, options.times)
        kept &= all(after.answered[ms] >= LEAST_SHARE * fresh.answered[ms] for ms in budgets_ms)
    return kept


def _print(name: str, asked: Asked, times: int) -> None:
    print(f"| {name} | " + " | ".join(f"{answered} of {times}" for answered in asked.answered.values()) + " |")
    for budget_ms, said in asked.said.items():
        print(f"    within {budget_ms} ms, at last: {said}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
