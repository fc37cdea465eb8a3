"""Metrics by HTTP: each process of the service serves its own, and ``GET /metrics`` adds them up.

Prometheus asks every process by itself (``GET /metrics/targets`` tells it where they are), on a port and a thread that
no request uses. The sum is for a look without Prometheus, and reads the same ports.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import httpx
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from service.config.listening import authority
from service.telemetry.metrics import NOT_SUMMED, REGISTRY

log = logging.getLogger(__name__)
#: A process that does not answer for so long is left out of the sum.
_ANSWER_WITHIN_S = 2.0
#: Metrics go over plain HTTP. A client that is not given one reads all certificates of the machine, for tens of
#: milliseconds in which no request is answered.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Target(NamedTuple):
    """Where a process serves its metrics."""

    address: str
    """host:port."""
    labels: dict[str, str]


class Targets(Protocol):
    """Who knows where the processes are."""

    async def find(self, job: str) -> Sequence[Target]:
        """The processes of a job: ``topfive`` itself, ``ray``'s nodes, ``haproxy``.

        Raises:
            NotReadyError: nobody knows at the moment. An empty list would say that there are none, and Prometheus
                would forget them all; after a 503 it goes on with those it had.
        """
        ...


class OwnProcess:
    """A service that is one process, without Ray: what it has is here."""

    async def find(self, job: str) -> Sequence[Target]:
        return []


def serve_metrics(host: str) -> str:
    """Serves this process's metrics on a free port, for as long as it lives -> host:port."""
    server, _thread = start_http_server(0, host, REGISTRY)
    return authority(host, server.server_port)


async def read_all(targets: Sequence[Target]) -> list[str]:
    """What the processes answer; one that does not is left out, and said in the log."""
    # Not through a proxy of the environment: they are the service's own.
    async with httpx.AsyncClient(timeout=_ANSWER_WITHIN_S, trust_env=False, verify=_NO_CERTIFICATES) as client:

        async def ask(target: Target) -> httpx.Response:
            # The client's own limit is one of each read.
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                return await client.get(f"http://{target.address}/metrics")

        answers = await asyncio.gather(*map(ask, targets), return_exceptions=True)
    texts = []
    for target, answer in zip(targets, answers, strict=True):
        if isinstance(answer, httpx.Response) and answer.status_code == 200:
            texts.append(answer.text)
        else:
            log.warning("the metrics of %s %s are not in the sum", target.address, target.labels)
    return texts


def added_up(texts: Iterable[str]) -> bytes:
    """Several processes' metrics as one's: sums by name and labels, or the largest of what cannot be summed."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            families.setdefault(family.name, family)
            samples = values.setdefault(family.name, {})
            largest = family.name in NOT_SUMMED
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                before = samples.get(key)
                if before is None:
                    samples[key] = sample.value
                else:
                    samples[key] = max(before, sample.value) if largest else before + sample.value
    for name, family in families.items():
        family.samples = []
        for (sample_name, labels), value in values[name].items():
            family.add_sample(sample_name, dict(labels), value)
    registry = CollectorRegistry()
    registry.register(_Collected(families.values()))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
