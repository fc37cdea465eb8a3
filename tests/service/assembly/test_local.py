"""The assembly of one process: what the settings and the deployment become, and the application's start and stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from models.checkpoints.catalogue import Checkpoint
from models.images.cost import Price
from service.assembly import local
from service.config.fleet import Deployment
from service.config.settings import Settings
from service.domain.prediction import Limits
from service.engines.buckets import Buckets
from service.http.app import ClassifyFirst
from service.telemetry.metrics import REGISTRY


class Profiles(NamedTuple):
    """Stands in for ``Profiler``: the engine of a checkpoint is a text."""

    loader: Any

    def loader_of(self, checkpoint: Any) -> Callable[[Any], str]:
        return lambda loaded: f"{loaded} by the loader of {checkpoint}"


class Parts:
    """Stand-ins for the engine loader and the placement, which remember their arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loader: dict[str, Any] = {}
        self.limits: Limits | None = None
        self.placement: dict[str, Any] = {}
        self.cores = 4
        self.made = SimpleNamespace(device="cpu", prepare=lambda _checkpoint: None, max_batch_size=0)
        self.loads: Callable[[Any], Any] | None = None
        monkeypatch.setattr(local, "engine_loader", self._load)
        monkeypatch.setattr(local, "LocalPlacement", self._place)
        monkeypatch.setattr(local, "Profiler", Profiles)
        monkeypatch.setattr(local, "device_name", lambda device: f"a {device}")
        self.tuned = 0
        monkeypatch.setattr(local, "tune", self._tune)
        monkeypatch.setattr(local.os, "sched_getaffinity", lambda _process: set(range(self.cores)))

    def _tune(self) -> None:
        self.tuned += 1

    def _load(self, **arguments: Any) -> Any:
        self.loader = arguments
        self.made.max_batch_size = arguments["max_batch_size"] or 99
        return self.made

    def _place(self, load: Callable[[Any], Any], limits: Limits, **arguments: Any) -> str:
        self.loads = load
        self.limits, self.placement = limits, arguments
        return "placement"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(monkeypatch)


def test_settings_and_deployment_reach_the_engines_and_the_placement(parts: Parts, tmp_path: Path) -> None:
    settings = Settings(
        cache_dir=tmp_path,
        memory_limit_mb=123,
        max_batch_size=8,
        max_pixels=1000,
        device="cpu",
        max_decode_ms=2500,
        max_decode_mb=77,
    )
    deployment = Deployment(
        variants=["googlenet", "bn_inception"], max_queue=7, max_queue_mb=2, pinned=["bn_inception"]
    )
    stopping = bool
    assert local.local_placement(settings, deployment, stopping) == "placement"
    assert parts.loader == {
        "device": "cpu",
        "engine": None,
        "precision": "auto",
        "threads": 4,
        "cache_dir": tmp_path,
        "max_batch_size": 8,
    }
    assert parts.limits == Limits(max_batch_size=8, max_queue=7, max_queue_bytes=2_000_000, max_pixels=1000)
    # Each checkpoint in its own precision.
    assert parts.loads is not None
    assert parts.loads("googlenet") == "googlenet by the loader of googlenet"
    decoders = parts.placement.pop("decoders")
    assert (decoders.width, decoders.most) == (4, Price(2.5, 77_000_000))
    assert parts.placement == {
        "stopping": stopping,
        "gpu_decoding": None,
        "profiles": Profiles(parts.made),
        "memory_limit_bytes": 123_000_000,
        "parked_limit_bytes": 0,
        "pinned": ["inception_v2"],
        "prepare": parts.made.prepare,
        "device": "googlenet+inception_v2: a cpu",
    }


@pytest.mark.parametrize(("limit_mb", "left"), [(1000, 900_000_000), (50, 0)])
def test_decoding_on_a_gpu_takes_its_memory_from_the_networks(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_mb: float, left: int
) -> None:
    parts.made.device = "cuda:1"
    decoding = SimpleNamespace(held_bytes=100_000_000)
    made: dict[str, Any] = {"cuda:1": decoding}
    monkeypatch.setattr(local, "gpu_decoding", made.get)
    settings = Settings(cache_dir=tmp_path, memory_limit_mb=limit_mb, decode="gpu")
    local.local_placement(settings, Deployment(variants=["googlenet"]))
    assert (parts.placement["gpu_decoding"], parts.placement["memory_limit_bytes"]) == (decoding, left)
    made.clear()
    local.local_placement(settings, Deployment(variants=["googlenet"]))
    assert (parts.placement["gpu_decoding"], parts.placement["memory_limit_bytes"]) == (None, limit_mb * 1_000_000)


