"""Figures of the main path, against a running service: ``python bench/main_path.py [--url URL] [--photos DIR]``.

Prints how long a lone request queues, how far 200 requests at once are batched, and, given a folder of photographs
named ``<WordNet id>_<label>.jpg``, how often the true label is among the five.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

DIGIT = Path(__file__).parents[1] / "docs" / "images" / "digit.png"
LABELS = Path(__file__).parents[1] / "weights" / "labels" / "imagenet1k.txt"


async def post(client: httpx.AsyncClient, content: bytes, model: str) -> dict[str, Any]:
    """One answer; raises httpx.HTTPStatusError unless it is 200."""
    answer = await client.post(f"/classify?model={model}", content=content)
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    return body


async def lone(client: httpx.AsyncClient, picture: bytes) -> None:
    """One request after the other."""
    queued, took = [], []
    for _ in range(200):
        started = time.perf_counter()
        body = await post(client, picture, "lenet5")
        took.append((time.perf_counter() - started) * 1000)
        queued.append(body["timings_ms"]["queue"])
    queue_ms, total_ms = statistics.median(queued), statistics.median(took)
    print(f"lone request, medians of 200: queue {queue_ms:.3f} ms, total {total_ms:.2f} ms")


async def combined(clients: list[httpx.AsyncClient], picture: bytes) -> None:
    """200 requests at once, three times."""
    for _ in range(3):
        started = time.perf_counter()
        posts = (post(clients[i % len(clients)], picture, "lenet5") for i in range(200))
        bodies = await asyncio.gather(*posts)
        seconds = time.perf_counter() - started
        sizes = [body["batch_size"] for body in bodies]
        print(f"200 at once: mean batch {statistics.mean(sizes):.1f}, {200 / seconds:.0f} requests/s")


async def photographs(client: httpx.AsyncClient, folder: Path) -> None:
    """Top-1 and top-5 of googlenet on photographs of known classes."""
    rows = [line.split("\t") for line in LABELS.read_text().splitlines() if not line.startswith("#")]
    number = {wordnet_id: index for index, (wordnet_id, _) in enumerate(rows)}
    score: Counter[str] = Counter()
    for file in sorted(folder.glob("*.jpg")):
        body = await post(client, file.read_bytes(), "googlenet")
        indices = [label["index"] for label in body["top5"]]
        true = number[file.name.split("_")[0]]
        score.update(pictures=1, first=indices[0] == true, among=true in indices)
    print(f"googlenet on {score['pictures']} photographs: first {score['first']}, among the five {score['among']}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--photos", type=Path, help="folder of photographs, for googlenet")
    options = parser.parse_args()
    picture = DIGIT.read_bytes()
    async with AsyncExitStack() as stack:
        # Twenty, since one client's pool looks through all of its connections for each request.
        key = os.environ.get("TOPFIVE_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        clients = [httpx.AsyncClient(base_url=options.url, headers=headers, timeout=120) for _ in range(20)]
        for client in clients:
            await stack.enter_async_context(client)
        await combined(clients, picture)
        await lone(clients[0], picture)
        if options.photos:
            await photographs(clients[0], options.photos)


if __name__ == "__main__":
    asyncio.run(main())
