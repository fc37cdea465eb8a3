"""A polite client: ``python bench/polite.py PORT --rate R``, as a process of its own.

An open loop with the arrivals of a Poisson process: requests are sent when they are due, one network after the other,
over a few connections that are kept. Writes two lines for each request to standard output, ``number network due status
milliseconds``: one when it is sent, with the status -1, and one when it is over. ``due`` is on the monotonic clock, and
the time counts from it; the status is 0 if there was no answer. Ends at SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import time
from pathlib import Path

import aiohttp

ADDRESS = "127.0.0.2"
_WITHIN_S = 30.0


async def run(port: int, rate: float, pictures: dict[str, bytes]) -> None:
    """Sends until it is cancelled."""
    source = random.Random(3)  # noqa: S311 - not for secrets
    # A connection is given up before the service gives it up.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=5, local_addr=(ADDRESS, 0))
    timeout = aiohttp.ClientTimeout(total=_WITHIN_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        waiting: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        for number, network in enumerate(itertools.cycle(pictures)):
            due += source.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            url = f"http://127.0.0.1:{port}/classify?model={network}"
            task = asyncio.create_task(_one(session, url, (number, network, due), pictures[network]))
            waiting.add(task)
            task.add_done_callback(waiting.discard)


async def _one(session: aiohttp.ClientSession, url: str, told: tuple[int, str, float], picture: bytes) -> None:
    print(*told, -1, 0, flush=True)
    status = 0
    try:
        async with session.post(url, data=picture) as response:
            await response.read()
            status = response.status
    except (TimeoutError, aiohttp.ClientError):
        pass
    print(*told, status, (time.monotonic() - told[2]) * 1000, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--pictures", nargs="+", metavar="NETWORK=FILE", required=True)
    options = parser.parse_args()
    pictures = {name: Path(file).read_bytes() for name, _, file in (text.partition("=") for text in options.pictures)}
    try:
        asyncio.run(run(options.port, options.rate, pictures))
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit()


if __name__ == "__main__":
    main()
