"""Metrics that are read at a scrape."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.telemetry import gauges
from service.telemetry.gauges import Reading, UndeclaredMetricError, watch
from service.telemetry.metrics import LIVE, REGISTRY


class Source:
    """An object with the given readings."""

    def __init__(self, *readings: Reading) -> None:
        self._readings = readings

    def readings(self) -> Iterator[Reading]:
        yield from self._readings


class Scrape:
    """Gauges of their own, beside those of this process."""

    def __init__(self) -> None:
        self.live = gauges._Live()
        self._registry = CollectorRegistry()
        self._registry.register(self.live)

    def __call__(self) -> dict[tuple[str, ...], float]:
        """By name and labels' values, in the order in which they are declared."""
        return {
            (sample.name, *(sample.labels[label] for label in LIVE[sample.name][1])): sample.value
            for family in self._registry.collect()
            for sample in family.samples
        }

    @property
    def text(self) -> str:
        return generate_latest(self._registry).decode()


@pytest.fixture
def scrape() -> Scrape:
    return Scrape()


NOTHING = {("topfive_oom_splits_total",): 0.0}


def test_readings_add_up_except_ages_and_footprints(scrape: Scrape) -> None:
    one = Source(
        Reading("topfive_queue_length", 3, ("lenet5",)),
        Reading("topfive_queue_oldest_seconds", 0.5, ("lenet5",)),
        Reading("topfive_footprint_bytes", 100, ("lenet5",)),
        Reading("topfive_resident_bytes", 100, ("lenet5",)),
        Reading("topfive_in_flight", 2),
        Reading("topfive_checkpoint_info", 1, ("lenet5", "lenet5@mnist", "mnist", "box", "true")),
    )
    other = Source(
        Reading("topfive_queue_length", 4, ("lenet5",)),
        Reading("topfive_queue_length", 7, ("vgg16",)),
        Reading("topfive_queue_oldest_seconds", 0.25, ("lenet5",)),
        Reading("topfive_footprint_bytes", 300, ("lenet5",)),
        Reading("topfive_resident_bytes", 300, ("lenet5",)),
        Reading("topfive_in_flight", 5),
        Reading("topfive_checkpoint_info", 1, ("lenet5", "lenet5@mnist", "mnist", "box", "true")),
    )
    scrape.live.add(one)
    scrape.live.add(other)
    assert scrape() == NOTHING | {
        ("topfive_queue_length", "lenet5"): 7,
        ("topfive_queue_length", "vgg16"): 7,
        ("topfive_queue_oldest_seconds", "lenet5"): 0.5,
        ("topfive_footprint_bytes", "lenet5"): 300,
        ("topfive_resident_bytes", "lenet5"): 400,
        ("topfive_in_flight",): 7,
        ("topfive_checkpoint_info", "lenet5", "lenet5@mnist", "mnist", "box", "true"): 1,
    }


def test_a_source_is_read_once_each_time_until_it_is_discarded_or_gone(scrape: Scrape) -> None:
    source, gone = Source(Reading("topfive_in_flight", 2)), Source(Reading("topfive_in_flight", 8))
    scrape.live.add(source)
    scrape.live.add(source)
    scrape.live.add(gone)
    assert scrape()["topfive_in_flight",] == 10
    assert scrape()["topfive_in_flight",] == 10
    del gone
    gc.collect()
    assert scrape()["topfive_in_flight",] == 2
    scrape.live.discard(source)
    assert scrape() == NOTHING


@pytest.mark.parametrize(
    "reading",
    [
        Reading("topfive_queue_lenght", 1, ("lenet5",)),
        Reading("topfive_queue_length", 1),
        Reading("topfive_queue_length", 1, ("lenet5", "mnist")),
        Reading("topfive_in_flight", 1, ("lenet5",)),
        Reading("topfive_oom_splits_total", 1),
    ],
    ids=["name", "no label", "too many labels", "a label", "counter"],
)
def test_a_reading_that_no_gauge_declares_is_an_error(scrape: Scrape, reading: Reading) -> None:
    source = Source(Reading("topfive_in_flight", 1), reading)
    scrape.live.add(source)
    with pytest.raises(UndeclaredMetricError, match=reading.name):
        scrape()


def test_a_counter_is_read_where_it_is_counted(scrape: Scrape) -> None:
    assert "# TYPE topfive_oom_splits_total counter\ntopfive_oom_splits_total 0.0\n" in scrape.text
    counted = [3]
    scrape.live.count("topfive_oom_splits_total", lambda: counted[0])
    assert scrape()["topfive_oom_splits_total",] == 3
    counted[0] = 5
    assert "topfive_oom_splits_total 5.0\n" in scrape.text


@pytest.mark.parametrize("name", ["topfive_oom_halvings_total", "topfive_in_flight"])
def test_a_counter_must_be_declared(name: str, scrape: Scrape) -> None:
    with pytest.raises(UndeclaredMetricError, match=name):
        scrape.live.count(name, lambda: 1.0)


def test_what_is_watched_is_among_the_metrics_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges._live, "_counters", {})
    source = Source(Reading("topfive_queue_length", 6, ("a test",)))

    def read() -> float | None:
        return REGISTRY.get_sample_value("topfive_queue_length", {"model": "a test"})

    assert read() is None
    watch(source)
    assert read() == 6
    gauges.unwatch(source)
    assert read() is None
    gauges.count("topfive_oom_splits_total", lambda: 9.0)
    assert REGISTRY.get_sample_value("topfive_oom_splits_total") == 9
