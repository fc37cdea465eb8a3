"""``POST /classify`` and ``POST /route`` with budgets: which network answers, and what a refusal says."""

from __future__ import annotations

import asyncio
import base64
import math
from typing import Any

import httpx
import pytest

from service.domain.prediction import Limits
from service.http.uploads import Upload, Uploads
from tests.fakes import Fakes, until_resident
from tests.pictures import picture
from tests.problems import problem
from tests.profiles import profile

#: Pretended figures, so far apart that a slow machine under test changes no choice.
GOOGLENET = profile("googlenet@imagenet1k", forward_ms=5_000, footprint_mb=100, load_ms=10_000)  # top-1 67.78 %
ALEXNET = profile("alexnet@imagenet1k", forward_ms=100, footprint_mb=300, load_ms=10_000)  # 54.8 %
VGG = profile("vgg16@imagenet1k", forward_ms=20_000, footprint_mb=1_000, load_ms=25_000)  # 71.592 %


@pytest.fixture
def three(fakes: Fakes) -> Fakes:
    fakes.profiles = [GOOGLENET, ALEXNET, VGG]
    fakes.loadable = {p.checkpoint for p in fakes.profiles}
    return fakes


def body_of(path: str) -> bytes:
    """``/route`` takes no body."""
    return b"" if path == "/route" else picture()


async def classify(client: httpx.AsyncClient, query: str = "") -> httpx.Response:
    return await client.post(f"/classify?{query}", content=picture())


async def is_resident(client: httpx.AsyncClient, name: str) -> bool:
    resident: bool = (await client.get(f"/models/{name}")).json()["resident"]
    return resident


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "vgg16"),
        ("latency_ms=100000", "vgg16"),
        ("latency_ms=15000", "googlenet"),
        ("latency_ms=3500", "alexnet"),
        ("memory_mb=1000", "vgg16"),
        ("memory_mb=999.9", "googlenet"),
        ("memory_mb=100", "googlenet"),
        ("memory_mb=500&latency_ms=3500", "alexnet"),
        ("min_top1=70", "vgg16"),
        ("min_top1=60&latency_ms=15000", "googlenet"),
        ("min_top1=0&memory_mb=500&k=2", "googlenet"),
        ("model=alexnet&latency_ms=3500", "alexnet"),
        ("model=vgg&memory_mb=1000&min_top1=71", "vgg16"),
    ],
)
async def test_the_most_accurate_within_the_budget_answers(three: Fakes, query: str, expected: str) -> None:
    async with three.client() as client:
        route = (await client.post(f"/route?{query}")).json()
        answer = (await classify(client, query)).json()
    assert (route["model"], answer["model"]) == (expected, expected)
    (measured,) = [p for p in three.profiles if p.checkpoint.startswith(expected)]
    assert route["footprint_mb"] == measured.footprint_bytes / 1e6
    assert route["predicted_ms"] == pytest.approx(answer["routing"]["predicted_ms"], rel=0.5)
    assert route["predicted_ms"] > measured.forward[1].mean_ms
    # The one assumes a photograph, the other knows what the picture takes to decode.
    for supposed, real in zip(route["considered"], answer["routing"]["considered"], strict=True):
        times = [entry.pop("predicted_ms", None) for entry in (supposed, real)]
        assert supposed == real
        assert times[0] == times[1] or times[0] == pytest.approx(times[1], rel=0.5)
    assert route["reason"].split(",")[0] == answer["routing"]["reason"].split(",")[0]


@pytest.mark.parametrize("path", ["/classify", "/route"])
@pytest.mark.parametrize("value", ["-1", "0", "-0", "nan", "inf", "-inf", "1e400", "1e12", "much", ""])
@pytest.mark.parametrize("name", ["memory_mb", "latency_ms"])
async def test_a_bad_budget_names_the_parameter(three: Fakes, path: str, name: str, value: str) -> None:
    async with three.client(warm=False) as client:
        answer = await client.post(f"{path}?{name}={value}", content=body_of(path))
    assert name in problem(answer, 400, "bad-parameter")["detail"]


@pytest.mark.parametrize("path", ["/classify", "/route"])
@pytest.mark.parametrize("value", ["-1", "100.1", "nan", "inf", "1e400", "good", ""])
async def test_a_bad_accuracy_names_the_parameter(three: Fakes, path: str, value: str) -> None:
    async with three.client(warm=False) as client:
        answer = await client.post(f"{path}?min_top1={value}", content=body_of(path))
    assert "min_top1" in problem(answer, 400, "bad-parameter")["detail"]


