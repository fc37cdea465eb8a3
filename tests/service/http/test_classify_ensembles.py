"""``POST /classify`` with ensembles: answers, refusals and metrics. Over fake engines."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from models.checkpoints.accuracies import Accuracy, add_accuracies, weights_of
from service.config.settings import Settings
from service.domain.prediction import Limits
from service.domain.query import Query
from service.http.requests import read_query
from service.telemetry.logs import access_log
from tests.cards import put
from tests.counted import counted
from tests.fakes import Fakes
from tests.pictures import photo, picture
from tests.problems import problem
from tests.profiles import profile

PAIR = "ensemble:googlenet,inception_v2"
NAMES = ("googlenet@cifar10", "inception_v2@cifar10")


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    """LeNet-5, and two networks for CIFAR-10 that take 100 and 300 ms by their profiles."""
    found = Fakes(tmp_path)
    for name in NAMES:
        put(tmp_path, *name.split("@"))
    found.loadable = {"lenet5@mnist", *NAMES}
    found.profiles = [
        profile(NAMES[0], forward_ms=100, footprint_mb=20),
        profile(NAMES[1], forward_ms=300, footprint_mb=30),
    ]
    return found


async def ask(client: httpx.AsyncClient, query: str = f"model={PAIR}", **body: object) -> httpx.Response:
    return await client.post(f"/classify?{query}", **(body or {"content": picture(5)}))  # type: ignore[arg-type]


async def test_the_answer_has_the_average_and_what_each_member_took(fakes: Fakes) -> None:
    async with fakes.client() as client:
        answer = await ask(client, "model=ensemble:inception_v1,bn_inception@cifar10&k=3")
        alone = (await ask(client, "model=googlenet")).json()
    body = answer.json()
    assert (answer.status_code, answer.headers["X-Model-Served"]) == (200, PAIR)
    assert body["model"] == PAIR
    assert body["checkpoint"] == {
        "name": "ensemble:googlenet@cifar10,inception_v2@cifar10",
        "labels": "cifar10",
        "origin": "average of the probabilities of 2 networks",
        "trained": True,
        "top1": None,
    }
    assert [label["index"] for label in body["top5"]] == [5, 6, 7]
    assert [label["probability"] for label in body["top5"]] == pytest.approx([0.5, 0.25, 0.125])
    assert "routing" not in body
    first, second = body["members"]
    assert first == {key: first[key] for key in ("model", "checkpoint", "timings_ms", "batch_size")}
    assert (first["model"], first["checkpoint"]) == ("googlenet", alone["checkpoint"])
    assert (second["model"], second["checkpoint"]["name"]) == ("inception_v2", NAMES[1])
    last = max(body["members"], key=lambda member: float(member["timings_ms"]["total"]))
    assert {**last["timings_ms"], "total": None} == {**body["timings_ms"], "total": None}
    assert body["timings_ms"]["total"] >= last["timings_ms"]["total"]
    for member in (first, second):
        timings = member["timings_ms"]
        # Each is rounded to a microsecond.
        assert timings["total"] > timings["decode"] + timings["queue"] + timings["forward"] - 0.01
    assert f"total;dur={body['timings_ms']['total']}" in answer.headers["Server-Timing"]
    assert "members" not in alone


async def test_an_ensemble_may_be_percent_encoded(fakes: Fakes) -> None:
    assert read_query(Query, f"model={quote(PAIR, safe='')}".encode()).model == PAIR
    async with fakes.client() as client:
        assert (await ask(client, f"model={quote(PAIR, safe='')}")).json()["model"] == PAIR


@pytest.mark.parametrize(
    ("query", "status", "kind", "says"),
    [
        ("model=ensemble:googlenet", 400, "bad-parameter", "2 to 8"),
        ("model=ensemble:googlenet,inception_v1", 400, "bad-parameter", "2 times"),
        ("model=ensemble:googlenet,lenet5", 400, "bad-parameter", "share no label set"),
        ("model=ensemble:googlenet,nobody", 404, "unknown-model", "nobody"),
        ("model=ensemble:googlenet,vgg16", 503, "weights-missing", "topfive pull"),
        (f"model={PAIR}&labels=imagenet1k", 503, "weights-missing", "googlenet@imagenet1k"),
        (f"model={PAIR}&min_top1=1", 422, "no-model-fits", "how accurate an ensemble is"),
        # The members need 20 and 30 MB; decoding takes 0.02 s, then the members take 0.1 and 0.3 s.
        (f"model={PAIR}&memory_mb=49", 422, "no-model-fits", "50 MB"),
        (f"model={PAIR}&latency_ms=350", 422, "no-model-fits", "400 ms"),
    ],
)
async def test_an_ensemble_that_is_refused_says_why(
    fakes: Fakes, query: str, status: int, kind: str, says: str
) -> None:
    async with fakes.client() as client:
        for path in ("classify", "route"):
            answer = await client.post(f"/{path}?{query}", content=picture() if path == "classify" else b"")
            assert says in problem(answer, status, kind)["detail"]


async def test_the_router_predicts_the_sum_of_the_members(fakes: Fakes) -> None:
    async with fakes.client() as client:
        route = (await client.post(f"/route?model={PAIR}&latency_ms=5000")).json()
        answer = (await ask(client, f"model={PAIR}&latency_ms=5000")).json()
        plain = (await client.post(f"/route?model={PAIR}")).json()
    assert (route["model"], route["footprint_mb"], route["considered"]) == (PAIR, 50.0, [])
    assert route["predicted_ms"] == pytest.approx(420, abs=1)
    assert "named" in route["reason"]
    assert answer["routing"]["predicted_ms"] == pytest.approx(420, rel=0.2)
    assert (plain["model"], plain["footprint_mb"], plain["reason"]) == (PAIR, 50.0, "named, without a budget")


async def test_an_ensemble_with_strict_false_answers_all_the_same(fakes: Fakes) -> None:
    async with fakes.client() as client:
        answer = (await ask(client, f"model={PAIR}&min_top1=99&strict=false")).json()
    assert answer["model"] == PAIR
    assert "how accurate an ensemble is" in answer["routing"]["reason"]


async def test_the_router_never_picks_an_ensemble(fakes: Fakes) -> None:
    fakes.top1 = {NAMES[0]: 80.0, NAMES[1]: 86.0}
    async with fakes.client() as client:
        assert (await ask(client, "labels=cifar10")).json()["model"] == "inception_v2"
        listed = (await client.get("/models")).json()["models"]
    assert not any("ensemble" in row["name"] for row in listed)


def measure(fakes: Fakes, *names: str, top1: float) -> None:
    """What ``topfive evaluate --for-serving`` keeps."""
    folder = fakes.settings.cache_dir / "checkpoints"
    members = tuple(weights_of(name, folder / f"{name}.safetensors") for name in names)
    measured = Accuracy(members=members, top1=top1, top5=99.0, pictures=1000, measured_at="2026-11-28T12:00:00Z")
    add_accuracies(folder / "accuracies.json", [measured])


async def test_the_router_picks_an_ensemble_whose_accuracy_was_measured_if_it_fits(fakes: Fakes) -> None:
    fakes.top1 = {NAMES[0]: 80.0, NAMES[1]: 86.0}
    measure(fakes, *NAMES, top1=89.0)
    async with fakes.client() as client:
        answer = (await ask(client, "labels=cifar10")).json()
        assert (answer["model"], answer["checkpoint"]["top1"], len(answer["members"])) == (PAIR, 89.0, 2)
        assert answer["routing"]["reason"].startswith("highest top-1 (89.0 %) of the 3 that fit")
        # Together they take 0.4 s and 50 MB.
        assert (await ask(client, "labels=cifar10&latency_ms=439")).json()["model"] == "inception_v2"
        assert (await ask(client, "labels=cifar10&memory_mb=49")).json()["model"] == "inception_v2"
        assert (await ask(client, "labels=cifar10&min_top1=88&latency_ms=5000")).json()["model"] == PAIR
        document = problem(await ask(client, "labels=cifar10&min_top1=90"), 422, "no-model-fits")
        assert "the nearest is ensemble:googlenet@cifar10,inception_v2@cifar10 with 89 %" in document["detail"]
        assert [entry["model"] for entry in document["considered"]] == ["googlenet", "inception_v2", PAIR]


async def test_an_ensemble_that_was_measured_satisfies_min_top1_by_name_in_any_order(fakes: Fakes) -> None:
    measure(fakes, *NAMES, top1=89.0)
    turned = "ensemble:inception_v2,googlenet"
    async with fakes.client() as client:
        answer = (await ask(client, f"model={turned}&min_top1=88")).json()
        assert (answer["model"], answer["checkpoint"]["top1"]) == (turned, 89.0)
        problem(await ask(client, f"model={turned}&min_top1=90"), 422, "no-model-fits")
        put(fakes.settings.cache_dir, *NAMES[0].split("@"), origin="imported again")
        document = problem(await ask(client, f"model={turned}&min_top1=88"), 422, "no-model-fits")
        assert "nobody measured how accurate an ensemble is" in document["detail"]
        assert (await ask(client, "labels=cifar10")).json()["model"] != PAIR


async def test_pictures_that_are_routed_to_an_ensemble_are_decided_on_one_after_the_other(fakes: Fakes) -> None:
    """The ensemble takes 0.4 s, or 0.44 with the safety factor: one fits into 0.7 s, and no second one behind it."""
    fakes.top1 = {NAMES[0]: 80.0, NAMES[1]: 86.0}
    measure(fakes, *NAMES, top1=89.0)
    async with fakes.client() as client:
        asked = (ask(client, "labels=cifar10&latency_ms=700") for _ in range(2))
        answers = await asyncio.gather(*asked)
    models = [answer.json().get("model") for answer in answers]
    assert models[0] == PAIR
    assert models[1] != PAIR


async def test_each_picture_of_a_bulk_request_is_averaged(fakes: Fakes) -> None:
    files = [("a", ("a.png", picture(3))), ("b", ("b.txt", b"text")), ("c", ("c.png", picture(4)))]
    async with fakes.client() as client:
        answer = await ask(client, files=files)
    results = answer.json()["results"]
    assert [entry["status"] for entry in results] == [200, 422, 200]
    assert [entry["top5"][0]["index"] for entry in results if entry["status"] == 200] == [3, 4]
    assert [len(entry["members"]) for entry in results if entry["status"] == 200] == [2, 2]
    assert results[1]["type"] == "/problems/undecodable"
    assert answer.headers["X-Model-Served"] == PAIR


async def test_each_picture_for_an_ensemble_is_routed_with_the_ones_before_it_in_the_queue(fakes: Fakes) -> None:
    """The first takes 0.42 s, and each later one 0.4 s more, since batches hold one picture."""
    fakes.limits = Limits(max_batch_size=1)
    files = [("a", (f"{n}.png", picture(3))) for n in range(8)]
    async with fakes.client() as client:
        async with fakes.busy(client, "lenet5@mnist"):
            asking = asyncio.create_task(ask(client, f"model={PAIR}&latency_ms=1500", files=files))
            await asyncio.sleep(0.2)
        results = (await asking).json()["results"]
    assert [entry["status"] for entry in results] == [200] * 3 + [429] * 5
    assert all(entry["retry_after_ms"] > 0 for entry in results if entry["status"] == 429)


async def test_an_overloaded_member_makes_it_429_with_retry_after(fakes: Fakes) -> None:
    fakes.limits = Limits(max_batch_size=1, max_queue=2)
    async with fakes.client() as client, fakes.busy(client, NAMES[0]):
        waiting = [asyncio.create_task(ask(client, "model=googlenet")) for _ in range(2)]
        await asyncio.sleep(0.05)
        refused = await ask(client)
        problem(refused, 429, "overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
        # The other member is idle, but was not asked.
        engine = fakes.engines[NAMES[1]]
        assert engine.batches == []
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_deadline_that_one_member_misses_is_504(fakes: Fakes) -> None:
    fakes.profiles = [profile(name) for name in NAMES]
    async with fakes.client() as client:
        fakes.engines[NAMES[1]].seconds = 0.6
        answer = await ask(client, f"model={PAIR}&latency_ms=300")
    problem(answer, 504, "deadline-missed")


async def test_promises_hold_for_the_sum_of_the_members(fakes: Fakes) -> None:
    """The first request can be delayed by 3.5 s. The members take one second and three, which together is too long."""
    fakes.profiles = [profile(NAMES[0], forward_ms=1000), profile(NAMES[1], forward_ms=3000)]
    pair, single = f"/route?model={PAIR}&latency_ms=8000", "/route?model=inception_v2&latency_ms=8000"
    async with fakes.client() as client, fakes.busy(client, "lenet5@mnist"):
        assert (await client.post(pair)).status_code == 200
        first = asyncio.create_task(ask(client, f"model={PAIR}&latency_ms=8270"))
        await asyncio.sleep(0.05)
        assert (await client.post(single)).status_code == 200
        problem(await client.post(pair), 429, "overloaded")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert (await client.post(pair)).status_code == 200


async def test_metrics_count_all_ensembles_under_one_name_and_the_log_names_each(
    fakes: Fakes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "propagate", True)
    caplog.set_level(logging.INFO, access_log.name)
    fakes.settings = Settings(cache_dir=fakes.settings.cache_dir, access_log=True)
    reverse = "ensemble:inception_v2,googlenet"
    async with fakes.client() as client:
        with counted() as found:
            await ask(client)
            await ask(client, f"model={reverse}", content=b"text")
            await ask(client, f"model={PAIR}", files=[("a", ("a.png", picture())), ("b", ("b.png", b""))])
            await ask(client, "model=ensemble:googlenet,nobody")
    assert found.risen("topfive_requests_total") == {
        ("ensemble", "ok", "200"): 1,
        ("ensemble", "undecodable", "422"): 1,
        ("ensemble", "partial", "200"): 1,
        ("none", "unknown-model", "404"): 1,
    }
    assert found.risen("topfive_pictures_total") == {
        ("ensemble", "ok", "200"): 2,
        ("ensemble", "undecodable", "422"): 1,
        ("ensemble", "no-picture", "400"): 1,
    }
    assert found.risen("topfive_routed_total") == {("ensemble", "named"): 3}
    assert found.rise("topfive_request_seconds_count", model="ensemble") == 2
    assert found.rise("topfive_forward_seconds_count", model="ensemble") == 2
    # Batches are counted for the members.
    assert {model for _cut, model in found.risen("topfive_batches_total")} == {"googlenet", "inception_v2"}
    lines = [record.__dict__["fields"]["model"] for record in caplog.records if record.name == "topfive.access"]
    assert lines == [PAIR, reverse, PAIR, "none"]


async def test_series_of_ensembles_exist_once_there_are_two_networks(fakes: Fakes) -> None:
    async with fakes.client() as client:
        text = (await client.get("/metrics")).text
    assert 'topfive_requests_total{model="ensemble",reason="ok",status="200"}' in text


async def test_docs_mention_ensembles(fakes: Fakes) -> None:
    async with fakes.client() as client:
        documented = (await client.get("/openapi.json")).json()
    parameters = {p["name"]: p for p in documented["paths"]["/classify"]["post"]["parameters"]}
    assert "ensemble:NAME,NAME" in parameters["model"]["description"]
    assert "members" in json.dumps(documented["components"]["schemas"]["Answer"])


async def test_ensembles_share_batches_with_requests_for_single_networks(fakes: Fakes) -> None:
    fakes.profiles = []
    async with fakes.client() as client, fakes.busy(client, "lenet5@mnist"):
        posts = [asyncio.create_task(ask(client, content=photo(100))) for _ in range(4)]
        posts.append(asyncio.create_task(ask(client, "model=googlenet", content=photo(100))))
        await asyncio.sleep(1.0)  # all are decoded, on a busy machine too
    answers = [answer.json() for answer in await asyncio.gather(*posts)]
    assert fakes.engines[NAMES[0]].batches == [5]
    assert fakes.engines[NAMES[1]].batches == [4]
    assert [answer["batch_size"] for answer in answers] == [4, 4, 4, 4, 5]
