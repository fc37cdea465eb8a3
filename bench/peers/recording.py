"""What the metric calls of one request take: CPU time. ``recording.py``.

Alone, in a row, on one thread: those of a request for one picture whose network is named with a budget, and that is
answered in a batch of its own, which is the most that a picture can cost. And in their place: the service's app over a
fake engine, requests with and without them in turns, since code that runs once a request is slower than code that runs
in a row. Prints one line of JSON: median microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.checkpoints.catalogue import Catalogue
from service.config.settings import Settings
from service.domain.decision import Decision
from service.domain.outcome import OK, Outcome
from service.domain.prediction import Limits
from service.engines.fake import FakeEngine
from service.http.app import create_app
from service.runtime.placement import LocalPlacement
from service.telemetry.recorder import PredictorMetrics, RequestMetrics

#: Fewer at a time would measure the clock.
_TOGETHER, _REQUESTS = 500, 150
_CATALOGUE = Catalogue(Path("/nonexistent"), untrained=True)
_DIGIT = (Path(__file__).parents[2] / "docs" / "images" / "digit.png").read_bytes()
_CALLS = (
    (RequestMetrics, ("arrived", "left", "routed", "answered", "kept", "predicted")),
    (PredictorMetrics, ("batch",)),
)


def alone_us(seconds: float) -> float:
    """The calls in a row."""
    checkpoint = _CATALOGUE.find("lenet5")
    request_metrics, predictor, decision = (
        RequestMetrics(["lenet5"]),
        PredictorMetrics(checkpoint),
        Decision(checkpoint),
    )

    def request() -> None:
        request_metrics.arrived()
        request_metrics.routed(decision)
        predictor.batch(1, "drained", 0.0008, 0.0006)
        request_metrics.kept("lenet5", 0.0001, late=False)
        request_metrics.predicted("lenet5", 1.05)
        request_metrics.answered("lenet5", 0.0011, 0.0001, 0.0008)
        outcome = Outcome("lenet5", OK)
        request_metrics.left(outcome, [outcome], 0.0025)

    times, ends = list[float](), time.perf_counter() + seconds
    while time.perf_counter() < ends:
        before = time.thread_time()
        for _ in range(_TOGETHER):
            request()
        times.append((time.thread_time() - before) / _TOGETHER)
    return 1e6 * statistics.median(times)


@contextmanager
def silent() -> Iterator[None]:
    """Nothing is told to the metrics."""
    before = [(kind, name, getattr(kind, name)) for kind, names in _CALLS for name in names]
    for kind, name, _ in before:
        setattr(kind, name, lambda *_, **__: None)
    yield
    for kind, name, call in before:
        setattr(kind, name, call)


async def in_place_us(seconds: float) -> tuple[float, float]:
    """A request in the process, and the share of its metric calls, from neighbouring blocks with and without them."""
    placement = LocalPlacement(FakeEngine, Limits())
    app = create_app(_CATALOGUE, placement, Settings(untrained=True))
    headers = [(b"content-length", str(len(_DIGIT)).encode())]
    query = b"model=lenet5&latency_ms=60000"
    scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": query, "headers": headers}

    async def request() -> None:
        messages: list[dict[str, Any]] = [{"type": "http.request", "body": _DIGIT, "more_body": False}]
        statuses = list[int]()

        async def receive() -> dict[str, Any]:
            return messages.pop()

        async def send(message: dict[str, Any]) -> None:
            statuses.append(message.get("status", 200))

        await app(dict(scope), receive, send)
        assert statuses[0] == 200, statuses

    async def block() -> float:
        before = time.process_time()
        for _ in range(_REQUESTS):
            await request()
        return (time.process_time() - before) / _REQUESTS

    await block()
    whole, less, ends = list[float](), list[float](), time.perf_counter() + seconds
    while time.perf_counter() < ends:
        whole.append(await block())
        with silent():
            less.append(await block())
    await placement.close()
    cost = statistics.median(with_them - without for with_them, without in zip(whole, less, strict=True))
    return 1e6 * statistics.median(whole), 1e6 * cost


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    arguments = parser.parse_args()
    request_us, in_place = asyncio.run(in_place_us(arguments.seconds))
    figures = {
        "metric_calls_us": alone_us(arguments.seconds),
        "in_process_request_us": request_us,
        "metric_calls_in_place_us": in_place,
    }
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}))