@pytest.mark.parametrize("path", ["/classify", "/route"])
@pytest.mark.parametrize(
    ("query", "says", "rejected"),
    [
        ("memory_mb=99", "googlenet@imagenet1k, the smallest, needs 100 MB", {"memory"}),
        ("memory_mb=500&min_top1=70", "vgg16@imagenet1k, the smallest, needs 1000 MB", {"accuracy", "memory"}),
        ("latency_ms=50", "the nearest is alexnet@imagenet1k", {"latency"}),
        ("latency_ms=3500&min_top1=60", "the nearest is googlenet@imagenet1k", {"accuracy", "latency"}),
        ("min_top1=90", "the nearest is vgg16@imagenet1k with 71.592 %", {"accuracy"}),
        ("model=vgg16&latency_ms=3500", "the nearest is vgg16@imagenet1k", {"latency"}),
        ("model=vgg16&memory_mb=999", "vgg16@imagenet1k, the smallest, needs 1000 MB", {"memory"}),
        ("model=vgg16&min_top1=72", "vgg16@imagenet1k with 71.592 %", {"accuracy"}),
    ],
)
async def test_a_budget_that_no_network_can_meet_is_422_and_names_the_nearest(
    three: Fakes, path: str, query: str, says: str, rejected: set[str]
) -> None:
    async with three.client() as client:
        document = problem(await client.post(f"{path}?{query}", content=body_of(path)), 422, "no-model-fits")
    assert says in document["detail"]
    assert {entry["rejected"] for entry in document["considered"]} - {"weights missing"} == rejected


@pytest.mark.parametrize("path", ["/classify", "/route"])
async def test_a_budget_that_cannot_be_met_now_is_429(three: Fakes, path: str) -> None:
    async with three.client() as client:
        async with three.busy(client, "vgg16@imagenet1k"):
            answer = await client.post(f"{path}?latency_ms=3500", content=body_of(path))
            patient = (await client.post("/route?latency_ms=60000")).json()
        document = problem(answer, 429, "overloaded")
        assert "alexnet@imagenet1k could answer within 3500 ms" in document["detail"]
        assert int(answer.headers["retry-after"]) == math.ceil(document["retry_after_ms"] / 1000) >= 1
        reasons = {entry["model"]: entry["rejected"] for entry in document["considered"]}
        assert {reasons[name] for name in ("vgg16", "googlenet")} == {"latency"}
        assert reasons["alexnet"] == "overloaded"
        # A caller with more time is answered after the picture that is on the device now.
        assert patient["model"] == "vgg16"
        assert patient["predicted_ms"] > 1.5 * VGG.forward[1].mean_ms
        assert (await classify(client, "latency_ms=3500")).json()["model"] == "alexnet"


async def test_later_refusals_have_a_later_retry_after(three: Fakes) -> None:
    async with three.client() as client, three.busy(client, "vgg16@imagenet1k"):
        query = "model=vgg16&latency_ms=25000"
        refusals = [problem(await classify(client, query), 429, "overloaded") for _ in range(2)]
    waits = [document["retry_after_ms"] for document in refusals]
    assert waits == sorted(set(waits))


async def test_later_refusals_without_a_budget_have_a_later_retry_after_too(three: Fakes) -> None:
    """A full queue of a network so quick that its pictures are soon answered: the router refuses, not the queue."""
    three.profiles = [profile("alexnet@imagenet1k", forward_ms=200, footprint_mb=300)]
    three.limits = Limits(max_batch_size=1, max_queue=1)
    async with three.client() as client:
        async with three.busy(client, "alexnet@imagenet1k"):
            waits = asyncio.create_task(classify(client, "model=alexnet"))
            await asyncio.sleep(0.1)
            refusals = [problem(await classify(client, "model=alexnet"), 429, "overloaded") for _ in range(3)]
        assert (await waits).status_code == 200
    told = [document["retry_after_ms"] for document in refusals]
    assert told == sorted(set(told))
    assert all("its queue is full: 1 pictures wait" in document["detail"] for document in refusals)


async def test_a_named_model_with_strict_false_answers_and_says_what_it_misses(three: Fakes) -> None:
    async with three.client() as client:
        for query in ("latency_ms=3500", "memory_mb=999", "min_top1=72"):
            answer = await classify(client, f"model=vgg16&strict=false&{query}")
            assert (answer.status_code, answer.json()["model"]) == (200, "vgg16")
            reason = answer.json()["routing"]["reason"]
            assert "strict=false" in reason
            assert "vgg16@imagenet1k" in reason
        # Without a model, strict=false does not lift the budget.
        problem(await classify(client, "memory_mb=99&strict=false"), 422, "no-model-fits")


async def test_routing_is_part_of_the_answer_if_there_was_a_decision(three: Fakes) -> None:
    async with three.client() as client:
        assert "routing" not in (await classify(client, "model=vgg16")).json()
        assert "routing" not in (await classify(client, "model=vgg16&strict=false")).json()
        routing = (await classify(client, "model=vgg16&memory_mb=2000")).json()["routing"]
        assert routing["reason"].startswith("named, and within the budget")
        route = (await client.post("/route?model=vgg16")).json()
    assert (route["model"], route["reason"]) == ("vgg16", "named, without a budget")


async def bulk(client: httpx.AsyncClient, query: str, pictures: int) -> list[dict[str, Any]]:
    images = [base64.b64encode(picture()).decode()] * pictures
    answer = await client.post(f"/classify?{query}", json={"images": images})
    assert answer.status_code == 200
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


