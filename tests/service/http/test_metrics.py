"""The sum of several processes' metrics, and where Prometheus finds each."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from models.checkpoints.catalogue import Catalogue
from service.config.settings import Settings
from service.domain.errors import NotReadyError
from service.domain.prediction import Limits
from service.http.app import create_app
from service.runtime.placement import LocalPlacement
from service.telemetry.exposition import Target
from service.telemetry.metrics import REGISTRY
from tests.exposing import Found, Process, serving
from tests.fakes import Fakes


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
    """Reading them would block all requests for tens of milliseconds."""
    with serving(Process()) as address:
        async with client_of(Found(Target(address, {})), tmp_path) as client:
            monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: pytest.fail("certificates are read"))
            monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: pytest.fail("they are read"))
            assert (await client.get("/metrics")).headers["x-processes"] == "1 of 1"


async def test_an_unknown_list_of_targets_is_503(tmp_path: Path) -> None:
    """An empty list would make Prometheus forget all processes."""

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
    # FastAPI keeps the apps of other tests in a cache, and with them placements that were not closed.
    before = REGISTRY.get_sample_value("topfive_ready") or 0.0
    async with Fakes(tmp_path).client() as client:
        answer = await client.get("/metrics")
        assert (await client.get("/metrics/targets")).json() == []
    assert answer.status_code == 200
    assert f"\ntopfive_ready {before + 1}\n" in answer.text
    assert "x-processes" not in answer.headers
    # A placement that is closed is not read any more.
    assert (REGISTRY.get_sample_value("topfive_ready") or 0.0) == before
