"""``/models``: listing checkpoints, loading and unloading them. And ``/route``. Over fake engines."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from models.checkpoints.catalogue import Checkpoint
from service.engines import Engine
from tests.fakes import Fakes, until_resident
from tests.pictures import picture
from tests.problems import problem
from tests.profiles import profile


@pytest.fixture
def two(fakes: Fakes) -> Fakes:
    """Two networks, and room in memory for one of them."""
    fakes.profiles = [
        profile("googlenet@imagenet1k", forward_ms=500, footprint_mb=100, load_ms=2_000),
        profile("vgg16@imagenet1k", forward_ms=2_000, footprint_mb=1_000, load_ms=4_000),
    ]
    fakes.loadable = {p.checkpoint for p in fakes.profiles}
    fakes.memory_limit_bytes = 1_050_000_000
    return fakes


async def listed(client: httpx.AsyncClient) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The rows of ``GET /models`` by variant, without those of CIFAR-10, and the memory of each device."""
    body = (await client.get("/models")).json()
    return {row["variant"]: row for row in body["models"] if row["labels"] != "cifar10"}, body["memory"]


async def test_the_list_has_footprints_outlooks_and_held_memory(two: Fakes) -> None:
    async with two.client() as client:
        rows, memory = await listed(client)
        assert [(m["limit_mb"], m["held_mb"]) for m in memory] == [(1050, 1000)]
        vgg, googlenet, missing = rows["vgg16"], rows["googlenet"], rows["alexnet"]
        assert (vgg["footprint_mb"], vgg["resident"], vgg["state"]) == (1000, True, "ready")
        assert (googlenet["footprint_mb"], googlenet["resident"], googlenet["state"]) == (100, False, "loadable")
        assert (missing["footprint_mb"], missing["outlook"]) == (None, None)
        assert (vgg["outlook"]["load_ms"], googlenet["outlook"]["load_ms"]) == (0, 2_000)
        assert vgg["outlook"]["forward_p95_ms"]["1"] == 2_000
        assert vgg["outlook"]["predictions"] == vgg["outlook"]["queued"] == 0
        assert vgg["outlook"]["median_ratio"] is None
        # A model that is named without a budget is answered without a prediction.
        assert (await client.post("/classify?model=vgg16", content=picture())).status_code == 200
        assert (await client.get("/models/vgg16")).json()["outlook"]["predictions"] == 0
        query = "model=vgg16&latency_ms=9000"
        assert (await client.post(f"/classify?{query}", content=picture())).status_code == 200
        outlook = (await client.get("/models/vgg16")).json()["outlook"]
    assert outlook["predictions"] == 1
    assert outlook["median_ratio"] < 1


async def test_a_load_makes_room_and_an_unload_gives_it_back(two: Fakes) -> None:
    async with two.client() as client:
        row = (await client.post("/models/googlenet/load")).json()
        assert (row["name"], row["resident"], row["state"]) == ("googlenet@imagenet1k", True, "ready")
        rows, memory = await listed(client)
        assert (rows["vgg16"]["resident"], memory[0]["held_mb"]) == (False, 100)
        assert (await client.post("/models/googlenet/load")).json()["resident"]
        for _ in range(2):
            row = (await client.post("/models/googlenet@imagenet1k/unload")).json()
            assert (row["resident"], row["state"]) == (False, "loadable")
        assert (await listed(client))[1][0]["held_mb"] == 0
        # The next request loads it again.
        assert (await client.post("/classify?model=googlenet", content=picture())).status_code == 200


async def test_an_unload_waits_for_requests_in_flight_if_told_to(two: Fakes) -> None:
    async with two.client() as client:
        async with two.busy(client, "vgg16@imagenet1k"):
            problem(await client.post("/models/vgg/unload"), 409, "in-use")
            problem(await client.post("/models/vgg/unload?wait=false"), 409, "in-use")
            waiting = asyncio.create_task(client.post("/models/vgg/unload?wait=true"))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        assert not (await waiting).json()["resident"]