def test_a_deployments_own_values_win(parts: Parts, tmp_path: Path) -> None:
    deployment = Deployment(variants=["*"], engine="torch_cpu", threads=3, max_batch_size=5)
    local.local_placement(Settings(cache_dir=tmp_path, memory_limit_mb=1, max_batch_size=8), deployment)
    assert (parts.loader["engine"], parts.loader["threads"], parts.loader["max_batch_size"]) == ("torch_cpu", 3, 5)
    assert parts.limits is not None
    assert parts.limits.max_batch_size == 5
    # The loader knows what the device takes if neither says.
    local.local_placement(Settings(cache_dir=tmp_path, memory_limit_mb=1), Deployment(variants=["*"]))
    assert (parts.loader["max_batch_size"], parts.limits.max_batch_size) == (None, 99)
    assert parts.placement["stopping"]() is False


@pytest.mark.parametrize(("cores", "workers"), [(1, 2), (2, 2), (3, 3), (8, 8), (9, 8), (64, 8)])
def test_two_to_eight_threads_decode(parts: Parts, tmp_path: Path, cores: int, workers: int) -> None:
    parts.cores = cores
    local.local_placement(Settings(cache_dir=tmp_path, memory_limit_mb=1), Deployment(variants=["*"]))
    assert parts.placement["decoders"].width == workers


def test_the_interpreter_is_tuned_for_serving(parts: Parts, tmp_path: Path) -> None:
    local.local_placement(Settings(cache_dir=tmp_path, memory_limit_mb=1), Deployment(variants=["*"]))
    assert parts.tuned == 1


class Placed:
    """A placement that remembers its calls in order; its warm-up ends when a test says so."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.warm, self.done = asyncio.Event(), asyncio.Event()

    async def warm_up(self, checkpoints: Sequence[Checkpoint]) -> None:
        self.calls.append([checkpoint.name for checkpoint in checkpoints])
        try:
            await self.warm.wait()
        except asyncio.CancelledError:
            self.calls.append("cancelled")
            raise

    async def keep_trying(self) -> None:
        self.calls.append("keep trying")
        self.done.set()

    async def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> Placed:
    placed = Placed()

    def start_tracing(_settings: Settings) -> Callable[[], None]:
        return lambda: placed.calls.append("stop tracing")

    monkeypatch.setattr(local, "local_placement", lambda *_arguments: placed)
    monkeypatch.setattr(local, "start_tracing", start_tracing)
    return placed


def running(app: ClassifyFirst) -> AbstractAsyncContextManager[Any]:
    """The application between its start and its stop."""
    return app.lifespan(app)


@pytest.mark.parametrize("warm", [True, False])
async def test_networks_load_in_the_background_and_a_stop_ends_that_before_the_placement_is_closed(
    placed: Placed, tmp_path: Path, warm: bool
) -> None:
    app = local.local_app(Settings(cache_dir=tmp_path), Deployment(variants=["lenet5", "vgg16"]))
    async with running(app):
        await asyncio.sleep(0)
        # Those with weights alone: vgg16 has none on this machine.
        assert placed.calls == [["lenet5@mnist"]]
        if warm:
            placed.warm.set()
            await asyncio.wait_for(placed.done.wait(), 10)
    assert placed.calls[1:] == ["keep trying" if warm else "cancelled", "close", "stop tracing"]


async def test_halved_batches_are_counted_in_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placement = local.local_placement(Settings(cache_dir=tmp_path, device="cpu"), Deployment(variants=["lenet5"]))
    monkeypatch.setattr(Buckets, "halvings", 7)
    assert REGISTRY.get_sample_value("topfive_oom_splits_total") == 7
    await placement.close()


async def test_an_untrained_service_serves_the_variants_of_its_deployment(placed: Placed, tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path, untrained=True)
    app = local.local_app(settings, Deployment(variants=["vgg16", "bn_inception"]))
    async with running(app):
        await asyncio.sleep(0)
    assert sorted(placed.calls[0]) == ["inception_v2@untrained", "vgg16@untrained"]
