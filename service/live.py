"""Metrics that are read when Prometheus asks: how queues and memory stand.

Nothing on the request path keeps them up to date, and nothing waits for a scrape: the thread that serves it reads plain
numbers of the objects that have them, as they are at that moment.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.metrics import LIVE, NOT_SUMMED, REGISTRY


class Reading(NamedTuple):
    """One of ``metrics.LIVE``, now."""

    name: str
    value: float
    model: str | None = None


class Source(Protocol):
    """What has such numbers. Asked on another thread than its own: it must not wait, and not change."""

    def readings(self) -> Iterable[Reading]: ...


class _Live(Collector):
    """Adds up the sources of this process: two checkpoints of one variant are one ``model``."""

    def __init__(self) -> None:
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()

    def add(self, source: Source) -> None:
        self._sources.add(source)

    def discard(self, source: Source) -> None:
        self._sources.discard(source)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        totals: dict[tuple[str, str | None], float] = {}
        for source in list(self._sources):
            for name, value, model in source.readings():
                before = totals.get((name, model), 0.0)
                totals[name, model] = max(before, value) if name in NOT_SUMMED else before + value
        for name, (what, labels) in LIVE.items():
            family = GaugeMetricFamily(name, what, labels=labels)
            for (of, model), value in totals.items():
                if of == name:
                    family.add_metric([] if model is None else [model], value)
            yield family


_live = _Live()
REGISTRY.register(_live)


def watch(source: Source) -> None:
    """Reads it at each scrape from now on, as long as it lives."""
    _live.add(source)


def unwatch(source: Source) -> None:
    """It has nothing to say any more."""
    _live.discard(source)
