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


async def bulk_ms(url: str, picture: bytes, times: int) -> float:
    """The median time of a request with eight pictures."""
    took = []
    async with aiohttp.ClientSession() as session:
        for _ in range(times):
            form = aiohttp.FormData()
            for number in range(BULK):
                form.add_field("image", picture, filename=f"{number}.jpg", content_type="image/jpeg")
            started = time.perf_counter()
            async with session.post(url, data=form) as answer:
                answer.raise_for_status()
                results = (await answer.json())["results"]
            took.append((time.perf_counter() - started) * 1000)
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
        try:
            for service in services.values():
                service.start(within_s=300)
            kept = compare(services, picture, options)
        finally:
            for service in services.values():
                service.stop()
    raise SystemExit(0 if kept else 1)


def compare(services: dict[str, Service], picture: Path, options: argparse.Namespace) -> bool:
    """Interleaves what is compared."""
    content = picture.read_bytes()
    rates: dict[str, list[float]] = {name: [] for name in services}
    bulks, batches = [], []
    for _ in range(options.rounds):
        for name, service in services.items():
            rate, size = asyncio.run(closed_loop(f"{service.url}/classify", content, options.seconds))
            rates[name].append(rate)
            print(f"{name}: {rate:.1f} pictures/s, mean batch {size:.2f}", flush=True)
        batches.append(batch_ms(options.network, picture))
        bulks.append(asyncio.run(bulk_ms(f"{services['in batches'].url}/classify", content, 12)))
        print(f"a request of {BULK}: {bulks[-1]:.0f} ms; one batch of {BULK}: {batches[-1]:.0f} ms", flush=True)
    gain = statistics.median(a / b for a, b in zip(rates["in batches"], rates["one by one"], strict=True))
    slower = statistics.median(a / b for a, b in zip(bulks, batches, strict=True))
    print(f"{CALLERS} callers: in batches {gain:.2f} times as many pictures a second as one by one (>= 1.00)")
    print(f"a request of {BULK}: {slower:.2f} times as long as one batch of {BULK} (<= {MOST})")
    return gain >= 1.0 and slower <= MOST


if __name__ == "__main__":
    main()
