"""What being observed costs: ``python bench/metrics.py`` (a minute and a half).

1. The metric calls of one request, timed alone (``peers/recording.py``), against the CPU time that LeNet-5 takes a
   request in the service, as its own metrics tell it. The two are measured in turns; the aim is at most 2 %. Beside it
   what the same calls take in their place, in one process over a fake engine.
2. Requests a second and p99 while nobody looks, and while ``GET /metrics`` and the replica's own port are asked as fast
   as they answer: scraping must not hold up requests. The two are measured in turns too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
from running import Service

_DIGIT = Path(__file__).parents[1] / "docs" / "images" / "digit.png"
_PEER = Path(__file__).parent / "peers" / "recording.py"
_CONNECTIONS = 16


async def closed_loop(url: str, seconds: float, scrape: list[str]) -> tuple[float, float]:
    """Requests a second, and the 99th percentile in ms, with each of ``scrape`` asked again and again beside them."""
    picture, times = _DIGIT.read_bytes(), list[float]()
    started = time.perf_counter()
    limits = httpx.Limits(max_connections=_CONNECTIONS)
    async with httpx.AsyncClient(timeout=30, trust_env=False, limits=limits) as client:

        async def ask() -> None:
            while (before := time.perf_counter()) < started + seconds:
                answer = await client.post(f"{url}/classify?model=lenet5", content=picture)
                answer.raise_for_status()
                times.append(time.perf_counter() - before)

        asking = asyncio.gather(*(ask() for _ in range(_CONNECTIONS)))
        scraping = [asyncio.create_task(look(address)) for address in scrape]
        await asking
        for task in scraping:
            task.cancel()
    return len(times) / seconds, 1000 * statistics.quantiles(times, n=100)[98]


async def look(address: str) -> None:
    """Scrapes without a pause."""
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        while True:
            (await client.get(address)).raise_for_status()
            await asyncio.sleep(0.05)


def counted(url: str) -> tuple[float, float]:
    """CPU seconds of the service's processes, and requests, so far."""
    lines = httpx.get(f"{url}/metrics", trust_env=False).text.splitlines()
    cpu, requests = (
        sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
        for name in ("process_cpu_seconds_total", "topfive_requests_total{")
    )
    return cpu, requests


def calls(seconds: float) -> dict[str, float]:
    """What ``peers/recording.py`` prints."""
    command = [sys.executable, str(_PEER), "--seconds", str(seconds)]
    run = subprocess.run(command, capture_output=True, check=True, cwd=Path(__file__).parents[1])  # noqa: S603 - our own
    figures: dict[str, float] = json.loads(run.stdout)
    return figures


def main(rounds: int, seconds: float) -> dict[str, object]:
    service = Service()
    service.start()
    try:
        (group,) = httpx.get(f"{service.url}/metrics/targets", trust_env=False).json()
        everywhere = [f"{service.url}/metrics", f"http://{group['targets'][0]}/metrics"]
        asyncio.run(closed_loop(service.url, seconds, []))
        told, requests, quiet, looked_at = list[dict[str, float]](), list[float](), list[tuple[float, float]](), []
        for _ in range(rounds):
            told.append(calls(seconds / 2))
            cpu, before = counted(service.url)
            quiet.append(asyncio.run(closed_loop(service.url, seconds, [])))
            cpu_after, after = counted(service.url)
            requests.append(1e6 * (cpu_after - cpu) / (after - before))
            looked_at.append(asyncio.run(closed_loop(service.url, seconds, everywhere)))
    finally:
        service.stop()
    share = statistics.median(told[i]["metric_calls_us"] / request for i, request in enumerate(requests))
    return {
        **{name: round(statistics.median(each[name] for each in told), 1) for name in told[0]},
        "cpu_us_a_request": round(statistics.median(requests), 1),
        "share_percent": round(100 * share, 2),
        "requests_per_s": [round(rate, 1) for rate, _ in quiet],
        "scraped_requests_per_s": [round(rate, 1) for rate, _ in looked_at],
        "p99_ms": [round(p99, 1) for _, p99 in quiet],
        "scraped_p99_ms": [round(p99, 1) for _, p99 in looked_at],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    arguments = parser.parse_args()
    print(json.dumps(main(arguments.rounds, arguments.seconds), indent=2))
