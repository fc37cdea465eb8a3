"""Our counters and histograms against prometheus_client's own, which are the source of every expected text."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from typing import Any

import prometheus_client
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as in_openmetrics

from service.telemetry import series
from service.telemetry.series import Counter, CounterSeries, Histogram, HistogramSeries

BOUNDS = (0, 0.25, 0.5, 1, 2.5, 10)
MODELS = ("lenet5", 'a "model"', "none")
#: On the bounds and between them, and sums that depend on the order of their terms.
VALUES = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 20), st.floats(0, 1e300), st.integers(0, 99))
#: What happens to the metrics: a value for a model, or a scrape.
EVENTS = st.lists(st.one_of(st.none(), st.tuples(st.sampled_from(MODELS), VALUES)), max_size=60)


@pytest.fixture
def one_by_one() -> Iterator[None]:
    """Threads take turns as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@settings(max_examples=50, deadline=None)
@given(EVENTS, st.integers(1, 9))
# Sums that depend on the order: 1e16 + 1 is 1e16.
@example([("none", 1e16), ("none", 1.0), ("none", 1.0)], 9)
def test_a_scrape_reads_as_the_librarys(events: list[tuple[str, float] | None], most_waiting: int) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counters = (
        Counter("asked_total", "Asked.", ["model", "status"], registry=ours),
        prometheus_client.Counter("asked_total", "Asked.", ["model", "status"], registry=theirs),
    )
    histograms = (
        Histogram("took_seconds", "Took.", ["model"], buckets=BOUNDS, registry=ours),
        prometheus_client.Histogram("took_seconds", "Took.", ["model"], buckets=BOUNDS, registry=theirs),
    )
    plain = (
        (
            Counter("all_total", "All.", registry=ours).labels(),
            Histogram("debt", "Debt.", buckets=BOUNDS, registry=ours).labels(),
        ),
        (
            prometheus_client.Counter("all_total", "All.", registry=theirs),
            prometheus_client.Histogram("debt", "Debt.", buckets=BOUNDS, registry=theirs),
        ),
    )
    with pytest.MonkeyPatch.context() as patched:
        # The library adds the time at which each series began, which Prometheus does not store.
        patched.setattr("prometheus_client.metrics._use_created", False)
        patched.setattr(series, "_MOST_WAITING", most_waiting)
        for event in (*events, None):
            if event is None:
                assert generate_latest(ours) == generate_latest(theirs)
                assert in_openmetrics(ours) == in_openmetrics(theirs)
                continue
            model, value = event
            for counter, histogram, (total, debt) in zip(counters, histograms, plain, strict=True):
                counter.labels(model, "200").inc(value)
                histogram.labels(model).observe(value)
                total.inc()
                debt.observe(value)


def test_the_registry_knows_the_names_as_it_knows_the_librarys() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    for counter, histogram, registry in (
        (Counter, Histogram, ours),
        (prometheus_client.Counter, prometheus_client.Histogram, theirs),
    ):
        counter("asked_total", "Asked.", ["model"], registry=registry)
        histogram("took_seconds", "Took.", ["model"], buckets=BOUNDS, registry=registry)
    assert list(ours._names_to_collectors) == list(theirs._names_to_collectors)
    with pytest.raises(ValueError, match="Duplicated"):
        Histogram("took_seconds", "Took.", buckets=BOUNDS, registry=ours)


def test_a_metric_without_labels_begins_at_once_and_one_with_labels_does_not() -> None:
    registry = CollectorRegistry()
    for labels in ([], ["model"]):
        name = f"of_{len(labels)}_labels"
        Counter(f"{name}_total", "Counted.", labels, registry=registry)
        Histogram(name + "_seconds", "Took.", labels, buckets=BOUNDS, registry=registry)
    samples = {family.name: len(family.samples) for family in registry.collect()}
    of_a_histogram = len(BOUNDS) + len(["+Inf", "count", "sum"])
    assert samples == {
        "of_0_labels": 1,
        "of_0_labels_seconds": of_a_histogram,
        "of_1_labels": 0,
        "of_1_labels_seconds": 0,
    }


