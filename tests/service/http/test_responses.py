"""Answers as JSON, and the rows of ``GET /models``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.domain.decision import Routing
from service.domain.errors import Failure
from service.domain.prediction import Limits
from service.http.responses import bulk, single, to_json
from service.http.schemas import Answer, CheckpointAnswer, LabelProbability, Timings
from tests.fakes import Fakes
from tests.pictures import picture
from tests.profiles import latency, profile

FAILURE = Failure("overloaded", "full", {"retry_after_ms": 1200.0})


def answer(model: str = "lenet5", **fields: Any) -> Answer:
    checkpoint = CheckpointAnswer(name=f"{model}@mnist", labels="mnist", origin="here", trained=True, top1=99.0)
    return Answer(
        model=model,
        checkpoint=checkpoint,
        top5=[LabelProbability(label="7", index=7, probability=0.5)],
        timings_ms=Timings(decode=1.0, queue=2.0, forward=3.0, total=7.0),
        batch_size=2,
        **fields,
    )


WHOLE = {
    "model": "lenet5",
    "checkpoint": {"name": "lenet5@mnist", "labels": "mnist", "origin": "here", "trained": True, "top1": 99.0},
    "top5": [{"label": "7", "index": 7, "probability": 0.5}],
    "timings_ms": {"decode": 1.0, "queue": 2.0, "forward": 3.0, "total": 7.0},
    "batch_size": 2,
}


def test_one_picture_is_answered_with_the_answer_itself() -> None:
    response = single(answer())
    assert (response.status_code, json.loads(bytes(response.body))) == (200, WHOLE)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-model-served"] == "lenet5"
    assert response.headers["server-timing"] == "decode;dur=1.0, queue;dur=2.0, forward;dur=3.0, total;dur=7.0"


def test_routing_and_members_are_left_out_if_there_are_none() -> None:
    routing = Routing(reason="why", predicted_ms=1.0, considered=[])
    assert json.loads(bytes(single(answer(routing=routing)).body))["routing"]["reason"] == "why"
    assert "members" not in json.loads(bytes(single(answer(routing=routing)).body))
    assert json.loads(bytes(single(answer(members=[])).body))["members"] == []
    assert "routing" not in to_json(answer(members=[]), bulk=False)


def test_one_picture_that_failed_is_a_problem() -> None:
    response = single(FAILURE)
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")
    assert response.headers["content-type"] == "application/problem+json"


def test_several_are_listed_in_order_whole_answers_and_whole_problems() -> None:
    response = bulk([answer("b"), FAILURE, answer("a"), answer("b")])
    results = json.loads(bytes(response.body))["results"]
    assert (response.status_code, [entry["status"] for entry in results]) == (200, [200, 429, 200, 200])
    assert [entry.get("model") for entry in results] == ["b", None, "a", "b"]
    assert results[1] == {
        "type": "/problems/overloaded",
        "title": "Overloaded",
        "status": 429,
        "detail": "full",
        "retry_after_ms": 1200.0,
    }
    # Each model once, in the order in which they come first.
    assert response.headers["x-model-served"] == "b, a"
    assert "retry-after" not in response.headers


def test_no_model_is_named_if_every_picture_failed() -> None:
    response = bulk([FAILURE])
    assert response.status_code == 200
    assert "x-model-served" not in response.headers


def test_only_entries_of_bulk_answers_have_status_200() -> None:
    assert to_json(answer(), bulk=False) == WHOLE
    assert to_json(answer(), bulk=True) == {"status": 200, **WHOLE}
    assert to_json(FAILURE, bulk=False) == to_json(FAILURE, bulk=True)


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])])
async def test_an_outlook_tells_latencies_for_powers_of_two_and_the_largest_batch(
    fakes: Fakes, largest: int, sizes: list[int]
) -> None:
    fakes.limits = Limits(max_batch_size=largest)
    measured = profile("lenet5@mnist", forward_ms=100, footprint_mb=12.34)
    forward = {size: latency(100.0 + size) for size in (1, 2, 4, 8, 12)}
    fakes.profiles = [measured.model_copy(update={"forward": forward})]
    async with fakes.client() as client:
        row = (await client.get("/models/lenet5")).json()
    assert row["footprint_mb"] == 12.3
    assert row["outlook"]["forward_p95_ms"] == {str(size): 100.0 + size for size in sizes}


async def test_only_a_checkpoint_without_weights_says_how_to_get_them(fakes: Fakes) -> None:
    async with fakes.client() as client:
        here, missing = [(await client.get(f"/models/{name}")).json() for name in ("lenet5", "alexnet")]
    assert (here["mend"], here["download_mb"], here["state"]) == (None, None, "ready")
    assert missing["mend"].startswith("topfive ")
    assert missing["state"] == "weights missing"
    assert (missing["outlook"], missing["resident"], missing["failure"]) == (None, False, None)
    assert here["variant"] == "lenet5"
    assert here["labels"] == "mnist"


async def test_outlooks_compare_predictions_with_what_they_became(fakes: Fakes) -> None:
    fakes.profiles = [profile("lenet5@mnist", forward_ms=1_000)]
    async with fakes.client() as client:
        for _ in range(2):
            answered = (await client.post("/classify?model=lenet5&latency_ms=9000", content=picture())).json()
        outlook = (await client.get("/models/lenet5")).json()["outlook"]
    assert answered["routing"]["predicted_ms"] > 0
    assert outlook["predictions"] == 2
    # It took far less: the actual time over the predicted is small, and the error of the prediction large.
    assert outlook["median_ratio"] < 0.5
    assert outlook["median_error"] > 1
