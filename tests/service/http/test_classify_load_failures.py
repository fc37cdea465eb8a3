"""``POST /classify`` while loads fail: what the caller gets, and which network answers instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint, WrongWeightsError
from service.config.settings import Settings
from service.domain.errors import LoadFailedError
from service.domain.prediction import Limits
from service.engines import Engine
from service.engines.fake import FakeEngine
from service.http.app import create_app
from service.profiling.profiles import Profile
from service.runtime.placement import LocalPlacement
from tests.cards import put
from tests.pictures import photo, picture
from tests.problems import problem
from tests.profiles import Measured, profile

#: Footprints in MB, and room for either of the first two.
MEGABYTES = {"vgg16@imagenet1k": 900, "googlenet@imagenet1k": 100, "googlenet@cifar10": 10}
LIMIT = 950_000_000


class Service:
    """A service with vgg16 and googlenet for imagenet1k. Tests can make their loads fail."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.now, self.failing_takes_s = cache, 0.0, 0.0
        self.jumps = 0.0
        put(cache, "vgg16", "imagenet1k", top1=71.0)
        put(cache, "googlenet", "imagenet1k", top1=67.0)
        self.catalogue = Catalogue(cache)
        self.broken: dict[str, Exception] = {}
        self.cannot_be_prepared: dict[str, Exception] = {}
        self.events: list[str] = []
        self.placement = LocalPlacement(
            self.load,
            Limits(),
            profiles=OnFile(*(profile(name, footprint_mb=size) for name, size in MEGABYTES.items())),
            memory_limit_bytes=LIMIT,
            prepare=self.prepare,
            clock=self.clock,
        )

    def clock(self) -> float:
        """The time that a failed load takes has passed at the second reading after it."""
        now, self.now, self.jumps = self.now, self.now + self.jumps, 0.0
        return now

    def prepare(self, checkpoint: Checkpoint) -> None:
        if checkpoint.name in self.cannot_be_prepared:
            self.events.append(f"prepare {checkpoint.name}")
            raise self.cannot_be_prepared[checkpoint.name]

    def load(self, checkpoint: Checkpoint) -> Engine:
        self.events.append(f"load {checkpoint.name}")
        if checkpoint.name in self.broken:
            self.jumps += self.failing_takes_s
            raise self.broken[checkpoint.name]
        return Unloading(checkpoint, self.events)

    @asynccontextmanager
    async def client(self, *warm: str) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(self.catalogue, self.placement, Settings(cache_dir=self.cache))
        await self.placement.warm_up([self.catalogue.find(name) for name in warm])
        self.events.clear()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client
        await self.placement.close()


class OnFile(Measured):
    """Profiles that an earlier start of the service has measured."""

    def nearest(self, checkpoint: Checkpoint) -> Profile | None:
        return self.ensure(checkpoint)


class Unloading(FakeEngine):
    """An engine that notes when it is unloaded."""

    def __init__(self, checkpoint: Checkpoint, events: list[str]) -> None:
        super().__init__(checkpoint)
        self._events = events

    def close(self) -> None:
        self._events.append(f"unload {self.checkpoint.name}")


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


async def served(client: httpx.AsyncClient, query: str = "") -> str:
    answer = await client.post(f"/classify{query}", content=photo())
    assert answer.status_code == 200, answer.text
    return str(answer.json()["checkpoint"]["name"])


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("std::bad_alloc"), OSError(28, "full"), WrongWeightsError("damaged")])
async def test_without_a_model_another_network_answers_after_one_failed_load(
    service: Service, error: Exception, at_once: bool
) -> None:
    service.broken["vgg16@imagenet1k"] = error
    async with service.client("googlenet@imagenet1k") as client:
        if at_once:
            answers = await asyncio.gather(*(served(client) for _ in range(6)))
        else:
            answers = [await served(client) for _ in range(6)]
        assert answers == ["googlenet@imagenet1k"] * 6
        assert service.events.count("load vgg16@imagenet1k") == 1


async def test_a_load_that_cannot_be_prepared_unloads_nothing(service: Service) -> None:
    service.cannot_be_prepared["vgg16@imagenet1k"] = OSError(28, "full")
    async with service.client("googlenet@imagenet1k") as client:
        for _ in range(3):
            assert await served(client) == "googlenet@imagenet1k"
            service.now += 400
        assert service.events == ["prepare vgg16@imagenet1k"] * 3