async def test_a_pinned_network_is_not_unloaded(two: Fakes) -> None:
    two.pinned = {"vgg16"}
    async with two.client() as client:
        for query in ("", "?wait=true"):
            document = problem(await client.post(f"/models/vgg16/unload{query}"), 409, "in-use")
            assert "pinned" in document["detail"]
        # Beside it there is no room for the other network.
        document = problem(await client.post("/models/googlenet/load"), 503, "out-of-memory")
        assert "TOPFIVE_MEMORY_LIMIT_MB" in document["detail"]
        assert (await client.get("/models/vgg16")).json()["resident"]


@pytest.mark.parametrize("what", ["load", "unload"])
async def test_bad_loads_and_unloads_are_refused(two: Fakes, what: str) -> None:
    async with two.client() as client:
        problem(await client.post(f"/models/resnet50/{what}"), 404, "unknown-model")
        problem(await client.post(f"/models/alexnet/{what}"), 503, "weights-missing")
        document = problem(await client.post(f"/models/vgg16/{what}?force=true"), 400, "bad-parameter")
        assert "force" in document["detail"]
        problem(await client.post(f"/models/vgg16/{what}?wait=perhaps"), 400, "bad-parameter")
        problem(await client.get(f"/models/vgg16/{what}"), 405, "method-not-allowed")


