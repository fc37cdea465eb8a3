"""Budgets on the real service, in both fleets: the same choices and the same refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.pictures import photo
from tests.running import Service

pytestmark = [pytest.mark.slow, pytest.mark.service, pytest.mark.timeout(400)]

#: Two networks of similar cost, of which the more accurate one is also the smaller one.
NAMES = ["googlenet", "googlenet_bn"]
LOCAL = f"[[deployment]]\nvariants = {json.dumps(NAMES)}\n"
CLUSTER = "[ingress]\nnum_cpus = 0.1\n" + "".join(
    f'[[deployment]]\nvariants = ["{name}"]\nnum_cpus = 0.1\n' for name in NAMES
)


@pytest.fixture(scope="module", params=[LOCAL, CLUSTER], ids=["local", "cluster"])
def client(
    request: pytest.FixtureRequest, untrained_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("budgets")
    fleet = folder / "fleet.toml"
    fleet.write_text(request.param)
    service = Service(untrained_cache, "--untrained", "--fleet", str(fleet), log=folder / "log.txt")
    try:
        service.wait_until_ready(within_s=240)
        with httpx.Client(base_url=service.url, timeout=60) as client:
            yield client
    finally:
        assert service.stop() == 0


def classify(client: httpx.Client, query: str) -> tuple[int, dict[str, Any]]:
    answer = client.post(f"/classify?{query}", content=photo())
    return answer.status_code, answer.json()


def footprint(client: httpx.Client, name: str) -> float:
    return float(client.get(f"/models/{name}").json()["footprint_mb"])


def test_the_most_accurate_network_within_the_budget_answers_with_the_reason(client: httpx.Client) -> None:
    status, body = classify(client, "latency_ms=20000")
    assert (status, body["model"]) == (200, "googlenet_bn")
    assert body["routing"]["predicted_ms"] > 0
    assert body["routing"]["considered"] == []
    decision = client.post("/route?latency_ms=20000").json()
    assert (decision["model"], decision["footprint_mb"]) == ("googlenet_bn", footprint(client, "googlenet_bn"))


@pytest.mark.parametrize(
    ("query", "words"),
    [("memory_mb=1", "the smallest"), ("latency_ms=0.5", "the nearest"), ("min_top1=99", "the nearest")],
)
def test_a_budget_that_cannot_be_met_is_refused_for_good(client: httpx.Client, query: str, words: str) -> None:
    for named in ("", "&model=googlenet"):
        status, body = classify(client, query + named)
        assert (status, body["type"]) == (422, "/problems/no-model-fits")
        assert words in body["detail"]
    assert classify(client, f"{query}&model=googlenet&strict=false")[0] == 200


def test_in_a_burst_every_request_is_answered_or_told_when_to_retry(client: httpx.Client) -> None:
    answers = asyncio.run(_at_once(str(client.base_url), "latency_ms=700", 60))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 429, 504}
    assert statuses.count(200) > 0
    refused = [answer for answer in answers if answer.status_code == 429]
    # Sixty photographs take seconds on any machine without a GPU.
    assert refused
    assert min(int(answer.headers["retry-after"]) for answer in refused) >= 1
    # The header has whole seconds, and short waits have the same.
    waits = [answer.json()["retry_after_ms"] for answer in refused]
    assert len(set(waits)) > 1
    assert all(answer.json()["considered"] for answer in refused)


async def _at_once(url: str, query: str, count: int) -> list[httpx.Response]:
    picture = photo()
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        return await asyncio.gather(*(client.post(f"/classify?{query}", content=picture) for _ in range(count)))


def test_an_unloaded_network_is_loaded_again_by_a_request(client: httpx.Client) -> None:
    unloaded = client.post("/models/googlenet/unload?wait=true")
    assert (unloaded.status_code, unloaded.json()["resident"]) == (200, False)
    assert classify(client, "model=googlenet")[0] == 200
    loaded = client.post("/models/googlenet/load")
    assert (loaded.status_code, loaded.json()["resident"]) == (200, True)
