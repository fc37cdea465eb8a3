"""Processes that serve metrics, and a list of where they do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

from service.telemetry.exposition import Target


class Process:
    """A registry with one metric of each kind."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("requests", "How many.", ["model"], registry=self.registry)
        self.seconds = Histogram("seconds", "How long.", ["model"], buckets=(0.1, 1), registry=self.registry)
        self.oldest = Gauge("topfive_queue_oldest_seconds", "How old.", ["model"], registry=self.registry)
        self.held = Gauge("held", "How much.", registry=self.registry)

    @property
    def text(self) -> str:
        return generate_latest(self.registry).decode()


@contextmanager
def serving(process: Process) -> Iterator[str]:
    server, thread = start_http_server(0, "127.0.0.1", process.registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Found:
    def __init__(self, *targets: Target) -> None:
        self.targets = targets
        self.asked: list[str] = []

    async def find(self, job: str) -> Sequence[Target]:
        self.asked.append(job)
        return self.targets
