"""Files that are replaced while their checkpoints are served: each is loaded once, and every request is answered."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from models.checkpoints.accuracies import Accuracy, add_accuracies, weights_of
from models.checkpoints.catalogue import Catalogue, Checkpoint, WrongWeightsError
from service.config.settings import Settings
from service.domain.prediction import Limits
from service.engines import Engine
from service.engines.fake import FakeEngine
from service.http.app import create_app
from service.runtime.placement import LocalPlacement, came_later
from tests.cards import put
from tests.pictures import photo
from tests.profiles import Measured, profile

GOOGLENET = "googlenet@imagenet1k"


class Service:
    """A service with googlenet@imagenet1k. The origin in an answer tells which of its files answered."""

    def __init__(self, cache: Path, *, limit_mb: float = 1e6) -> None:
        self.cache = cache
        self.loads: list[str] = []
        self.damaged: set[str] = set()
        self.closed: list[str] = []
        self.put("first")
        self.catalogue = Catalogue(cache)
        self.placement = LocalPlacement(
            self._load,
            Limits(),
            profiles=_OnFile(profile(GOOGLENET, footprint_mb=100), profile("vgg16@imagenet1k", footprint_mb=100)),
            memory_limit_bytes=round(limit_mb * 1e6),
            prepare=self._check,
        )

    def put(self, origin: str) -> Path:
        return put(self.cache, "googlenet", "imagenet1k", top1=67.0, origin=origin)

    def _check(self, checkpoint: Checkpoint) -> None:
        if checkpoint.origin in self.damaged:
            raise WrongWeightsError("damaged")

    def _load(self, checkpoint: Checkpoint) -> Engine:
        self.loads.append(checkpoint.origin)
        self._check(checkpoint)
        time.sleep(0.1)
        service = self

        class Closing(FakeEngine):
            def close(self) -> None:
                service.closed.append(checkpoint.origin)

        return Closing(checkpoint, 0.002)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(self.catalogue, self.placement, Settings(cache_dir=self.cache))
        await self.placement.warm_up([self.catalogue.find(GOOGLENET)])
        self.loads.clear()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client
        await self.placement.close()


class _OnFile(Measured):
    def nearest(self, checkpoint: Checkpoint) -> object:  # type: ignore[override]
        return self.ensure(checkpoint)


async def origin(client: httpx.AsyncClient, query: str = "") -> str:
    answer = await client.post(f"/classify{query}", content=photo())
    assert answer.status_code == 200, answer.text
    return str(answer.json()["checkpoint"]["origin"])


async def until_served(client: httpx.AsyncClient, wanted: str) -> None:
    for _ in range(1_000):
        if await origin(client) == wanted:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError(f"{wanted} was not served")


async def test_each_import_is_loaded_once_under_traffic_and_every_request_is_answered(tmp_path: Path) -> None:
    service = Service(tmp_path)
    async with service.client() as client:
        going = True
        answers: list[list[str]] = [[] for _ in range(8)]

        async def caller(number: int) -> None:
            while going:
                answers[number].append(await origin(client, "?model=googlenet" if number % 2 else ""))

        callers = [asyncio.create_task(caller(number)) for number in range(8)]
        for name in ("second", "third", "fourth"):
            await asyncio.sleep(0.05)
            service.put(name)
            await until_served(client, name)
        # Requests that name the model look at the folder once a second, and must not go back to an older file.
        await asyncio.sleep(1.2)
        going = False
        await asyncio.gather(*callers)
    assert service.loads == ["second", "third", "fourth"]
    order = ["first", "second", "third", "fourth"]
    for seen in answers:
        assert [order.index(name) for name in seen] == sorted(order.index(name) for name in seen)
        assert (seen[0], seen[-1]) == ("first", "fourth")
    assert service.closed == order


async def test_a_file_that_comes_while_another_is_being_loaded_takes_its_place(tmp_path: Path) -> None:
    service = Service(tmp_path)
    async with service.client() as client:
        for name in ("second", "third", "fourth"):
            service.put(name)
            assert await origin(client) == "first"
        await until_served(client, "fourth")
        # The load of an earlier file may have begun before the last file came.
        assert len(service.loads) <= 3
        assert service.loads[-1] == "fourth"
        assert {await origin(client), await origin(client, "?model=googlenet")} == {"fourth"}


async def test_a_damaged_file_leaves_the_good_one_before_it_serving(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(tmp_path)
    service.damaged.add("second")
    async with service.client() as client:
        service.put("second")
        for query in ("", "?model=googlenet", "?labels=imagenet1k") * 5:
            assert await origin(client, query) == "first"
            await asyncio.sleep(0.02)
        assert service.loads == ["second"]
        assert (await client.get("/models/googlenet")).json()["origin"] == "first"
        assert caplog.text.count("goes on with the weights before") == 1
        service.put("third")
        await until_served(client, "third")
        assert service.loads == ["second", "third"]


async def test_an_ensemble_names_the_files_that_answered(tmp_path: Path) -> None:
    service = Service(tmp_path)
    put(tmp_path, "vgg16", "imagenet1k", top1=60.0, origin="vgg")
    async with service.client() as client:
        service.put("second")
        answer = await client.post("/classify?model=ensemble:googlenet,vgg16", content=photo())
        assert [m["checkpoint"]["origin"] for m in answer.json()["members"]] == ["first", "vgg"]
        await until_served(client, "second")
        answer = await client.post("/classify?model=ensemble:googlenet,vgg16", content=photo())
        assert [m["checkpoint"]["origin"] for m in answer.json()["members"]] == ["second", "vgg"]


async def test_without_room_for_both_the_new_file_is_checked_before_the_old_one_is_unloaded(tmp_path: Path) -> None:
    service = Service(tmp_path, limit_mb=150)
    service.damaged.add("second")
    async with service.client() as client:
        service.put("second")
        for _ in range(5):
            assert await origin(client) == "first"
            await asyncio.sleep(0.02)
        assert (service.loads, service.closed) == ([], [])
        service.put("third")
        await until_served(client, "third")
        assert (service.loads, service.closed) == (["third"], ["first"])


async def test_the_new_file_evicts_the_old_one_and_no_other_checkpoint(tmp_path: Path) -> None:
    service = Service(tmp_path, limit_mb=250)
    put(tmp_path, "vgg16", "imagenet1k", top1=60.0, origin="vgg")
    async with service.client() as client:
        assert await origin(client, "?model=vgg16") == "vgg"
        for _ in range(3):
            await origin(client)
        service.put("second")
        await until_served(client, "second")
        assert service.closed == ["first"]
        assert service.loads == ["vgg", "second"]


async def test_a_deleted_file_and_an_older_one_that_was_put_back_are_noticed(tmp_path: Path) -> None:
    service = Service(tmp_path)
    backup = tmp_path / "backup"
    shutil.copy2(service.put("first"), backup)
    os.utime(backup, (1_000_000_000, 1_000_000_000))
    async with service.client() as client:
        target = service.put("second")
        await until_served(client, "second")
        shutil.copy2(backup, tmp_path / "part")
        (tmp_path / "part").replace(target)
        await until_served(client, "first")
        target.unlink()
        answer = await client.post("/classify?model=googlenet@imagenet1k&labels=imagenet1k", content=photo())
        for _ in range(150):  # a name is looked up once a second
            answer = await client.post("/classify?model=googlenet@imagenet1k", content=photo())
            if answer.status_code != 200:
                break
            await asyncio.sleep(0.01)
        assert answer.json()["type"] == "/problems/weights-missing"


def test_the_later_of_two_files_is_the_one_on_the_disk(tmp_path: Path) -> None:
    box = Catalogue(tmp_path).find("lenet5@mnist")
    path = put(tmp_path, "lenet5", "mnist")
    now = Catalogue(tmp_path).find("lenet5@mnist")
    assert now.modified_ns is not None
    before = replace(now, modified_ns=now.modified_ns - 1)
    after = replace(now, modified_ns=now.modified_ns + 1)
    assert came_later(now, box)
    assert not came_later(box, now)
    assert came_later(now, before)
    assert not came_later(before, now)
    # Only one of the two is on the disk: the clock was set back.
    assert came_later(now, after)
    path.unlink()
    assert came_later(box, now)
    assert not came_later(now, box)
    assert not came_later(now, after)


async def test_a_checkpoint_that_was_measured_meanwhile_is_rated_anew_and_not_loaded_again(tmp_path: Path) -> None:
    service = Service(tmp_path)
    async with service.client() as client:
        before = (await client.get("/models/googlenet")).json()
        assert (before["top1"], before["top1_origin"]) == (67.0, None)
        weights = weights_of(GOOGLENET, tmp_path / "checkpoints" / f"{GOOGLENET}.safetensors")
        measured = Accuracy(members=(weights,), top1=55.5, top5=80.0, pictures=1000, measured_at="2026-11-28T12:00:00Z")
        add_accuracies(service.catalogue.accuracies_path, [measured])
        answer = (await client.post("/classify?model=googlenet", content=photo())).json()
        assert answer["checkpoint"]["top1"] == 55.5
        after = (await client.get("/models/googlenet")).json()
        assert (after["top1"], after["top5"]) == (55.5, 80.0)
        assert after["top1_origin"] == "measured here on 1,000 pictures"
        assert service.loads == []