async def test_each_picture_of_a_bulk_request_is_routed_with_the_ones_before_it_in_the_queue(three: Fakes) -> None:
    async with three.client() as client:
        # Two pictures take VGG 40 s, and a third would take 60. After these two, one takes GoogLeNet 45 s and a second
        # one would take 50, which is too much with the safety factor.
        results = await bulk(client, "latency_ms=54000", 4)
        assert [entry["model"] for entry in results] == ["vgg16", "vgg16", "googlenet", "alexnet"]
        predicted = [entry["routing"]["predicted_ms"] for entry in results]
        assert predicted[0] < predicted[1]
        assert max(predicted) <= 54_000
        refused = await bulk(client, "memory_mb=99", 2)
    assert [entry["type"] for entry in refused] == ["/problems/no-model-fits"] * 2


async def test_a_network_that_only_has_to_be_loaded_is_429_and_is_loaded(three: Fakes) -> None:
    three.memory_limit_bytes = 1_100_000_000
    async with three.client() as client:
        assert not await is_resident(client, "vgg16")
        document = problem(await classify(client, "min_top1=70"), 429, "overloaded")
        # Retry-After is not before the end of the load.
        assert document["retry_after_ms"] >= VGG.load_cached_ms
        await until_resident(client, "vgg16")
        assert (await classify(client, "min_top1=70")).json()["model"] == "vgg16"
        assert not await is_resident(client, "alexnet")


async def test_a_network_that_would_be_too_slow_even_in_memory_is_not_loaded(
    three: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VGG takes 20 s, which counts as 22 with the safety factor, and the budget is 24. GoogLeNet's queue is full, so
    callers are refused, and VGG is loaded for later ones; but not where so much time has passed that 22 s are left no
    more."""
    three.memory_limit_bytes = 1_100_000_000
    three.limits = Limits(max_batch_size=1, max_queue=1)
    read, passed_s = Uploads.read, 0.0

    async def earlier(*arguments: Any) -> Upload:
        upload = await read(*arguments)
        return upload._replace(ended=upload.ended - passed_s)

    monkeypatch.setattr(Uploads, "read", earlier)
    query = "min_top1=60&latency_ms=24000"
    async with three.client() as client:
        problem(await classify(client, "min_top1=70&latency_ms=15000"), 422, "no-model-fits")
        async with three.busy(client, "googlenet@imagenet1k", "&latency_ms=60000"):
            waits = asyncio.create_task(classify(client, "model=googlenet&latency_ms=60000"))
            await asyncio.sleep(0.1)
            passed_s = 10.0
            document = problem(await classify(client, query), 429, "overloaded")
            reasons = {entry["model"]: entry["rejected"] for entry in document["considered"]}
            assert (reasons["vgg16"], reasons["googlenet"]) == ("overloaded", "overloaded")
            await asyncio.sleep(0.1)
            assert not await is_resident(client, "vgg16")
            passed_s = 0.0
            problem(await classify(client, query), 429, "overloaded")
        assert (await asyncio.wait_for(waits, 30)).status_code == 200
        await until_resident(client, "vgg16")


async def test_a_refusal_loads_no_network_that_could_not_have_answered(three: Fakes) -> None:
    """GoogLeNet could have, but is busy. VGG is not in memory, and takes longer than the budget."""
    three.memory_limit_bytes = 1_100_000_000
    three.limits = Limits(max_batch_size=1, max_queue=1)
    async with three.client() as client, three.busy(client, "googlenet@imagenet1k", "&latency_ms=60000"):
        waits = asyncio.create_task(classify(client, "model=googlenet&latency_ms=60000"))
        await asyncio.sleep(0.1)
        document = problem(await classify(client, "min_top1=60&latency_ms=15000"), 429, "overloaded")
        reasons = {entry["model"]: entry["rejected"] for entry in document["considered"]}
        assert (reasons["vgg16"], reasons["googlenet"]) == ("latency", "overloaded")
        await asyncio.sleep(0.1)
        assert not await is_resident(client, "vgg16")
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)


async def test_a_caller_with_enough_time_waits_for_the_load(three: Fakes) -> None:
    three.memory_limit_bytes = 1_100_000_000
    async with three.client() as client:
        assert (await classify(client, "min_top1=70&latency_ms=60000")).json()["model"] == "vgg16"


async def test_a_network_larger_than_the_memory_limit_is_passed_over(three: Fakes) -> None:
    three.memory_limit_bytes = 400_000_000
    async with three.client() as client:
        answer = (await classify(client)).json()
        assert answer["model"] == "googlenet"
        reasons = {entry["model"]: entry["rejected"] for entry in answer["routing"]["considered"]}
        assert reasons["vgg16"] == "memory"
        document = problem(await classify(client, "model=vgg16&latency_ms=60000"), 422, "no-model-fits")
        assert "memory limit" in document["detail"]
