"""Several processes' metrics as one's, and where they are found."""

from __future__ import annotations

import threading

import httpx
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.exposition import added_up, serve_metrics
from tests.exposing import Process

MODELS = ("lenet5", "vgg16")


processes = st.lists(
    st.lists(st.tuples(st.sampled_from(MODELS), st.integers(0, 1000), st.sampled_from((0.0625, 0.5, 4.0))), max_size=8),
    min_size=1,
    max_size=4,
)


@given(processes)
def test_processes_add_up(happened: list[list[tuple[str, int, float]]]) -> None:
    texts, everything = [], Process()
    for index, events in enumerate(happened):
        process = Process()
        for model, times, seconds in events:
            for each in (process, everything):
                each.requests.labels(model).inc(times)
                each.seconds.labels(model).observe(seconds)
            process.oldest.labels(model).set(seconds)
        process.held.set(index)
        texts.append(process.text)
    everything.held.set(sum(range(len(happened))))
    for model in MODELS:
        last = [{m: s for m, _, s in events}.get(model) for events in happened]
        ages = [age for age in last if age is not None]
        if ages:
            everything.oldest.labels(model).set(max(ages))
    assert _samples(added_up(texts).decode()) == _samples(everything.text)


def test_the_sum_is_what_prometheus_reads() -> None:
    process = Process()
    process.requests.labels('a "quoted"\nname\\').inc()
    text = added_up([process.text, process.text]).decode()
    assert "# TYPE requests_total counter" in text
    assert "# HELP seconds How long." in text
    assert _samples(text)[("requests_total", (("model", 'a "quoted"\nname\\'),))] == 2


def test_a_process_serves_its_metrics_on_a_port_of_its_own() -> None:
    before = {thread.name for thread in threading.enumerate()}
    address = serve_metrics("127.0.0.1")
    assert "topfive_requests_total" in httpx.get(f"http://{address}/metrics", trust_env=False).text
    started = [t for t in threading.enumerate() if t.name not in before]
    # It must not keep a process from ending.
    assert all(thread.daemon for thread in started)


def _samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
