"""Whether batches pay on this machine: ``python bench/batches.py [NETWORK]``.

Starts the service twice, once with batches of up to 16 and once with single pictures, and puts one after the other
under the same 16 callers. Then compares a request of eight pictures with one batch of eight without HTTP. Prints
medians and ratios. Exits with 1 if batches give fewer pictures a second than single ones, or if the request takes more
than 1.1 times as long as the batch.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import httpx
from load import photograph
from running import Service

ROOT = Path(__file__).parents[1]
CALLERS = 16
BULK = 8
MOST = 1.1


async def closed_loop(url: str, picture: bytes, seconds: float) -> tuple[float, float]:
    """Pictures a second of callers who each wait for an answer before they send the next, and the mean batch."""
    sizes: list[int] = []
    until = time.monotonic() + seconds

    async def caller(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < until:
            async with session.post(url, data=picture) as answer:
                answer.raise_for_status()
                sizes.append((await answer.json())["batch_size"])

    started = time.monotonic()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(caller(session) for _ in range(CALLERS)))
    return len(sizes) / (time.monotonic() - started), statistics.harmonic_mean(sizes)


def bulk_ms(url: str, picture: bytes, times: int) -> float:
    """The median time of a request with eight pictures, whose body is made once."""
    files = [("image", (f"{number}.jpg", picture, "image/jpeg")) for number in range(BULK)]
    request = httpx.Request("POST", url, files=files)
    body, headers = request.read(), {"content-type": request.headers["content-type"]}
    took = []
    with httpx.Client(timeout=60, trust_env=False) as client:
        for _ in range(times):
            started = time.perf_counter()
            answer = client.post(url, content=body, headers=headers)
            took.append((time.perf_counter() - started) * 1000)
            results = answer.raise_for_status().json()["results"]
            assert all(result["status"] == 200 for result in results), results
    return statistics.median(took)


def batch_ms(network: str, picture: Path) -> float:
    """The median time of one batch of eight without HTTP: decoded in as many threads as there are cores, then run."""
    command = [sys.executable, str(ROOT / "bench" / "peers" / "limit.py"), network, "--picture", str(picture)]
    command += ["--seconds", "6", "--batch", str(BULK)]
    output = subprocess.check_output(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=240)  # noqa: S603
    return float(json.loads(output.splitlines()[-1])["p50_ms"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", nargs="?", default="googlenet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each window")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = photograph(Path(folder)).path
        fleet = Path(folder) / "one.toml"
        fleet.write_text(f'[[deployment]]\nvariants = ["{options.network}"]\n')
        services = {
            name: Service("--untrained", "--fleet", str(fleet), "--max-batch-size", str(size))
            for name, size in (("in batches", 16), ("one by one", 1))
        }
        running = []
        try:
            for service in services.values():
                service.start(within_s=300)
                running.append(service)
            gain = compare_rates(services, picture.read_bytes(), options)
            # A service that does nothing takes its share of two cores too.
            running.pop().stop()
            slower = compare_bulk(services["in batches"], picture, options)
        finally:
            for service in running:
                service.stop()
    print(f"{CALLERS} callers: in batches {gain:.2f} times as many pictures a second as one by one (>= 1.00)")
    print(f"a request of {BULK}: {slower:.2f} times as long as one batch of {BULK} (<= {MOST})")
    raise SystemExit(0 if gain >= 1.0 and slower <= MOST else 1)


def compare_rates(services: dict[str, Service], picture: bytes, options: argparse.Namespace) -> float:
    """How many times as many pictures a second the first service gives as the second, one after the other."""
    rates: dict[str, list[float]] = {name: [] for name in services}
    for _ in range(options.rounds):
        for name, service in services.items():
            rate, size = asyncio.run(closed_loop(f"{service.url}/classify", picture, options.seconds))
            rates[name].append(rate)
            print(f"{name}: {rate:.1f} pictures/s, mean batch {size:.2f}", flush=True)
    first, second = rates.values()
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def compare_bulk(service: Service, picture: Path, options: argparse.Namespace) -> float:
    """How many times as long a request of eight pictures takes as one batch of eight."""
    ratios = []
    for _ in range(options.rounds):
        batch = batch_ms(options.network, picture)
        bulk = bulk_ms(f"{service.url}/classify", picture.read_bytes(), 24)
        ratios.append(bulk / batch)
        print(f"a request of {BULK}: {bulk:.0f} ms; one batch of {BULK}: {batch:.0f} ms", flush=True)
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