async def test_a_load_that_takes_too_long_for_a_request_goes_on(two: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    load, release = two.load, asyncio.Event()
    loop = asyncio.get_running_loop()

    def held(checkpoint: Checkpoint) -> Engine:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(30)
        return load(checkpoint)

    monkeypatch.setattr(two, "load", held)
    two.settings = two.settings.model_copy(update={"default_latency_ms": 50})
    async with two.client(warm=False) as client:
        document = problem(await client.post("/models/googlenet/load"), 504, "deadline-missed")
        assert "still loading" in document["detail"]
        release.set()
        await until_resident(client, "googlenet")


async def test_models_lists_checkpoints_and_states(fakes: Fakes) -> None:
    fakes.loadable |= {"googlenet@imagenet1k"}
    async with fakes.client(warm=False) as client:
        rows = {row["name"]: row for row in (await client.get("/models")).json()["models"]}
        assert rows["lenet5@mnist"]["state"] == "loadable"
        assert (await client.post("/classify?model=lenet5", content=picture())).status_code == 200
        rows = {row["name"]: row for row in (await client.get("/models")).json()["models"]}
        assert (rows["lenet5@mnist"]["state"], rows["lenet5@mnist"]["resident"]) == ("ready", True)
        assert (rows["googlenet@imagenet1k"]["state"], rows["googlenet@imagenet1k"]["resident"]) == ("loadable", False)
        vgg = rows["vgg16@imagenet1k"]
        assert (vgg["state"], vgg["analytic_mb"], vgg["params"]) == ("weights missing", 614.4, 138_357_544)
        # torchvision's VGG16_Weights.IMAGENET1K_V1; the year and the multiply-adds of the paper.
        assert (vgg["top1"], vgg["top5"], vgg["year"]) == (71.592, 90.382, 2014)
        assert vgg["multiply_adds"] == pytest.approx(15.5e9, rel=0.01)
        assert (await client.get("/models/vgg")).json() == vgg
        assert (await client.get("/models/vgg16@imagenet1k")).json() == vgg
        problem(await client.get("/models/resnet50"), 404, "unknown-model")


async def test_route_checks_its_query(fakes: Fakes) -> None:
    fakes.loadable = {"vgg16@imagenet1k"}
    async with fakes.client() as client:
        document = problem(await client.post("/route?colour=red"), 400, "bad-parameter")
        assert "colour" in document["detail"]
        problem(await client.post("/route?k=11"), 400, "bad-parameter")
        problem(await client.post("/route?model=resnet50"), 404, "unknown-model")
        problem(await client.post("/route?model=zfnet"), 503, "weights-missing")
        assert (await client.post("/route?k=3")).json()["model"] == "vgg16"
        assert not any(engine.batches for engine in fakes.engines.values())


async def test_an_unload_that_takes_too_long_is_504_and_the_network_serves_on(fakes: Fakes) -> None:
    fakes.settings = fakes.settings.model_copy(update={"default_latency_ms": 200})
    async with fakes.client() as client:
        async with fakes.busy(client, "lenet5@mnist", "&latency_ms=30000"):
            unload = asyncio.create_task(client.post("/models/lenet5/unload?wait=true"))
            await asyncio.sleep(0.05)
            # This one arrives while the network takes no new requests.
            waits = asyncio.create_task(client.post("/classify?model=lenet5&latency_ms=20000", content=picture()))
            document = problem(await asyncio.wait_for(unload, 20), 504, "deadline-missed")
            assert "still in use" in document["detail"]
            # Whoever asks again at once would keep new requests out again.
            problem(await client.post("/models/lenet5/unload?wait=true"), 429, "rate-limited")
        assert (await asyncio.wait_for(waits, 20)).status_code == 200
        assert (await client.get("/models/lenet5")).json()["resident"]


async def test_route_loads_and_books_nothing(two: Fakes) -> None:
    """GoogLeNet could answer once it is loaded. A request would have it loaded, and push later ones back."""
    async with two.client() as client:
        assert (await client.get("/models/vgg16")).json()["resident"]
        query = "model=googlenet&latency_ms=2000"
        waits = []
        for _ in range(3):
            document = problem(await client.post(f"/route?{query}"), 429, "overloaded")
            waits.append(document["retry_after_ms"])
            await asyncio.sleep(0.02)
        assert waits == [waits[0]] * 3
        assert not (await client.get("/models/googlenet")).json()["resident"]
        problem(await client.post(f"/classify?{query}", content=picture()), 429, "overloaded")
        await until_resident(client, "googlenet")


async def test_a_network_is_not_unloaded_again_and_again(two: Fakes) -> None:
    """Each unload costs the next requests a load."""
    async with two.client() as client:
        statuses = []
        for _ in range(4):
            assert (await client.post("/classify?model=googlenet", content=picture())).status_code == 200
            statuses.append((await client.post("/models/googlenet/unload?wait=true")).status_code)
        assert statuses == [200, 429, 429, 429]
        answer = await client.post("/models/googlenet/unload?wait=true")
        document = problem(answer, 429, "rate-limited")
        assert 0 < document["retry_after_ms"] <= 30_000
        assert "googlenet@imagenet1k was unloaded by hand" in document["detail"]
        assert (await client.get("/models/googlenet")).json()["resident"]
        # A load of what is loaded changes nothing, and other networks are not concerned.
        assert [(await client.post("/models/googlenet/load")).status_code for _ in range(9)] == [200] * 9
        assert (await client.post("/models/vgg16/load")).status_code == 200
        assert [(await client.post("/models/vgg16/unload")).status_code for _ in range(9)] == [200] * 9


async def test_loads_by_hand_that_push_out_others_are_bounded_too(two: Fakes) -> None:
    async with two.client() as client:
        statuses = []
        for _ in range(3):
            statuses.append((await client.post("/models/googlenet/load")).status_code)
            # There is room for one of them.
            assert (await client.post("/classify?model=vgg16", content=picture())).status_code == 200
        assert statuses == [200, 429, 429]


async def test_only_what_was_done_counts(two: Fakes) -> None:
    async with two.client() as client:
        async with two.busy(client, "vgg16@imagenet1k"):
            for _ in range(3):
                problem(await client.post("/models/vgg16/unload"), 409, "in-use")
        assert (await client.post("/models/vgg16/unload")).status_code == 200