async def test_a_named_network_that_failed_to_load_is_503_at_once_with_retry_after(service: Service) -> None:
    service.broken["vgg16@imagenet1k"] = OSError(28, "full")
    async with service.client("googlenet@imagenet1k") as client:
        for _ in range(3):
            answer = await client.post("/classify?model=vgg16", content=photo())
            document = problem(answer, 503, "load-failed")
            assert "make room in the cache folder" in document["detail"]
            assert (document["retry_after_ms"], answer.headers["retry-after"]) == (1000.0, "1")
        problem(await client.post("/models/vgg16/load"), 503, "load-failed")
        assert service.events.count("load vgg16@imagenet1k") == 1
        row = (await client.get("/models/vgg16")).json()
        assert (row["state"], "make room" in row["failure"]) == ("loadable", True)


async def test_a_failed_load_is_tried_again_after_the_pause_and_no_sooner(service: Service) -> None:
    service.broken["vgg16@imagenet1k"] = MemoryError()
    async with service.client("googlenet@imagenet1k") as client:
        await served(client)
        service.now = 0.99
        await served(client)
        assert service.events.count("load vgg16@imagenet1k") == 1
        service.now = 1.0
        await served(client)
        assert service.events.count("load vgg16@imagenet1k") == 2
        service.broken.clear()
        service.now = 2.99
        assert await served(client) == "googlenet@imagenet1k"
        service.now = 3.0
        assert await served(client) == "vgg16@imagenet1k"
        assert (await client.get("/models/vgg16")).json()["failure"] is None


async def test_a_new_file_is_tried_at_once(service: Service) -> None:
    service.broken["vgg16@imagenet1k"] = WrongWeightsError("damaged")
    async with service.client("googlenet@imagenet1k") as client:
        assert await served(client) == "googlenet@imagenet1k"
        service.broken.clear()
        put(service.cache, "vgg16", "imagenet1k", top1=71.0, origin="another")
        assert await served(client) == "vgg16@imagenet1k"


async def test_each_picture_of_a_bulk_request_is_routed_again_after_a_failed_load(service: Service) -> None:
    service.broken["vgg16@imagenet1k"] = MemoryError()
    async with service.client("googlenet@imagenet1k") as client:
        files = [("a", ("a.png", photo())), ("b", ("b.txt", b"text")), ("c", ("c.png", photo()))]
        results = (await client.post("/classify", files=files)).json()["results"]
        assert [entry["status"] for entry in results] == [200, 422, 200]
        assert service.events.count("load vgg16@imagenet1k") == 1


async def test_a_failed_load_is_reported_if_no_other_network_could_answer(service: Service) -> None:
    service.broken["vgg16@imagenet1k"] = MemoryError()
    async with service.client("googlenet@imagenet1k") as client:
        for _ in range(2):
            answer = await client.post("/classify?min_top1=70", content=photo())
            assert answer.status_code in (422, 503)
            assert service.events.count("load vgg16@imagenet1k") == 1


async def test_retry_after_is_that_of_the_load_that_is_tried_again_first(service: Service) -> None:
    for name in MEGABYTES:
        service.broken[name] = OSError(28, "full")
    async with service.client() as client:
        await client.post("/classify?model=vgg16", content=photo())
        service.now = 0.5
        await client.post("/classify?model=googlenet@imagenet1k", content=photo())
        service.now = 0.625
        answer = await client.post("/classify?labels=imagenet1k", content=photo())
        assert problem(answer, 503, "load-failed")["retry_after_ms"] == 375.0


async def test_each_network_is_tried_once_for_a_picture_however_long_loads_take(service: Service) -> None:
    names = ["vgg16@imagenet1k", "googlenet@imagenet1k"]
    service.broken = {name: OSError(28, "full") for name in names}
    service.failing_takes_s = 1000.0
    async with service.client() as client, asyncio.timeout(30):
        problem(await client.post("/classify?labels=imagenet1k", content=photo()), 503, "load-failed")
        assert service.events == [f"load {name}" for name in names]


@pytest.mark.parametrize("asked", ["", "?labels=imagenet1k"])
async def test_a_label_set_whose_networks_all_fail_is_503_with_retry_after(service: Service, asked: str) -> None:
    """Another label set is not used instead."""
    for name in MEGABYTES:
        service.broken[name] = OSError(28, "full")
    service.broken["inception_v2@cifar10"] = OSError(28, "full")
    async with service.client() as client:
        for _ in range(3):
            answer = await client.post(f"/classify{asked}", content=photo())
            assert problem(answer, 503, "load-failed")["retry_after_ms"] > 0
        assert service.events.count("load vgg16@imagenet1k") == 1
        assert service.events.count("load googlenet@imagenet1k") == 1


