"""Requests that end in the middle, networks that are replaced: they are counted too, and as what they were."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.config.settings import Settings
from service.domain.prediction import Limits
from service.engines import Engine
from service.runtime.placement import LocalPlacement
from service.runtime.predictor import Predictor
from tests.counted import counted
from tests.fakes import Fakes
from tests.pictures import picture
from tests.profiles import profile


async def test_who_goes_first_is_counted_as_gone(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    async with fakes.client() as client:
        with counted() as found:
            async with fakes.busy(client, "lenet5@mnist"):
                pass
            received = [{"type": "http.request", "body": b"", "more_body": True}, {"type": "http.disconnect"}]

            async def receive() -> dict[str, object]:
                return received.pop(0)

            async def send(_message: object) -> None: ...

            scope = {"type": "http", "method": "POST", "path": "/classify", "headers": [], "query_string": b""}
            await client._transport.app(scope, receive, send)  # type: ignore[attr-defined]
    assert found.risen("topfive_requests_total") == {("lenet5", "ok", "200"): 1, ("none", "gone", "499"): 1}
    assert found.rise("topfive_in_flight") == 0


@pytest.mark.parametrize("pictures", [1, 3])
async def test_who_is_cancelled_by_the_server_is_gone_too(tmp_path: Path, pictures: int) -> None:
    """Serve cancels a request itself when its caller goes."""
    fakes = Fakes(tmp_path)
    fakes.settings = Settings(cache_dir=tmp_path, access_log=True)
    files = [("f", (f"{index}.png", picture())) for index in range(pictures)]
    async with fakes.client() as client:
        with counted() as found:
            async with fakes.busy(client, "lenet5@mnist"):
                asking = asyncio.create_task(client.post("/classify?model=lenet5", files=files))
                await asyncio.sleep(0.005)
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
    assert found.risen("topfive_requests_total") == {("lenet5", "ok", "200"): 1, ("lenet5", "gone", "499"): 1}
    assert found.risen("topfive_pictures_total") == {("lenet5", "ok", "200"): 1, ("lenet5", "gone", "499"): pictures}
    assert found.rise("topfive_in_flight") == 0


async def test_a_defect_in_one_picture_leaves_its_neighbours_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = Fakes(tmp_path)
    broken = picture(200)
    predict = Predictor.predict

    async def failing(self: Predictor, image: bytes, deadline: float, whole: bool = False) -> object:
        if image == broken:
            raise AttributeError("a defect")
        return await predict(self, image, deadline, whole)

    monkeypatch.setattr(Predictor, "predict", failing)
    files = [("a", ("a.png", picture())), ("b", ("b.png", broken))]
    async with fakes.client() as client:
        with counted() as found:
            answer = await client.post("/classify?model=lenet5", files=files)
    assert [entry["status"] for entry in answer.json()["results"]] == [200, 500]
    assert found.risen("topfive_pictures_total") == {("lenet5", "ok", "200"): 1, ("lenet5", "internal", "500"): 1}


async def test_a_picture_that_waits_for_a_load_is_old(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    load, release = fakes.load, threading.Event()

    def slow(checkpoint: Checkpoint) -> Engine:
        assert release.wait(30)
        return load(checkpoint)

    fakes.load = slow  # type: ignore[method-assign]
    async with fakes.client(warm=False) as client:
        asking = asyncio.create_task(client.post("/classify?model=lenet5", content=picture()))
        await asyncio.sleep(0.05)
        text = (await client.get("/metrics")).text
        release.set()
        assert (await asking).status_code == 200
    assert 'topfive_queue_length{model="lenet5"} 1.0' in text
    assert float(text.partition('topfive_queue_oldest_seconds{model="lenet5"} ')[2].split()[0]) > 0


async def test_what_would_have_to_be_loaded_is_no_debt(tmp_path: Path) -> None:
    """The load of the machine is not to blame for it, but its memory."""
    fakes = Fakes(tmp_path)
    fakes.loadable = {"alexnet@imagenet1k", "vgg16@imagenet1k"}
    fakes.profiles = [
        profile("alexnet@imagenet1k", forward_ms=1, footprint_mb=300),
        profile("vgg16@imagenet1k", forward_ms=1, footprint_mb=900, load_ms=5000),
    ]
    async with fakes.client() as client:
        await client.post("/models/vgg16/unload?wait=true")
        with counted() as found:
            assert (await client.post("/classify?latency_ms=1000", content=picture())).status_code == 200
    assert found.risen("topfive_routed_total") == {("alexnet", "not loaded"): 1}
    assert found.rise("topfive_accuracy_debt_sum") == 0


async def test_a_checkpoint_that_is_replaced_is_told_of_as_long_as_it_is_here(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    checkpoint = Catalogue(tmp_path).find("lenet5")
    placement = LocalPlacement(fakes.load, Limits())
    await placement.load(checkpoint)
    with counted() as found:
        # As after another import of the same origin.
        other = replace(checkpoint, path=tmp_path / "again.safetensors")
        assert await placement.load(other) is None
        await asyncio.sleep(0.05)
        told = [reading.labels for reading in placement.readings() if reading.name == "topfive_checkpoint_info"]
    await placement.close()
    assert told == [("lenet5", "lenet5@mnist", "mnist", checkpoint.origin, "true")]
    assert found.risen("topfive_evictions_total") == {("lenet5", "replaced"): 1}