def test_a_series_is_the_same_whenever_it_is_looked_up() -> None:
    counter = Counter("asked_total", "Asked.", ["model"], registry=CollectorRegistry())
    assert counter.labels("lenet5") is counter.labels("lenet5")
    assert counter.labels("lenet5") is not counter.labels("vgg16")


@pytest.mark.parametrize("values", [(), ("lenet5",), ("lenet5", "200", "ok")])
def test_a_series_needs_a_value_for_each_label(values: tuple[str, ...]) -> None:
    registry = CollectorRegistry()
    counter = Counter("asked_total", "Asked.", ["model", "status"], registry=registry)
    with pytest.raises(ValueError, match="asked_total has the labels"):
        counter.labels(*values)
    assert not any(family.samples for family in registry.collect())


def test_a_counter_cannot_fall() -> None:
    counter = CounterSeries()
    counter.inc(2)
    with pytest.raises(ValueError, match=r"cannot fall by 0\.5"):
        counter.inc(-0.5)
    assert counter.read() == 2


def test_observations_that_nobody_scrapes_do_not_pile_up() -> None:
    counter, histogram = CounterSeries(), HistogramSeries((1.0, float("inf")))
    for _ in range(10_000):
        counter.inc()
        histogram.observe(2)
        assert len(counter._waiting) <= 256
        assert len(histogram._waiting) <= 256
    assert counter.read() == 10_000
    assert histogram.read() == ([0, 10_000], 20_000)


def test_an_observation_between_the_copy_and_the_shortening_stays() -> None:
    """Threads meet there too seldom for a test of threads."""

    class Interrupted(list[float]):
        def __getitem__(self, at: Any) -> Any:
            copied = super().__getitem__(at)
            self.append(5.0)
            return copied

    counter = CounterSeries()
    counter._waiting = Interrupted([1.0, 2.0])
    assert [counter.read(), counter.read()] == [3, 8]


@pytest.mark.parametrize("step", ["read", "observe"])
def test_one_thread_at_a_time_adds_up(step: str) -> None:
    counter, histogram = CounterSeries(), HistogramSeries((1.0, float("inf")))
    for _ in range(256):
        counter.inc()
        histogram.observe(2)
    for one, call in ((counter, counter.inc), (histogram, lambda: histogram.observe(2))):
        thread = threading.Thread(target=one.read if step == "read" else call)
        with one._adding:
            thread.start()
            thread.join(0.02)
            assert thread.is_alive()
        thread.join()
        assert not one._waiting


@pytest.mark.usefixtures("one_by_one")
def test_threads_that_observe_and_scrape_at_once_lose_nothing() -> None:
    counter, histogram = CounterSeries(), HistogramSeries((1.0, float("inf")))
    writers, times, ends = 4, 4_000, threading.Event()
    scraped: list[tuple[float, list[float], float]] = []

    def observe() -> None:
        for number in range(times):
            counter.inc()
            histogram.observe(number % 3)

    def scrape() -> None:
        while not ends.is_set():
            scraped.append((counter.read(), *histogram.read()))

    threads = [threading.Thread(target=observe) for _ in range(writers)]
    scrapers = [threading.Thread(target=scrape) for _ in range(2)]
    for thread in (*threads, *scrapers):
        thread.start()
    for thread in threads:
        thread.join()
    ends.set()
    for thread in scrapers:
        thread.join()
    of_each = [number % 3 for number in range(times)]
    assert counter.read() == writers * times
    assert histogram.read() == (
        [writers * sum(value <= 1 for value in of_each), writers * times],
        writers * sum(of_each),
    )
    # A sum is at least what its counts say, and no more: 2 for each value above 1, up to 1 for the others.
    for _, (small, everything), total in scraped:
        assert 2 * (everything - small) <= total <= 2 * (everything - small) + small


def test_series_that_begin_during_a_scrape_do_not_break_it() -> None:
    registry = CollectorRegistry()
    counter = Counter("asked_total", "Asked.", ["model"], registry=registry)
    counter.labels("0")
    numbers = itertools.count(1)
    original = CounterSeries.read

    def read(self: CounterSeries) -> float:
        counter.labels(str(next(numbers)))
        return original(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CounterSeries, "read", read)
        generate_latest(registry)
    assert len(next(iter(registry.collect())).samples) == 2
