"""Five minutes in the life of a service: ``python bench/soak.py [--minutes M] [--fleet NAME|PATH]``.

Good and bad requests all the while; three restarts, two kills of a replica with SIGKILL (the device owner of a fleet
that has one); then quiet running, in which the memory of every replica, front and owner is watched. Checks that every
answer was the right one, that memory stayed flat and that nothing is left at the end; exits with 1 if not.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import mean

import httpx
import psutil
from running import Service

DIGIT = Path(__file__).parents[1] / "docs" / "images" / "digit.png"
CLIENTS = 8
#: Share of the run after which the restarts and kills are over.
QUIET_FROM = 0.4


class Load:
    """Clients that post all the while and compare each answer with the one that is due."""

    def __init__(self, url: str) -> None:
        digit = DIGIT.read_bytes()
        self._url = url
        self._due = [
            ("lenet5", digit, 200),
            ("lenet5&latency_ms=20000", digit, 200),
            ("lenet5", digit[:3000], 422),
            ("lenet5", b"some text", 422),
            ("lenet5", b"%PDF-1.7", 415),
            ("lenet5", b"", 400),
            ("resnet50", digit, 404),
            ("lenet5&k=11", digit, 400),
        ]
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.quiet = threading.Event()
        """Set once nothing is restarted or killed any more: from then on only right answers count."""
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(i,)) for i in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _client(self, turn: int) -> None:
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as client:
            while not self._over.is_set():
                model, content, status = self._due[turn % len(self._due)]
                turn += 1
                try:
                    answer = client.post(f"/classify?model={model}", content=content)
                except httpx.TransportError as error:
                    self._down(f"no answer: {error!r}", "no answer")
                    time.sleep(0.2)
                    continue
                self._check(answer, status)
                time.sleep(0.01)

    def _check(self, answer: httpx.Response, status: int) -> None:
        problem = answer.headers.get("content-type") == "application/problem+json"
        if answer.status_code == 503 and problem:
            self._down(answer.text, "503 while down")
        elif answer.status_code == 404 and not problem:
            self._down(answer.text, "404 of HAProxy while down")
        elif answer.status_code != status:
            self.wrong.append(f"{answer.status_code} where {status} is due: {answer.text[:200]}")
        elif status == 200 and answer.json()["top5"][0]["label"] != "3":
            self.wrong.append(f"label {answer.json()['top5'][0]['label']}")
        else:
            self.counts[f"right {status}"] += 1

    def _down(self, what: str, kind: str) -> None:
        if self.quiet.is_set():
            self.wrong.append(f"in the quiet phase: {what[:200]}")
        else:
            self.counts[kind] += 1


def kill_replica(service: Service) -> float:
    """Seconds from the kill until the first right answer after a failure."""
    os.kill(service.replicas("lenet5")[0]["pid"], signal.SIGKILL)
    started, failed = time.monotonic(), False
    while time.monotonic() - started < 60:
        try:
            answer = httpx.post(f"{service.url}/classify?model=lenet5", content=DIGIT.read_bytes(), timeout=60)
            if answer.status_code == 200 and (failed or time.monotonic() - started > 3):
                break
            failed = failed or answer.status_code != 200
        except httpx.TransportError:
            failed = True
        time.sleep(0.05)
    return time.monotonic() - started


def marked_processes() -> list[int]:
    """Processes of any run of TopFive, by the mark that they inherit."""
    found = []
    for process in psutil.process_iter():
        try:
            if b"TOPFIVE_RUN_ID=" in Path(f"/proc/{process.pid}/environ").read_bytes():
                found.append(process.pid)
        except OSError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--fleet", default="local")
    options = parser.parse_args()
    before = set(marked_processes())
    service, seconds = Service("--fleet", options.fleet), options.minutes * 60
    service.start()
    load, began = Load(service.url), time.monotonic()
    load.start()
    busy = seconds * QUIET_FROM
    for turn in range(3):
        time.sleep(busy / 12)
        print(f"restart {turn + 1}: stopped in {service.stop():.1f} s", flush=True)
        service.start()
    for turn in range(2):
        time.sleep(busy / 12)
        print(f"kill {turn + 1}: right answers again after {kill_replica(service):.1f} s", flush=True)
    time.sleep(max(0.0, busy - (time.monotonic() - began)))
    replicas = {
        f"{name}, pid {replica['pid']}": psutil.Process(replica["pid"])
        for name, some in service.deployments().items()
        for replica in some
    }
    sizes: dict[str, list[float]] = {name: [] for name in replicas}
    load.quiet.set()
    while time.monotonic() - began < seconds:
        for name, process in replicas.items():
            sizes[name].append(process.memory_info().rss / 1e6)
        time.sleep(0.5)
    load.stop()
    print(f"last stop: {service.stop():.1f} s")
    report(load, sizes, sorted(set(marked_processes()) - before))


def report(load: Load, sizes: dict[str, list[float]], left: list[int]) -> None:
    """Prints what was found, and exits with 1 if anything is wrong."""
    print("answers:", dict(load.counts), f"wrong: {len(load.wrong)}", *load.wrong[:3], sep="\n  ")
    growths = [growth(name, found) for name, found in sizes.items()]
    print(f"processes left: {left or 'none'}")
    if load.wrong or left or not load.counts["right 200"] or any(abs(found) > 0.05 for found in growths):
        raise SystemExit(1)


def growth(name: str, sizes: list[float]) -> float:
    """By which part a process has grown: the last tenth of its sizes beside the first."""
    tenth = max(1, len(sizes) // 10)
    first, last = mean(sizes[:tenth]), mean(sizes[-tenth:])
    print(f"{name}: {first:.1f} MB at first, {last:.1f} MB at last, {100 * (last / first - 1):+.1f} %")
    return last / first - 1


if __name__ == "__main__":
    main()
