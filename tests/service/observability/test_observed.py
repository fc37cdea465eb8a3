"""The real service under the real Prometheus: the counters are what was sent, and every panel has data."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest

from docs.render.queries import Window, dashboards, panel_queries
from tests.pictures import DIGIT, photo
from tests.prometheus import Prometheus, eventually, prometheus
from tests.running import Service

pytestmark = [
    pytest.mark.slow,
    pytest.mark.service,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus: apt-get install prometheus"),
]

#: Two replicas, each with memory for AlexNet and some of the others, but not for all networks.
NAMES = ["lenet5", "googlenet", "googlenet_bn", "alexnet"]
FLEET = f"[[deployment]]\nvariants = {NAMES}\nreplicas = 2\nnum_cpus = 0.5\nthreads = 2\n"
MEMORY_LIMIT_MB = 600
#: How long the mixture of requests is sent: a few evaluations of the rules, and several scrapes.
SENT_FOR_S = 20.0
#: How long a dead replica may still be listed.
GONE_WITHIN_S = 15.0

REQUESTS: list[tuple[str, bytes]] = [
    ("model=lenet5", DIGIT.read_bytes()),
    ("model=googlenet", photo()),
    ("model=googlenet_bn", photo()),
    ("model=alexnet&latency_ms=20000", photo()),
    ("latency_ms=5000", photo()),
    ("memory_mb=150", photo()),
    ("memory_mb=1", photo()),
    ("model=googlenet&latency_ms=60", photo()),
    ("model=lenet5", b"this is no picture"),
    ("model=nobody-knows-this", photo()),
    ("colour=red", photo()),
]


class Observed(NamedTuple):
    service: Service
    prometheus: Prometheus
    sent: Counter[tuple[str, str]]
    """The number of answers by status and reason."""
    served: Counter[str]
    """The number of answers with status 200 by model."""
    began: float
    """Seconds since 1970."""


@pytest.fixture(scope="module")
def observed(untrained_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    (folder / "fleet.toml").write_text(FLEET)
    options = ["--untrained", "--device", "cpu", "--fleet", str(folder / "fleet.toml")]
    limit = ["--memory-limit-mb", str(MEMORY_LIMIT_MB)]
    service = Service(untrained_cache, *options, *limit, log=folder / "service.log")
    try:
        service.wait_until_ready(within_s=300)
        with prometheus(service.url, folder) as seen:
            # Prometheus sees no increase in what was counted before its first scrape.
            assert eventually(lambda: list(seen.targets("topfive").values()) == ["up", "up"])
            assert eventually(lambda: seen.values("sum(topfive_requests_total)"))
            began = time.time()
            sent, served = asyncio.run(_send(service.url))
            yield Observed(service, seen, sent, served, began)
    finally:
        assert service.stop() == 0


async def _send(url: str) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """Sends a mixture of requests, with bursts of short deadlines in between, and a bulk request at the end."""
    sent: Counter[tuple[str, str]] = Counter()
    served: Counter[str] = Counter()
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:

        async def one(query: str, content: bytes) -> None:
            answer = await client.post(f"/classify?{query}", content=content)
            reason = "ok" if answer.status_code == 200 else answer.json()["type"].rpartition("/")[2]
            sent[str(answer.status_code), reason] += 1
            if answer.status_code == 200:
                served[answer.headers["x-model-served"]] += 1

        ends = time.monotonic() + SENT_FOR_S
        while time.monotonic() < ends:
            await asyncio.gather(*(one(query, content) for query, content in REQUESTS))
            await asyncio.gather(*(one("model=googlenet&latency_ms=400", photo()) for _ in range(30)))
        files = [("a", ("a.png", DIGIT.read_bytes())), ("b", ("b.png", b"no picture"))]
        answer = await client.post("/classify?model=lenet5", files=files)
        assert answer.status_code == 200
        sent["200", "partial"] += 1
        served["lenet5"] += 1
    return sent, served


def test_the_mixture_had_everything_in_it(observed: Observed) -> None:
    assert set(observed.served) == set(NAMES)
    assert observed.sent["429", "overloaded"]
    kinds = {reason for (_, reason), _ in observed.sent.items()}
    assert {"ok", "no-model-fits", "undecodable", "unknown-model", "bad-parameter", "partial"} <= kinds


def test_counters_are_what_was_sent(observed: Observed) -> None:
    seen = observed.prometheus
    total = sum(observed.sent.values())
    assert eventually(lambda: seen.values("sum(topfive_requests_total)") == {(): total})
    by_kind = {
        (status, reason): times
        for (reason, status), times in seen.values("sum by (reason, status) (topfive_requests_total) > 0").items()
    }
    assert by_kind == observed.sent
    answered = seen.values('sum by (model) (topfive_requests_total{status="200"}) > 0')
    assert answered == {(model,): times for model, times in observed.served.items()}
    served, late = sum(observed.served.values()), observed.sent["504", "deadline-missed"]
    assert seen.values("sum(topfive_forward_seconds_count)") == {(): served}
    # Some of the late pictures were already in a forward pass.
    assert served <= seen.values("sum(topfive_batch_size_sum)")[()] <= served + late
    assert seen.values('sum(topfive_shed_total{reason="deadline"})') == {(): late}
    refused = observed.sent["429", "overloaded"]
    assert seen.values('sum(topfive_shed_total{reason=~"router|queue"})') == {(): refused}


def test_two_replicas_add_up(observed: Observed) -> None:
    each = observed.prometheus.values("sum by (replica) (topfive_requests_total)")
    assert len(each) == 2
    assert all(each.values())
    total = sum(observed.sent.values())
    assert sum(each.values()) == total
    answer = httpx.get(f"{observed.service.url}/metrics", trust_env=False)
    assert answer.headers["x-processes"] == "2 of 2"
    counted = re.findall(r"^topfive_requests_total\{.*\} (\S+)$", answer.text, re.MULTILINE)
    assert sum(float(number) for number in counted) == total


def test_metrics_of_memory_agree_with_each_other(observed: Observed) -> None:
    seen = observed.prometheus
    assert seen.values("sum(topfive_evictions_total)")[()] > 0
    loaded = seen.values('sum by (model) (topfive_loads_total{result="ok"}) - sum by (model) (topfive_evictions_total)')
    resident = seen.values("sum by (model) (topfive_resident_bytes > bool 0)")
    assert loaded == resident
    assert seen.values("sum(topfive_memory_limit_bytes)") == {(): 2 * MEMORY_LIMIT_MB * 1e6}
    assert seen.values(f"sum by (replica) (topfive_resident_bytes) > {MEMORY_LIMIT_MB}e6") == {}
    (share,) = seen.values(
        "max(topfive_footprint_bytes{model='alexnet'}) / scalar(sum(max by (model) (topfive_footprint_bytes)))"
    ).values()
    assert share > 0.5


def queries() -> Iterator[tuple[str, int, str]]:
    """Each query: its dashboard, its index, and the title of its panel."""
    for name, board in dashboards().items():
        for place, query in enumerate(panel_queries(board, Window(0, 60))):
            yield name, place, query.panel


@pytest.mark.parametrize(("name", "place", "title"), list(queries()))
def test_every_panel_has_its_data(observed: Observed, name: str, place: int, title: str) -> None:
    query = panel_queries(dashboards()[name], Window(observed.began, time.time()))[place]
    assert query.panel == title
    seen = observed.prometheus
    values = eventually(lambda: seen.values(query.expression), within_s=1 if query.may_be_empty else 20)
    assert values or query.may_be_empty
    assert all(math.isfinite(value) and value >= 0 for value in values.values()), (query.expression, values)


def test_every_rule_has_its_data(observed: Observed) -> None:
    rules = observed.prometheus.rules()
    assert {rule["health"] for rule in rules} == {"ok"}, [r for r in rules if r["health"] != "ok"]
    recorded = [rule["name"] for rule in rules if rule["type"] == "recording"]
    assert recorded
    for name in recorded:
        values = eventually(lambda name=name: observed.prometheus.values(name))  # type: ignore[misc]
        assert values, name
        assert all(math.isfinite(value) and value >= 0 for value in values.values()), (name, values)


def test_rays_and_haproxys_metrics_are_there(observed: Observed) -> None:
    seen = observed.prometheus
    for job in ("ray", "haproxy"):
        assert set(seen.targets(job).values()) == {"up"}
    assert seen.values("sum(haproxy_backend_http_responses_total{code='2xx'})")[()] > 0
    assert seen.values("max(ray_node_mem_total)")[()] > 0


def test_a_dead_replica_is_no_target_and_the_other_is_still_scraped(observed: Observed) -> None:
    url, seen = observed.service.url, observed.prometheus

    def listed() -> set[str]:
        # While HAProxy notices that a replica is gone, it answers itself, or closes the connection.
        try:
            answer = httpx.get(f"{url}/metrics/targets", timeout=10, trust_env=False)
        except httpx.TransportError:
            return set()
        return {group["targets"][0] for group in answer.json()} if answer.status_code == 200 else set()

    killed, other = sorted(listed())
    os.kill(_listener(killed), signal.SIGKILL)
    died = time.monotonic()
    assert eventually(lambda: (found := listed()) and killed not in found, within_s=GONE_WITHIN_S)
    assert time.monotonic() - died < GONE_WITHIN_S + 5
    assert eventually(lambda: other in listed())
    assert eventually(lambda: killed not in seen.targets("topfive"))
    assert seen.targets("topfive")[other] == "up"
    # Ray replaces it, and the new replica is found.
    assert eventually(lambda: len(listed()) == 2)


def _listener(address: str) -> int:
    port = int(address.rpartition(":")[2])
    found = [c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port]
    (pid,) = [pid for pid in found if pid is not None]
    return pid
