"""Sixteen networks in the memory of a few: ``python bench/residency.py [--minutes M]``.

Asks for all variants at random, under a memory limit of a third of what they need together. Every 100 ms the replica's
memory is held against the limit, and the ledger too. Exits with 1 if it was too much, or an answer was none of those
that the contract allows.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
from load import photograph
from running import Service

CLIENTS = 8
#: By how much the resident set may exceed the limit: pictures, queues, and what the C library keeps back.
SLACK = 1.15
#: What the contract allows beside 200: refused for now, and too late.
ALLOWED = {200, 429, 504}


class Clients:
    """Each asks for one network after the other, at random."""

    def __init__(self, url: str, names: list[str], picture: bytes) -> None:
        self._url, self._names, self._picture = url, names, picture
        self.statuses: Counter[int] = Counter()
        self.answered: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, seed: int) -> None:
        source = random.Random(seed)  # noqa: S311 - not for secrets
        with httpx.Client(base_url=self._url, timeout=120, trust_env=False) as client:
            while not self._over.is_set():
                name = source.choice(self._names)
                answer = client.post(f"/classify?model={name}", content=self._picture)
                self.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    self.answered[answer.json()["model"]] += 1
                if answer.status_code not in ALLOWED:
                    self.wrong.append(answer.text[:300])
                elif answer.status_code == 200 and answer.json()["model"] != name:
                    self.wrong.append(f"{answer.json()['model']} instead of {name}")


def look(url: str) -> dict[str, Any]:
    listed: dict[str, Any] = httpx.get(f"{url}/models", timeout=60, trust_env=False).json()
    return listed


def before_any_load() -> tuple[float, float, list[str]]:
    """Resident MB of a replica that has loaded nothing, MB that all networks need together, and their names."""
    service = Service("--untrained", "--memory-limit-mb", "1")
    service.start(within_s=900)
    try:
        models = look(service.url)["models"]
        empty = psutil.Process(service.replicas()[0]["pid"]).memory_info().rss / 1e6
    finally:
        service.stop()
    return empty, sum(model["footprint_mb"] for model in models), [model["variant"] for model in models]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2)
    options = parser.parse_args()
    empty, together, names = before_any_load()
    limit = together / 3
    print(f"all need {together:.0f} MB, the limit is {limit:.0f} MB; a replica without a network has {empty:.0f} MB")
    service = Service("--untrained", "--memory-limit-mb", f"{limit:.0f}")
    service.start(within_s=900)
    sizes, held = [], []
    try:
        process = psutil.Process(service.replicas()[0]["pid"])
        with tempfile.TemporaryDirectory() as folder:
            picture = photograph(Path(folder)).path.read_bytes()
        with Clients(service.url, names, picture) as clients:
            until = time.monotonic() + 60 * options.minutes
            while time.monotonic() < until:
                for _ in range(10):
                    sizes.append(process.memory_info().rss / 1e6 - empty)
                    time.sleep(0.1)
                held.append(look(service.url)["memory"][0]["held_mb"])
    finally:
        service.stop()
    print(f"statuses {dict(clients.statuses)}; {len(clients.answered)} of {len(names)} networks answered")
    print(f"not the contract's: {len(clients.wrong)}", *clients.wrong[:3], sep="\n  ")
    print(f"ledger: {max(held):.0f} MB at most")
    print(f"resident: {max(sizes):.0f} MB at most, {max(sizes) / limit:.2f} of the limit (<= {SLACK})")
    if clients.wrong or max(held) > limit or max(sizes) > SLACK * limit or len(clients.answered) < len(names):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
