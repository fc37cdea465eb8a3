"""``POST /classify`` with slow uploads: budgets and timings count from the end of the body."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints.catalogue import Catalogue
from service.domain.errors import DeadlineMissedError, NoModelFitsError
from service.domain.prediction import Limits
from service.domain.query import Query
from service.engines.fake import FakeEngine
from service.http import classify, uploads
from service.routing.router import Router
from service.runtime.placement import LocalPlacement
from service.telemetry.logs import configure_logging
from tests.counted import counted
from tests.fakes import Fakes
from tests.pictures import picture
from tests.problems import problem
from tests.profiles import Measured, profile

UPLOAD_S = 0.5


async def slowly(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), -(-len(content) // 10)):
        await asyncio.sleep(UPLOAD_S / 10)
        yield content[start : start + -(-len(content) // 10)]


@pytest.mark.parametrize("query", ["?model=lenet5&latency_ms=300", "?labels=mnist&latency_ms=300"])
async def test_a_budget_shorter_than_the_upload_can_be_met(fakes: Fakes, query: str) -> None:
    fakes.profiles = [profile("lenet5@mnist", forward_ms=1)]
    with counted() as found:
        async with fakes.client() as client:
            began = time.monotonic()
            answer = await client.post(f"/classify{query}", content=slowly(picture(5)))
            took_ms = (time.monotonic() - began) * 1000
    assert answer.status_code == 200, answer.text
    body = answer.json()
    # All of these count from the end of the body.
    assert took_ms > UPLOAD_S * 1000 > 300
    assert body["timings_ms"]["total"] < took_ms - UPLOAD_S * 900
    assert body["routing"]["predicted_ms"] < 300
    assert found.rise("topfive_request_seconds_sum") < UPLOAD_S
    assert found.rise("topfive_budget_used_ratio_sum") < 1


async def test_the_default_latency_counts_from_the_end_of_the_body(fakes: Fakes) -> None:
    fakes.settings = fakes.settings.model_copy(update={"default_latency_ms": 300})
    fakes.profiles = [profile("lenet5@mnist", forward_ms=1)]
    async with fakes.client() as client:
        answer = await client.post("/classify?model=lenet5", content=slowly(picture(5)))
    assert answer.status_code == 200, answer.text


async def test_the_access_log_counts_from_the_end_of_the_body(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", lines)
    configure_logging("text")
    fakes.settings = fakes.settings.model_copy(update={"access_log": True})
    async with fakes.client() as client:
        await client.post("/classify?model=lenet5", content=slowly(picture(5)))
    (line,) = [json.loads(line) for line in lines.getvalue().splitlines() if line.startswith("{")]
    assert line["timings_ms"]["total"] < UPLOAD_S * 1000


async def test_a_body_that_stops_arriving_is_408_and_closes_the_connection(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "GRACE_S", 0.05)
    monkeypatch.setattr(uploads, "_CHECK_EVERY_S", 0.01)

    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    with counted() as found:
        async with fakes.client() as client:
            # A wrong query is answered before the body is read.
            problem(await client.post("/classify?modle=lenet5", content=silent()), 400, "bad-parameter")
            answer = await asyncio.wait_for(client.post("/classify?model=lenet5", content=silent()), 30)
            document = problem(answer, 408, "slow-body")
            assert answer.headers["connection"] == "close"
            assert "500 bytes" in document["detail"]
            # The service goes on as before.
            assert (await client.post("/classify?model=lenet5", content=picture())).status_code == 200
    assert found.risen("topfive_requests_total")[("none", "slow-body", "408")] == 1
    assert found.rise("topfive_in_flight") == 0


async def test_a_bulk_entry_whose_deadline_passes_before_it_is_routed_is_504(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the deadlines pass while the body is parsed."""
    fakes.profiles = [profile("lenet5@mnist", forward_ms=1)]
    read = classify.read_body

    async def waits(*arguments: Any) -> Any:
        await asyncio.sleep(0.4)
        return await read(*arguments)

    monkeypatch.setattr(classify, "read_body", waits)
    images = [base64.b64encode(picture()).decode()] * 2
    with counted() as found:
        async with fakes.client() as client:
            for query in ("model=lenet5&latency_ms=200", "labels=mnist&latency_ms=200"):
                answer = await client.post(f"/classify?{query}", json={"images": images})
                assert [entry["type"] for entry in answer.json()["results"]] == ["/problems/deadline-missed"] * 2
                assert "of 200" in answer.json()["results"][0]["detail"]
            # Budgets that no network could meet are still reported as such.
            late = await client.post("/classify?labels=mnist&latency_ms=200&min_top1=99.9", json={"images": images})
            assert [entry["type"] for entry in late.json()["results"]] == ["/problems/no-model-fits"] * 2
            never = await client.post("/classify?labels=mnist&latency_ms=0.5", json={"images": images})
            assert [entry["type"] for entry in never.json()["results"]] == ["/problems/no-model-fits"] * 2
    assert found.risen("topfive_shed_total") == {("deadline",): 4}


@pytest.mark.parametrize(
    ("passed_ms", "latency_ms", "raised"),
    [
        (0, 5_000, None),
        (3_700, 5_000, None),
        # The prediction is one second, times a safety factor of at least 1.1.
        (4_000, 5_000, DeadlineMissedError),
        (6_000, 5_000, DeadlineMissedError),
        (0, 1_000, NoModelFitsError),
        (6_000, 1_000, NoModelFitsError),
    ],
)
async def test_the_router_tells_a_missed_deadline_from_an_impossible_one(
    tmp_path: Path, passed_ms: float, latency_ms: float, raised: type[Exception] | None
) -> None:
    fakes = Fakes(tmp_path)
    measured = Measured(profile("lenet5@mnist", forward_ms=1_000))
    placement = LocalPlacement(lambda checkpoint: FakeEngine(checkpoint, 0.0), Limits(), profiles=measured)
    catalogue = Catalogue(tmp_path)
    await placement.warm_up([catalogue.find("lenet5")])
    router = Router(catalogue, placement, fakes.settings)
    arrived = time.monotonic() - passed_ms / 1000
    for query in (
        Query(model="lenet5", latency_ms=latency_ms),
        Query(labels="mnist", latency_ms=latency_ms),
    ):
        candidates = router.candidates(query)
        if raised is None:
            assert router.decide(query, candidates, arrived, 100).checkpoint.name == "lenet5@mnist"
        else:
            with pytest.raises(raised):
                router.decide(query, candidates, arrived, 100)
    await placement.close()
