"""The placement in this process: which predictor serves a checkpoint, and what a re-import does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.batching.slot import DeviceSlot
from service.domain.errors import NotReadyError
from service.domain.prediction import Limits, Prediction
from service.domain.snapshot import Snapshot
from service.engines import Engine
from service.engines.fake import FakeEngine
from service.runtime.placement import LocalPlacement
from tests.pictures import picture
from tests.profiles import Measured, profile

LENET = Catalogue().find("lenet5@mnist")


async def test_a_checkpoint_has_one_predictor() -> None:
    placement = LocalPlacement(FakeEngine, Limits())
    assert placement.predictor(LENET) is placement.predictor(replace(LENET))
    await placement.close()


async def test_a_new_file_is_loaded_beside_the_old_one_which_answers_until_then() -> None:
    release = threading.Event()
    release.set()

    def load(checkpoint: Checkpoint) -> Engine:
        assert release.wait(30)
        return FakeEngine(checkpoint, seconds=0.05)

    placement = LocalPlacement(load, Limits(max_batch_size=1))
    old = placement.predictor(LENET)
    await old.load()
    release.clear()
    running = [asyncio.create_task(old.predict(picture(), time.monotonic() + 30)) for _ in range(4)]
    imported = replace(LENET, modified_ns=1, origin="imported")
    assert placement.predictor(imported) is old
    assert placement.resident(imported)
    # The survey names the file that answers.
    assert placement.survey([imported], 0).snapshots[0][0] is LENET
    assert isinstance(await placement.predictor(imported).predict(picture(), time.monotonic() + 30), Prediction)
    release.set()
    await until(lambda: placement.predictor(imported) is not old)
    new = placement.predictor(imported)
    assert new.ready
    assert placement.survey([LENET], 0).snapshots[0][0] is imported
    assert all(isinstance(outcome, Prediction) for outcome in await asyncio.gather(*running))
    await until(lambda: not old.ready)
    await placement.close()


async def test_a_file_that_is_not_in_memory_is_replaced_at_once() -> None:
    placement = LocalPlacement(FakeEngine, Limits())
    old = placement.predictor(LENET)
    imported = replace(LENET, modified_ns=1)
    new = placement.predictor(imported)
    assert new is not old
    assert new.checkpoint is imported
    assert placement.predictor(LENET) is new
    await placement.close()


async def until(done: Callable[[], bool]) -> None:
    for _ in range(3_000):
        if done():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def test_a_placement_that_is_not_ready_says_what_it_is_doing() -> None:
    placement = LocalPlacement(FakeEngine, Limits())
    with pytest.raises(NotReadyError, match="starting"):
        placement.check_ready()
    await placement.warm_up([LENET])
    placement.check_ready()
    assert placement.resident(LENET)
    await placement.close()
    with pytest.raises(NotReadyError, match="stopping"):
        placement.check_ready()


class Loads:
    """Remembers which checkpoints were loaded, and which were prepared, in order."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.prepared: list[str] = []

    def load(self, checkpoint: Checkpoint) -> Engine:
        self.loaded.append(checkpoint.variant.name)
        return FakeEngine(checkpoint)

    def prepare(self, checkpoint: Checkpoint) -> None:
        self.prepared.append(checkpoint.variant.name)


MEGABYTES = {"alexnet": 300, "vgg11": 900, "vgg16": 1_000, "googlenet": 100}
FOUR = [replace(Catalogue().find(f"{name}@imagenet1k"), path=Path("pretended")) for name in MEGABYTES]
PROFILES = [profile(f"{name}@imagenet1k", footprint_mb=megabytes) for name, megabytes in MEGABYTES.items()]