async def test_the_default_label_set_is_that_of_networks_that_can_be_loaded(service: Service) -> None:
    service.broken["vgg16@imagenet1k"] = service.broken["googlenet@imagenet1k"] = WrongWeightsError("damaged")
    async with service.client() as client:
        for _ in range(3):
            assert (await served(client)).endswith("@cifar10")
        assert sorted(service.events)[:2] == ["load googlenet@imagenet1k", "load inception_v2@cifar10"]
        problem(await client.post("/classify?labels=imagenet1k", content=photo()), 503, "weights-damaged")


async def test_a_name_without_a_label_set_means_a_checkpoint_that_can_be_loaded(service: Service) -> None:
    service.broken["googlenet@imagenet1k"] = WrongWeightsError("damaged")
    async with service.client() as client:
        # The damage is noticed by the first load.
        problem(await client.post("/classify?model=googlenet", content=photo()), 503, "weights-damaged")
        assert await served(client, "?model=googlenet") == "googlenet@cifar10"
        assert await served(client, "?model=inception_v1") == "googlenet@cifar10"
        both = await served(client, "?model=ensemble:googlenet,inception_v2")
        assert both == "ensemble:googlenet@cifar10,inception_v2@cifar10"
        for query in ("?model=googlenet@imagenet1k", "?model=googlenet&labels=imagenet1k"):
            problem(await client.post(f"/classify{query}", content=photo()), 503, "weights-damaged")
        assert service.events.count("load googlenet@imagenet1k") == 1
        put(service.cache, "googlenet", "imagenet1k", origin="another")
        service.broken.clear()
        await asyncio.sleep(1.1)  # a name is looked up once a second
        assert await served(client, "?model=googlenet") == "googlenet@imagenet1k"


async def test_a_file_that_is_removed_while_it_is_served_is_not_served_again(service: Service) -> None:
    async with service.client("vgg16@imagenet1k") as client:
        assert await served(client) == "vgg16@imagenet1k"
        for name in ("vgg16", "googlenet"):
            (service.cache / "checkpoints" / f"{name}@imagenet1k.safetensors").unlink()
        assert (await served(client)).endswith("@cifar10")


async def test_a_service_that_can_load_no_network_is_not_ready_and_says_why(service: Service) -> None:
    names = ["vgg16@imagenet1k", "googlenet@imagenet1k"]
    service.broken = {name: OSError(28, "full") for name in names}
    async with service.client(*names) as client:
        document = problem(await client.get("/readyz"), 503, "load-failed")
        assert document["detail"].startswith("none of the 2 networks could be loaded: ")
        assert "make room in the cache folder" in document["detail"]
        trying = asyncio.create_task(service.placement.keep_trying())
        del service.broken["googlenet@imagenet1k"]
        service.now = 1.0
        await asyncio.wait_for(trying, 30)
        assert (await client.get("/readyz")).status_code == 200


async def test_one_loaded_network_is_enough_to_be_ready(service: Service) -> None:
    service.broken["vgg16@imagenet1k"] = OSError(28, "full")
    async with service.client("vgg16@imagenet1k", "googlenet@imagenet1k") as client:
        assert (await client.get("/readyz")).status_code == 200


async def test_each_failed_load_at_the_start_is_logged_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(tmp_path)
    service.broken["vgg16@imagenet1k"] = RuntimeError("two\nlines")
    service.cannot_be_prepared["googlenet@imagenet1k"] = OSError(13, "denied")
    async with service.client("vgg16@imagenet1k", "googlenet@imagenet1k"):
        lines = [record.getMessage() for record in caplog.records if "cannot be loaded" in record.getMessage()]
    assert [line.split(" cannot")[0] for line in lines] == ["vgg16@imagenet1k", "googlenet@imagenet1k"]
    assert "RuntimeError: two lines" in lines[0]
    assert "Traceback" not in caplog.text


async def test_an_ensemble_whose_member_fails_to_load_is_503(service: Service) -> None:
    service.broken["vgg16@imagenet1k"] = MemoryError()
    async with service.client("googlenet@imagenet1k") as client:
        for _ in range(2):
            answer = await client.post("/classify?model=ensemble:googlenet,vgg16", content=picture())
            problem(answer, 503, "out-of-memory")
        with pytest.raises(LoadFailedError):
            await service.placement.predictor(service.catalogue.find("vgg16")).load()
        assert service.events.count("load vgg16@imagenet1k") == 1
