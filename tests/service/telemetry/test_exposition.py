"""Several processes' metrics as one's, and where they are found."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from models.checkpoints.catalogue import Catalogue
from service.config.listening import is_wildcard
from service.config.settings import Settings
from service.domain.errors import NotReadyError
from service.domain.prediction import Limits
from service.http.app import create_app
from service.runtime.placement import LocalPlacement
from service.telemetry.exposition import Target, added_up, serve_metrics
from tests.fakes import Fakes

MODELS = ("lenet5", "vgg16")


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


class Found:
    def __init__(self, *targets: Target) -> None:
        self.targets = targets
        self.asked: list[str] = []

    async def find(self, job: str) -> Sequence[Target]:
        self.asked.append(job)
        return self.targets


@contextmanager
def serving(process: Process) -> Iterator[str]:
    server, thread = start_http_server(0, "127.0.0.1", process.registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def client_of(targets: Found, cache_dir: Path) -> httpx.AsyncClient:
    placement = LocalPlacement(lambda _checkpoint: pytest.fail("nothing is loaded here"), Limits())
    app = create_app(Catalogue(cache_dir), placement, Settings(cache_dir=cache_dir), targets=targets)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://topfive")


async def test_metrics_are_the_sum_over_the_targets(tmp_path: Path) -> None:
    one, other = Process(), Process()
    one.requests.labels("lenet5").inc(3)
    other.requests.labels("lenet5").inc(4)
    with serving(one) as first, serving(other) as second:
        targets = Found(Target(first, {"replica": "a"}), Target(second, {"replica": "b"}))
        async with client_of(targets, tmp_path) as client:
            answer = await client.get("/metrics")
    assert 'requests_total{model="lenet5"} 7.0' in answer.text
    assert answer.headers["x-processes"] == "2 of 2"
    assert answer.headers["content-type"].startswith("text/plain; version=")


async def test_a_process_that_does_not_answer_is_left_out(tmp_path: Path) -> None:
    process = Process()
    process.requests.labels("lenet5").inc(3)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        with serving(process) as address:
            targets = Found(Target(nobody, {"replica": "dead"}), Target(address, {"replica": "b"}))
            async with client_of(targets, tmp_path) as client:
                answer = await client.get("/metrics")
    assert 'requests_total{model="lenet5"} 3.0' in answer.text
    assert answer.headers["x-processes"] == "1 of 2"


async def test_targets_are_in_the_form_of_http_sd(tmp_path: Path) -> None:
    targets = Found(Target("127.0.0.1:1234", {"deployment": "googlenet", "replica": "x1"}))
    async with client_of(targets, tmp_path) as client:
        answer = await client.get("/metrics/targets")
        await client.get("/metrics/targets?job=ray")
        wrong = await client.get("/metrics/targets?job=jenkins")
        unknown = await client.get("/metrics/targets?jobs=ray")
    assert answer.json() == [
        {"targets": ["127.0.0.1:1234"], "labels": {"deployment": "googlenet", "replica": "x1"}},
    ]
    # Prometheus takes nothing else.
    assert answer.headers["content-type"] == "application/json"
    assert targets.asked == ["topfive", "ray"]
    assert wrong.status_code == unknown.status_code == 400
    assert wrong.json()["type"] == "/problems/bad-parameter"


async def test_no_certificates_are_read_for_plain_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold up all requests for tens of milliseconds."""
    with serving(Process()) as address:
        async with client_of(Found(Target(address, {})), tmp_path) as client:
            monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: pytest.fail("certificates are read"))
            monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: pytest.fail("they are read"))
            assert (await client.get("/metrics")).headers["x-processes"] == "1 of 1"


async def test_while_nobody_knows_where_they_are_there_is_no_list(tmp_path: Path) -> None:
    """An empty one would make Prometheus forget them all."""

    class Lost(Found):
        async def find(self, job: str) -> Sequence[Target]:
            raise NotReadyError("the list of processes is being made anew")

    async with client_of(Lost(), tmp_path) as client:
        answer = await client.get("/metrics/targets")
        own = await client.get("/metrics")
    assert answer.status_code == 503
    assert answer.json()["type"] == "/problems/not-ready"
    # A look without Prometheus shows this process at least.
    assert own.status_code == 200
    assert "topfive_requests_total" in own.text


async def test_a_service_without_ray_has_its_own_metrics(tmp_path: Path) -> None:
    # Placements of other tests are seen for as long as they are in memory.
    gc.collect()
    async with Fakes(tmp_path).client() as client:
        answer = await client.get("/metrics")
        assert (await client.get("/metrics/targets")).json() == []
    assert answer.status_code == 200
    assert "topfive_ready 1.0" in answer.text
    assert "x-processes" not in answer.headers


def test_a_process_serves_its_metrics_on_a_port_of_its_own() -> None:
    before = {thread.name for thread in threading.enumerate()}
    address = serve_metrics("127.0.0.1")
    assert "topfive_requests_total" in httpx.get(f"http://{address}/metrics", trust_env=False).text
    started = [t for t in threading.enumerate() if t.name not in before]
    # It must not keep a process from ending.
    assert all(thread.daemon for thread in started)


@pytest.mark.parametrize(
    ("host", "wildcard"),
    [("0.0.0.0", True), ("::", True), ("0", True), ("127.0.0.1", False), ("::1", False), ("localhost", False)],
)
def test_a_wildcard_is_no_address(host: str, wildcard: bool) -> None:
    assert is_wildcard(host) == wildcard


def _samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