@pytest.mark.parametrize(
    ("limit_mb", "pinned", "loaded", "prepared"),
    [
        (2_300, [], ["alexnet", "vgg11", "vgg16", "googlenet"], []),
        (1_250, [], ["alexnet", "vgg11"], ["vgg16", "googlenet"]),
        (1_250, ["vgg16"], ["vgg16", "googlenet"], ["alexnet", "vgg11"]),
        (1_250, ["vgg16", "googlenet"], ["vgg16", "googlenet"], ["alexnet", "vgg11"]),
        (50, ["googlenet"], [], ["googlenet", "alexnet", "vgg11", "vgg16"]),
    ],
)
async def test_networks_that_fit_are_loaded_pinned_ones_first_and_the_rest_prepared(
    limit_mb: int, pinned: list[str], loaded: list[str], prepared: list[str]
) -> None:
    loads = Loads()
    placement = LocalPlacement(
        loads.load,
        Limits(),
        profiles=Measured(*PROFILES),
        memory_limit_bytes=limit_mb * 1_000_000,
        pinned=pinned,
        prepare=loads.prepare,
    )
    await placement.warm_up(FOUR)
    placement.check_ready()
    # Each is prepared once, before it is measured.
    assert (loads.loaded, [name for name in loads.prepared if name not in loaded]) == (loaded, prepared)
    assert len(loads.prepared) == len(FOUR)
    assert [c.variant.name for c in FOUR if placement.resident(c)] == sorted(loaded, key=list(MEGABYTES).index)
    (memory,) = placement.memory()
    assert memory.held == sum(MEGABYTES[name] for name in loaded) * 1_000_000 <= memory.limit
    await placement.close()


async def test_predictions_use_the_profile_that_was_measured_at_the_start() -> None:
    placement = LocalPlacement(FakeEngine, Limits(), profiles=Measured(profile(footprint_mb=123)))
    await placement.warm_up([LENET])
    ((_, snapshot),) = placement.survey([LENET], 0).snapshots
    assert snapshot is not None
    assert (snapshot.footprint_bytes, snapshot.load_s) == (123_000_000, 0)
    await placement.close()


async def test_a_snapshot_has_the_times_of_the_profile_and_the_learned_ones() -> None:
    measured = profile(forward_ms=40)
    placement = LocalPlacement(FakeEngine, Limits(max_batch_size=8), profiles=Measured(measured))
    await placement.warm_up([LENET])
    predictor = placement.predictor(LENET)

    def snapshot() -> Snapshot:
        ((_, found),) = placement.survey([LENET], 100).snapshots
        assert found is not None
        return found

    # A picture takes as long in a batch as alone, by this profile.
    assert len(snapshot().forward_s) == 2
    assert (snapshot().profiled_forward_s, snapshot().profiled_decode_s) == (0.04, 0)
    predictor._quiet.begin()
    for _ in range(200):
        predictor.forecast.learn(1, 0.4)
    await asyncio.sleep(0.06)  # the forecast is computed again at most this often
    predictor.forecast.learn(1, 0.4)
    assert snapshot().forward_s[1] == pytest.approx(0.4, rel=0.1)
    assert snapshot().profiled_forward_s == 0.04
    predictor._quiet.end()
    await placement.close()


async def test_a_checkpoint_is_in_use_while_a_picture_is_in_flight() -> None:
    placement = LocalPlacement(lambda checkpoint: FakeEngine(checkpoint, seconds=0.1), Limits())
    predictor = placement.predictor(LENET)
    await predictor.load()
    running = asyncio.create_task(predictor.predict(picture(), time.monotonic() + 30))
    await asyncio.sleep(0)
    assert predictor._quiet.in_use
    await running
    assert not predictor._quiet.in_use
    # A picture that fails is not in flight either.
    await predictor.predict(b"no picture", time.monotonic() + 30)
    assert not predictor._quiet.in_use
    await placement.close()


async def test_a_device_whose_batch_is_overdue_is_busy() -> None:
    slot = DeviceSlot()
    assert slot.busy_s == 0
    async with slot.taken(expected_s=lambda: 0.0):
        assert slot.busy_s > 0
        slot.busy_until = time.monotonic() + 9
        assert 8 < slot.busy_s <= 9
    assert slot.busy_s == 0
    slot.close()
