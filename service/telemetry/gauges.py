"""Metrics that are read at a scrape: queues, memory, readiness.

The request path does not keep them up to date, and nothing waits for a scrape: the thread that serves it reads plain
numbers from the objects that have them.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.telemetry.metrics import LIVE, NOT_SUMMED, REGISTRY


class UndeclaredMetricError(LookupError):
    """A reading has a name that ``metrics.LIVE`` does not declare, or other labels than declared there."""


class Reading(NamedTuple):
    """The present value of one series."""

    name: str
    value: float
    labels: tuple[str, ...] = ()
    """Values of the labels, in the order in which ``metrics.LIVE`` names them."""


class Source(Protocol):
    """An object that has such numbers. It is read from another thread: it must neither wait nor change anything."""

    def readings(self) -> Iterable[Reading]: ...


class _Live(Collector):
    """Adds up the readings of this process: two checkpoints of one variant share the label ``model``."""

    def __init__(self) -> None:
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()
        self._counters: dict[str, Callable[[], float]] = {}
        # The scrape's thread must not iterate over a set that changes.
        self._changing = threading.Lock()

    def add(self, source: Source) -> None:
        with self._changing:
            self._sources.add(source)

    def discard(self, source: Source) -> None:
        with self._changing:
            self._sources.discard(source)

    def count(self, name: str, read: Callable[[], float]) -> None:
        _check_declared(name, (), counter=True)
        self._counters[name] = read

    def collect(self) -> Iterator[Metric]:
        with self._changing:
            sources = list(self._sources)
        values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in LIVE}
        for source in sources:
            for name, value, labels in source.readings():
                _check_declared(name, labels)
                before = values[name].get(labels, 0.0)
                values[name][labels] = max(before, value) if name in NOT_SUMMED else before + value
        for name, (text, label_names) in LIVE.items():
            if name.endswith("_total"):
                read = self._counters.get(name)
                # Report 0 for counters that have no source.
                yield CounterMetricFamily(name, text, value=0.0 if read is None else read())
                continue
            family = GaugeMetricFamily(name, text, labels=label_names)
            for labels, value in values[name].items():
                family.add_metric(labels, value)
            yield family


def _check_declared(name: str, labels: tuple[str, ...], *, counter: bool = False) -> None:
    """Raises UndeclaredMetricError unless a gauge, or counter, of that name with as many labels is declared."""
    if name not in LIVE or name.endswith("_total") != counter:
        raise UndeclaredMetricError(f"metrics.LIVE declares no {'counter' if counter else 'gauge'} {name}")
    if len(labels) != len(LIVE[name][1]):
        raise UndeclaredMetricError(f"a reading of {name} has the labels {labels}, but declared are {LIVE[name][1]}")


_live = _Live()
REGISTRY.register(_live)


def watch(source: Source) -> None:
    """Reads the source at each scrape, as long as the object exists."""
    _live.add(source)


def unwatch(source: Source) -> None:
    """Stops reading the source."""
    _live.discard(source)


def count(name: str, read: Callable[[], float]) -> None:
    """Reads a counter of ``metrics.LIVE`` at each scrape. Its value belongs to the whole process and never falls.

    Raises:
        UndeclaredMetricError: there is no such metric.
    """
    _live.count(name, read)
