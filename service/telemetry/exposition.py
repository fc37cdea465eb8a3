"""Serves the metrics of this process, and adds up those of several.

Prometheus scrapes every process separately, on a port and a thread that no request uses. The sum reads the same ports;
it is for a look at the metrics without Prometheus.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import httpx
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from service.config.listening import authority
from service.telemetry.metrics import NOT_SUMMED, REGISTRY

log = logging.getLogger(__name__)
#: Says by a request's headers, as ASGI has them, whether it may read metrics.
MayRead: TypeAlias = Callable[[list[tuple[bytes, bytes]]], bool]
_CHALLENGE = 'Bearer realm="topfive"'
#: A process that has not answered within this time is left out of the sum.
_ANSWER_WITHIN_S = 2.0
#: Metrics go over plain HTTP. Without this, each client would load all certificates of the machine, which blocks the
#: event loop for tens of milliseconds.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Target(NamedTuple):
    """Where a process serves its metrics."""

    address: str
    """host:port."""
    labels: dict[str, str]


class Targets(Protocol):
    """The list of processes that serve metrics."""

    async def find(self, job: str) -> Sequence[Target]:
        """The processes of a job: ``topfive`` itself, ``ray``'s nodes, or ``haproxy``.

        Raises:
            NotReadyError: the list is not known at the moment. An empty list would make Prometheus forget all
                processes; after an error it keeps those it had.
        """
        ...


class OwnProcess:
    """The list of a service that is one process, without Ray: empty, since ``GET /metrics`` reads that process."""

    async def find(self, job: str) -> Sequence[Target]:
        return []


def serve_metrics(host: str, may_read: MayRead | None = None) -> str:
    """Serves this process's metrics on a free port, until the process ends.

    Args:
        host: the address to serve on.
        may_read: says by the headers of a request whether it may read them; by default every request may.

    Returns:
        host:port.
    """
    server, _thread = start_http_server(0, host, REGISTRY)
    if may_read is not None:
        server.set_app(_guarded(server.get_app(), may_read))
    return authority(host, server.server_port)


def _guarded(app: Any, may_read: MayRead) -> Callable[..., Iterable[bytes]]:
    """A WSGI application that answers 401 to requests that may not read the metrics."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        names = {"authorization": "HTTP_AUTHORIZATION", "x-api-key": "HTTP_X_API_KEY"}
        # WSGI has headers as text of Latin-1.
        headers = [(n.encode(), environ[v].encode("latin-1")) for n, v in names.items() if v in environ]
        if may_read(headers):
            found: Iterable[bytes] = app(environ, start_response)
            return found
        start_response("401 Unauthorized", [("Content-Type", "text/plain"), ("WWW-Authenticate", _CHALLENGE)])
        return [b"a key is needed\n"]

    return answer


async def read_all(targets: Sequence[Target], headers: Mapping[str, str] | None = None) -> list[str]:
    """Reads the metrics of several processes. A process that does not answer is left out, with a warning in the log.

    Args:
        targets: where the processes serve them.
        headers: sent with each request: the key of whoever asks for the sum.
    """
    # A proxy from the environment must not be used: these are the service's own processes.
    async with httpx.AsyncClient(timeout=_ANSWER_WITHIN_S, trust_env=False, verify=_NO_CERTIFICATES) as client:

        async def ask(target: Target) -> httpx.Response:
            # The client's own limit applies to each read, not to the whole answer.
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                return await client.get(f"http://{target.address}/metrics", headers=headers)

        answers = await asyncio.gather(*map(ask, targets), return_exceptions=True)
    texts = []
    for target, answer in zip(targets, answers, strict=True):
        if isinstance(answer, httpx.Response) and answer.status_code == 200:
            texts.append(answer.text)
        else:
            log.warning("the metrics of %s %s are not in the sum", target.address, target.labels)
    return texts


def added_up(texts: Iterable[str]) -> bytes:
    """Adds up the metrics of several processes by name and labels; of ``NOT_SUMMED`` it takes the largest."""
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
    """Metrics that have been collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
