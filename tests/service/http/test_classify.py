"""``POST /classify`` over fake engines: answers, load, deadlines and defects."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from models.checkpoints.catalogue import Checkpoint, WrongWeightsError
from service.domain.errors import Failure
from service.domain.prediction import Limits
from service.engines import Engine
from service.http.uploads import Upload, Uploads
from service.runtime.predictor import Predictor
from tests.counted import counted
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
        # Without a model, networks for photographs are meant, and there are none.
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


async def test_a_client_that_disconnects_during_its_upload_is_not_logged_as_an_error(
    fakes: Fakes, caplog: pytest.LogCaptureFixture
) -> None:
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
        # Damaged weights are no reason to send the request again later.
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
        # Whole seconds, rounded up, and at least 1; test_problems.py has examples.
        seconds, retry_after_ms = int(answer.headers["retry-after"]), document["retry_after_ms"]
        assert seconds >= 1
        assert retry_after_ms <= 1000 * seconds < max(1000.0, retry_after_ms) + 1000


async def test_a_picture_that_misses_its_deadline_in_the_queue_is_504(fakes: Fakes) -> None:
    """Its profile promises an answer in time; the device is slower."""
    fakes.profiles = [profile("lenet5@mnist", forward_ms=1)]
    async with fakes.client() as client, fakes.busy(client, "lenet5@mnist"):
        late = await client.post("/classify?model=lenet5&latency_ms=300", content=picture())
        problem(late, 504, "deadline-missed")


async def test_a_bug_is_a_500_without_details_and_later_requests_are_answered(
    fakes: Fakes, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.limits = Limits(max_batch_size=1)
    async with fakes.client() as client:
        # The engine fails on crops that begin with this byte. LeNet's crops are padded with zeros, so all do.
        fakes.engines["lenet5@mnist"].poison = 0
        document = problem(await client.post("/classify?model=lenet5", content=picture()), 500, "internal")
        fakes.engines["lenet5@mnist"].poison = None
        assert (await client.post("/classify?model=lenet5", content=picture())).status_code == 200
    assert "poisoned" not in json.dumps(document)
    assert "poisoned" in caplog.text


async def test_shed_pictures_are_counted_by_the_cause(fakes: Fakes) -> None:
    """The router and the queue refuse for want of room, and the queue drops what it cannot answer in time. The router
    counts pictures; only the queue knows their bytes, here room for one crop of LeNet's."""
    fakes.limits = Limits(max_batch_size=1, max_queue_bytes=1_500)
    async with fakes.client() as client, fakes.busy(client, "lenet5@mnist"):
        with counted() as by_queue:
            posts = [asyncio.create_task(client.post("/classify?model=lenet5", content=picture())) for _ in range(2)]
            # The other waits for the device.
            (refused,), (waits,) = await asyncio.wait(posts, timeout=30, return_when=asyncio.FIRST_COMPLETED)
            problem(await refused, 429, "overloaded")
            waits.cancel()
            await asyncio.gather(waits, return_exceptions=True)
        with counted() as by_deadline:
            late = await client.post("/classify?model=lenet5&latency_ms=100", content=picture())
            problem(late, 504, "deadline-missed")
    fakes.profiles = [profile("lenet5@mnist", forward_ms=1_000)]
    async with fakes.client() as client, fakes.busy(client, "lenet5@mnist"):
        with counted() as by_router:
            answer = await client.post("/classify?labels=mnist&latency_ms=1500", content=picture())
            problem(answer, 429, "overloaded")
    assert by_queue.risen("topfive_shed_total") == {("queue",): 1}
    assert by_deadline.risen("topfive_shed_total") == {("deadline",): 1}
    assert by_router.risen("topfive_shed_total") == {("router",): 1}


async def test_budgets_and_timings_count_from_the_end_of_the_body_and_predictions_from_the_decision(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 seconds have passed since the end of the body when it is parsed; the answer takes less than one more."""
    read = Uploads.read

    async def long_ago(*arguments: Any) -> Upload:
        upload = await read(*arguments)
        return upload._replace(ended=upload.ended - 20)

    monkeypatch.setattr(Uploads, "read", long_ago)
    fakes.profiles = [profile("lenet5@mnist", forward_ms=10_000)]
    with counted() as found:
        async with fakes.client() as client:
            answer = await client.post("/classify?model=lenet5&latency_ms=40000", content=picture())
    assert answer.status_code == 200, answer.text
    assert 20_000 <= answer.json()["timings_ms"]["total"] < 30_000
    assert 20 <= found.rise("topfive_request_seconds_sum") < 30
    assert 0.5 <= found.rise("topfive_budget_used_ratio_sum") < 0.75
    assert found.rise("topfive_predicted_ratio_count") == 1
    assert found.rise("topfive_predicted_ratio_sum") < 1
    assert found.rise("topfive_request_seconds_count") == found.rise("topfive_budget_used_ratio_count") == 1


async def test_a_picture_that_is_dropped_for_its_deadline_has_used_all_of_its_budget(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is dropped as soon as the deadline is sure to pass, which here is at once."""

    async def dropped(*_arguments: object) -> Failure:
        return Failure("deadline-missed", "it cannot be answered in time")

    with counted() as found:
        async with fakes.client() as client:
            monkeypatch.setattr(Predictor, "predict", dropped)
            late = await client.post("/classify?model=lenet5&latency_ms=60000", content=picture())
            problem(late, 504, "deadline-missed")
    assert found.rise("topfive_budget_used_ratio_count") == 1
    assert found.rise("topfive_budget_used_ratio_bucket", le="1.0") == 0
    assert 1 < found.rise("topfive_budget_used_ratio_sum") < 1.1
    assert found.risen("topfive_requests_total") == {("lenet5", "deadline-missed", "504"): 1}


async def test_requests_in_flight_are_counted_until_they_are_answered(fakes: Fakes) -> None:
    async def in_flight(client: httpx.AsyncClient) -> float:
        lines = (await client.get("/metrics")).text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("topfive_in_flight ")))

    async with fakes.client() as client:
        before = await in_flight(client)
        async with fakes.busy(client, "lenet5@mnist"):
            assert await in_flight(client) == before + 1
        problem(await client.post("/classify?modle=lenet5", content=picture()), 400, "bad-parameter")
        assert await in_flight(client) == before


async def test_an_empty_file_among_several_is_named_in_its_place(fakes: Fakes) -> None:
    files = [("a", ("a.png", picture(3))), ("b", ("b.png", b""))]
    async with fakes.client() as client:
        results = (await client.post("/classify?model=lenet5", files=files)).json()["results"]
    assert [entry["status"] for entry in results] == [200, 400]
    assert (results[1]["type"], results[1]["detail"]) == ("/problems/no-picture", "the file is empty")


async def test_each_phase_is_told_by_its_name(fakes: Fakes) -> None:
    async with fakes.client() as client:
        async with fakes.busy(client, "lenet5@mnist"):
            waits = asyncio.create_task(client.post("/classify?model=lenet5", content=picture()))
            await asyncio.sleep(0.3)
        queued = (await waits).json()["timings_ms"]
        fakes.engines["lenet5@mnist"].seconds = 0.3
        computed = (await client.post("/classify?model=lenet5", content=picture())).json()["timings_ms"]
    assert queued["queue"] > queued["forward"]
    assert queued["queue"] > queued["decode"]
    assert computed["forward"] > computed["queue"]
    assert computed["forward"] > computed["decode"]
    for timings in (queued, computed):
        phases = timings["decode"] + timings["queue"] + timings["forward"]
        # Each is rounded to a microsecond.
        assert timings["total"] > phases - 0.01
