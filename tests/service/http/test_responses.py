"""Answers as JSON, and the rows of ``GET /models``."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.domain.classified import Classified
from service.domain.decision import Considered, Routing
from service.domain.ensemble import Ensemble
from service.domain.errors import Failure
from service.domain.prediction import Limits, Prediction
from service.http.responses import answer, bulk, single, to_json
from service.http.schemas import Answer
from service.inference.ensemble import Average, Member
from tests.fakes import Fakes
from tests.pictures import picture
from tests.profiles import latency, profile

CATALOGUE = Catalogue()
FAILURE = Failure("overloaded", "full", {"retry_after_ms": 1200.0})
PREDICTION = Prediction((0.5, 0.25), (7, 1), 2, decode_s=0.001, queue_s=0.002, forward_s=0.003)
#: Not a number that is the same in binary, and a very small one: both must be told as they are.
ROUTING = Routing(
    reason="vgg16 näher",
    predicted_ms=0.1 + 0.2,
    considered=[
        Considered(model="vgg16", rejected="memory", footprint_mb=1e-7),
        Considered(model="vgg19", rejected="latency", predicted_ms=12.5),
    ],
)


def network(model: str = "lenet5", top1: float | None = 99.0) -> Checkpoint:
    labels = "mnist" if model == "lenet5" else "imagenet1k"
    return replace(CATALOGUE.find(f"{model}@{labels}"), origin="here", top1=top1)


def answered(model: str = "lenet5") -> Classified:
    return Classified(PREDICTION, network(model), None, 0.007)


def averaged() -> Classified:
    first = replace(PREDICTION, batch_size=4, decode_s=0.0012344)
    average = Average(
        (0.4, 0.3), (7, 1), 2, 0.001, 0.002, 0.003, members=(Member(first, 0.005), Member(PREDICTION, 0.006))
    )
    # Of two label sets, which differ in all that is told of them.
    return Classified(average, Ensemble((network(), network("googlenet", None))), ROUTING, 0.007)


WHOLE = {
    "model": "lenet5",
    "checkpoint": {"name": "lenet5@mnist", "labels": "mnist", "origin": "here", "trained": True, "top1": 99.0},
    "top5": [{"label": "7", "index": 7, "probability": 0.5}, {"label": "1", "index": 1, "probability": 0.25}],
    "timings_ms": {"decode": 1.0, "queue": 2.0, "forward": 3.0, "total": 7.0},
    "batch_size": 2,
}


def test_one_picture_is_answered_with_the_answer_itself() -> None:
    reply = single(answered(), 5)
    assert (reply.status, json.loads(reply.body)) == (200, WHOLE)
    assert dict(reply.headers) == {
        b"content-length": str(len(reply.body)).encode(),
        b"content-type": b"application/json",
        b"x-model-served": b"lenet5",
        b"server-timing": b"decode;dur=1.0, queue;dur=2.0, forward;dur=3.0, total;dur=7.0",
    }


def test_times_are_milliseconds_with_three_digits_after_the_point() -> None:
    prediction = replace(PREDICTION, decode_s=0.0000004, queue_s=0.00025, forward_s=1.2345678)
    assert answer(Classified(prediction, network(), None, 61.0000012), 5)["timings_ms"] == {
        "decode": 0.0,
        "queue": 0.25,
        "forward": 1234.568,
        "total": 61000.001,
    }


@pytest.mark.parametrize("k", [1, 2, 10])
def test_there_are_as_many_labels_as_asked_for_if_there_are_so_many(k: int) -> None:
    assert answer(answered(), k)["top5"] == WHOLE["top5"][:k]
    assert json.loads(single(answered(), k).body)["top5"] == WHOLE["top5"][:k]
    assert json.loads(bulk([answered()], k).body)["results"][0]["top5"] == WHOLE["top5"][:k]


def test_labels_are_the_words_of_the_label_set() -> None:
    imagenet = Classified(PREDICTION, network("googlenet"), None, 0.007)
    # Classes 7 and 1 of ILSVRC 2012, counted from 0 in the order of their synset numbers.
    assert [label["label"] for label in answer(imagenet, 5)["top5"]] == ["cock", "goldfish"]


def test_routing_and_members_are_left_out_if_there_are_none() -> None:
    document = json.loads(single(answered()._replace(routing=ROUTING), 5).body)
    assert document.pop("routing") == {
        "reason": "vgg16 näher",
        "predicted_ms": 0.30000000000000004,
        "considered": [
            {"model": "vgg16", "rejected": "memory", "footprint_mb": 1e-07},
            {"model": "vgg19", "rejected": "latency", "predicted_ms": 12.5},
        ],
    }
    assert document == WHOLE


def test_the_members_of_an_ensemble_follow_in_its_order() -> None:
    document = json.loads(single(averaged(), 5).body)
    assert document["model"] == "ensemble:lenet5,googlenet"
    assert document["checkpoint"]["name"] == "ensemble:lenet5@mnist,googlenet@imagenet1k"
    assert document["members"] == [
        {
            "model": "lenet5",
            "checkpoint": WHOLE["checkpoint"],
            "timings_ms": {"decode": 1.234, "queue": 2.0, "forward": 3.0, "total": 5.0},
            "batch_size": 4,
        },
        {
            "model": "googlenet",
            "checkpoint": {
                "name": "googlenet@imagenet1k",
                "labels": "imagenet1k",
                "origin": "here",
                "trained": True,
                "top1": None,
            },
            "timings_ms": {"decode": 1.0, "queue": 2.0, "forward": 3.0, "total": 6.0},
            "batch_size": 2,
        },
    ]


@pytest.mark.parametrize(
    "classified",
    [answered(), answered()._replace(routing=ROUTING), averaged(), answered()._replace(served=network(top1=None))],
    ids=["named", "routed", "averaged", "of unknown accuracy"],
)
def test_an_answer_has_the_documented_fields_and_no_others(classified: Classified) -> None:
    document = json.loads(single(classified, 5).body)
    # A field that the documentation does not know would be lost here, and a missing one is an error.
    assert Answer.model_validate(document, strict=True).model_dump(exclude_unset=True) == document
    assert json.loads(bulk([classified], 5).body) == {"results": [{"status": 200, **document}]}


def test_one_picture_that_failed_is_a_problem() -> None:
    reply = single(FAILURE, 5)
    assert (reply.status, reply.header("retry-after")) == (429, "2")
    assert reply.header("content-type") == "application/problem+json"


def test_several_are_listed_in_order_whole_answers_and_whole_problems() -> None:
    reply = bulk([answered("vgg16"), FAILURE, answered("googlenet"), answered("vgg16")], 5)
    results = json.loads(reply.body)["results"]
    assert (reply.status, [entry["status"] for entry in results]) == (200, [200, 429, 200, 200])
    assert [entry.get("model") for entry in results] == ["vgg16", None, "googlenet", "vgg16"]
    assert results[1] == {
        "type": "/problems/overloaded",
        "title": "Overloaded",
        "status": 429,
        "detail": "full",
        "retry_after_ms": 1200.0,
    }
    assert reply.header("content-type") == "application/json"
    # Each model once, in the order in which they come first.
    assert reply.header("x-model-served") == "vgg16, googlenet"
    assert reply.header("retry-after") is None


def test_no_model_is_named_if_every_picture_failed() -> None:
    reply = bulk([FAILURE], 5)
    assert reply.status == 200
    assert reply.header("x-model-served") is None


def test_only_entries_of_bulk_answers_have_status_200() -> None:
    assert to_json(answered(), 5, bulk=False) == WHOLE
    assert to_json(answered(), 5, bulk=True) == {"status": 200, **WHOLE}
    assert to_json(FAILURE, 5, bulk=False) == to_json(FAILURE, 5, bulk=True)


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
    fakes.profiles = [profile("lenet5@mnist", forward_ms=10_000)]
    async with fakes.client() as client:
        for _ in range(2):
            answered = (await client.post("/classify?model=lenet5&latency_ms=60000", content=picture())).json()
        outlook = (await client.get("/models/lenet5")).json()["outlook"]
    assert answered["routing"]["predicted_ms"] > 0
    assert outlook["predictions"] == 2
    # It took far less: the actual time over the predicted is small, and the error of the prediction large.
    assert outlook["median_ratio"] < 0.5
    assert outlook["median_error"] > 1
