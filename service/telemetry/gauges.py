"""Metrics that are read when Prometheus asks: how queues and memory stand.

Nothing on the request path keeps them up to date, and nothing waits for a scrape: the thread that serves it reads plain
numbers of the objects that have them, as they are at that moment.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.telemetry.metrics import LIVE, NOT_SUMMED, REGISTRY


class Reading(NamedTuple):
    """One of ``metrics.LIVE``, now."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


class Source(Protocol):
    """What has such numbers. Asked on another thread than its own: it must not wait, and not change."""

    def readings(self) -> Iterable[Reading]: ...


class _Live(Collector):
    """Adds up the sources of this process: two checkpoints of one variant are one ``model``."""

    def __init__(self) -> None:
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()
        # A set that changes while the scrape's thread goes through it is an error.
        self._changing = threading.Lock()

    def add(self, source: Source) -> None:
        with self._changing:
            self._sources.add(source)

    def discard(self, source: Source) -> None:
        with self._changing:
            self._sources.discard(source)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with self._changing:
            sources = list(self._sources)
        totals: dict[tuple[str, tuple[str, ...]], float] = {}
        for source in sources:
            for name, value, labels in source.readings():
                before = totals.get((name, labels), 0.0)
                totals[name, labels] = max(before, value) if name in NOT_SUMMED else before + value
        for name, (what, names) in LIVE.items():
            family = GaugeMetricFamily(name, what, labels=names)
            for (of, labels), value in totals.items():
                if of == name:
                    family.add_metric(labels, value)
            yield family


_live = _Live()
REGISTRY.register(_live)


def watch(source: Source) -> None:
    """Reads it at each scrape from now on, as long as it lives."""
    _live.add(source)


def unwatch(source: Source) -> None:
    """It has nothing to say any more."""
    _live.discard(source)
