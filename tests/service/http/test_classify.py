"""HTTP over fake engines: choosing, load, deadlines and defects. What real bytes do is in test_http.py."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest

from models.checkpoints.catalogue import Checkpoint, WrongWeightsError
from service.domain.prediction import Limits
from service.engines import Engine
from tests.fakes import Fakes
from tests.pictures import photo, picture
from tests.problems import problem
from tests.profiles import profile


async def test_an_answer_has_the_shape_of_the_contract(fakes: Fakes) -> None:
    async with fakes.client() as client:
        answer = await client.post("/classify?model=lenet5", content=picture(7))
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"model", "checkpoint", "top5", "timings_ms", "batch_size"}
    assert set(body["checkpoint"]) == {"name", "labels", "origin", "trained", "top1"}
    assert set(body["timings_ms"]) == {"decode", "queue", "forward", "total"}
    assert (body["model"], body["checkpoint"]["name"], body["batch_size"]) == ("lenet5", "lenet5@mnist", 1)
    assert [label["label"] for label in body["top5"]] == ["7", "8", "9", "0", "1"]
    assert [label["index"] for label in body["top5"]] == [7, 8, 9, 0, 1]
    assert body["top5"][0]["probability"] == 0.5
    assert answer.headers["x-model-served"] == "lenet5"
    timings = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
    assert {name: float(value) for name, value in timings.items()} == body["timings_ms"]
    assert body["timings_ms"]["total"] >= body["timings_ms"]["forward"]


@pytest.mark.parametrize("k", [1, 3, 10])
async def test_k_labels_come_back(fakes: Fakes, k: int) -> None:
    async with fakes.client() as client:
        body = (await client.post(f"/classify?model=lenet5&k={k}", content=picture())).json()
    assert len(body["top5"]) == k


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("k=0", "k=0"),
        ("k=11", "k=11"),
        ("k=five", "k=five"),
        ("modle=lenet5", "modle"),
        ("model=", "model"),
        ("model=lenet5&model=vgg16", "model"),
        ("labels=imagenet", "imagenet1k"),
        ("latency_ms=0", "latency_ms"),
        ("latency_ms=-1", "latency_ms"),
        ("latency_ms=nan", "latency_ms"),
        ("latency_ms=inf", "latency_ms"),
        ("min_top1=101", "min_top1"),
        ("strict=perhaps", "strict"),
        ("%ff=1", "unknown parameter"),
    ],
)
async def test_bad_parameters_are_named(fakes: Fakes, query: str, names: str) -> None:
    async with fakes.client() as client:
        document = problem(await client.post(f"/classify?{query}", content=picture()), 400, "bad-parameter")
    assert names in document["detail"]


async def test_an_unknown_model_lists_the_known_ones(fakes: Fakes) -> None:
    async with fakes.client() as client:
        document = problem(await client.post("/classify?model=resnet50", content=picture()), 404, "unknown-model")
    assert {"lenet5", "alexnet", "googlenet", "vgg16"} <= set(document["known"])
    assert "googlenet" in document["detail"]


async def test_missing_weights_say_how_to_get_them(fakes: Fakes) -> None:
    async with fakes.client() as client:
        document = problem(await client.post("/classify?model=vgg16", content=picture()), 503, "weights-missing")
        assert "topfive import vgg16" in document["detail"]
        # Nobody named a model, and nothing that knows photographs is here.
        problem(await client.post("/classify", content=picture()), 503, "weights-missing")


async def test_the_router_takes_the_most_accurate_and_says_why(fakes: Fakes) -> None:
    fakes.loadable |= {"googlenet@imagenet1k", "vgg16@imagenet1k"}
    async with fakes.client() as client:
        body = (await client.post("/classify", content=photo())).json()
        assert body["model"] == "vgg16"
        assert "71.592" in body["routing"]["reason"]
        assert ("alexnet", "weights missing") in {(c["model"], c["rejected"]) for c in body["routing"]["considered"]}
        digit = (await client.post("/classify?labels=mnist", content=picture())).json()
        assert digit["model"] == "lenet5"
        document = problem(await client.post("/classify?min_top1=90", content=photo()), 422, "no-model-fits")
        assert "vgg16" in document["detail"]


async def test_a_client_that_hangs_up_is_no_defect(fakes: Fakes, caplog: pytest.LogCaptureFixture) -> None:
    async with fakes.client() as client:
        app = client._transport.app  # type: ignore[attr-defined]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/classify",
            "query_string": b"model=lenet5",
            "headers": [(b"content-length", b"1000")],
        }
        messages = iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}])
        sent: list[Any] = []

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
    assert sent[0]["status"] == 499
    assert caplog.text == ""


async def test_the_router_passes_over_damaged_weights(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.loadable |= {"googlenet@imagenet1k", "vgg16@imagenet1k"}
    load = fakes.load

    def damaged(checkpoint: Checkpoint) -> Engine:
        if checkpoint.variant.name == "vgg16":
            raise WrongWeightsError("vgg16's file is damaged")
        return load(checkpoint)

    monkeypatch.setattr(fakes, "load", damaged)
    fakes.profiles = [profile("googlenet@imagenet1k", forward_ms=40)]
    async with fakes.client() as client:
        assert (await client.post("/classify", content=photo())).json()["model"] == "googlenet"
        problem(await client.post("/classify?model=vgg16", content=photo()), 503, "weights-damaged")
        # Nor is there any use in coming back for them.
        problem(await client.post("/classify?latency_ms=0.01", content=photo()), 422, "no-model-fits")


async def test_labels_force_a_checkpoint(fakes: Fakes) -> None:
    async with fakes.client() as client:
        assert (await client.post("/classify?model=lenet5@mnist", content=picture())).status_code == 200
        assert (await client.post("/classify?model=lenet5&labels=mnist", content=picture())).status_code == 200
        problem(await client.post("/classify?model=lenet5@cifar10", content=picture()), 404, "unknown-model")
        problem(
            await client.post("/classify?model=lenet5@mnist&labels=cifar10", content=picture()), 404, "unknown-model"
        )


async def test_a_full_queue_is_429_with_both_forms_of_retry_after(fakes: Fakes) -> None:
    fakes.seconds, fakes.limits = 0.05, Limits(max_batch_size=1, max_queue=2)
    async with fakes.client() as client:
        posts = [client.post("/classify?model=lenet5", content=picture()) for _ in range(12)]
        answers = await asyncio.gather(*posts)
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 12
    for answer in refused:
        document = problem(answer, 429, "overloaded")
        seconds = int(answer.headers["retry-after"])
        assert seconds == max(1, math.ceil(document["retry_after_ms"] / 1000))


async def test_what_becomes_hopeless_after_its_admission_is_504(fakes: Fakes) -> None:
    """By its profile it would have been answered; the device is slower."""
    fakes.profiles = [profile("lenet5@mnist", forward_ms=1)]
    async with fakes.client() as client, fakes.busy(client, "lenet5@mnist"):
        late = await client.post("/classify?model=lenet5&latency_ms=300", content=picture())
        problem(late, 504, "deadline-missed")


async def test_a_defect_is_a_plain_500_and_its_neighbours_are_answered(
    fakes: Fakes, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.limits = Limits(max_batch_size=1)
    async with fakes.client() as client:
        # LeNet's crop is padded with zeros, so that every one of them begins with this byte.
        fakes.engines["lenet5@mnist"].poison = 0
        document = problem(await client.post("/classify?model=lenet5", content=picture()), 500, "internal")
        fakes.engines["lenet5@mnist"].poison = None
        assert (await client.post("/classify?model=lenet5", content=picture())).status_code == 200
    assert "poisoned" not in json.dumps(document)
    assert "poisoned" in caplog.text
