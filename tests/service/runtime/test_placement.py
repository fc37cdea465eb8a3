"""The placement in this process: which predictor serves a checkpoint, and what a re-import does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.batching.slot import DeviceSlot
from service.domain.decision import Budget
from service.domain.errors import LoadFailedError, NotReadyError
from service.domain.prediction import Limits, Prediction
from service.domain.snapshot import Candidate, Snapshot
from service.engines import Engine
from service.engines.fake import FakeEngine
from service.routing.choose import choose
from service.runtime.placement import LocalPlacement, came_later
from tests.clock import Clock
from tests.pictures import picture
from tests.profiles import Measured, profile
from tests.sleepers import Host, Sleeper

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


async def test_a_queue_of_digits_delays_a_photograph() -> None:
    """Networks of all label sets share the device, so the queue of one that is not asked for counts too."""
    took = threading.Event()
    photographs = replace(Catalogue().find("googlenet@imagenet1k"), path=Path("pretended"))

    def load(checkpoint: Checkpoint) -> Engine:
        engine = FakeEngine(checkpoint)
        run = engine.run

        def held(*batch: Any) -> Any:
            assert took.wait(30)
            return run(*batch)

        engine.run = held  # type: ignore[method-assign]
        return engine

    took.set()
    placement = LocalPlacement(load, Limits(max_batch_size=1), profiles=Measured(profile(forward_ms=1000)))
    await placement.warm_up([LENET, photographs])

    def predicted_s() -> float:
        snapshots, load = placement.survey([photographs], 1000)
        decision = choose([Candidate(*snapshots[0])], Budget(1e6), load, named=True)
        assert decision.predicted_s is not None
        return decision.predicted_s

    before_s = predicted_s()
    idle = placement.survey([photographs], 1000).load
    assert (idle.waiting, idle.busy) == ([], {"": 0})
    took.clear()
    digits = [asyncio.create_task(placement.predictor(LENET).predict(picture(), far())) for _ in range(4)]
    await until(lambda: placement.predictor(LENET).queued == 3)
    # Three wait for a second each, and one is on the device.
    queued = placement.survey([photographs], 1000).load
    assert [waiting.queued for waiting in queued.waiting] == [3]
    assert queued.busy[""] > 0
    assert predicted_s() >= before_s + 3.0 - 0.5
    # Asked for itself, the same queue is in the load once.
    ((_, own),), queued = placement.survey([LENET], 1000)
    assert [snapshot is own for snapshot in queued.waiting] == [True]
    took.set()
    assert all(isinstance(outcome, Prediction) for outcome in await asyncio.gather(*digits))
    assert placement.survey([photographs], 1000).load.waiting == []
    await placement.close()


def far() -> float:
    """A deadline far away."""
    return time.monotonic() + 60


async def test_a_checkpoint_that_failed_has_no_snapshot_until_the_next_attempt_is_due() -> None:
    now, broken = 500.0, True

    def load(checkpoint: Checkpoint) -> Engine:
        if broken:
            raise OSError(28, "full")
        return FakeEngine(checkpoint)

    placement = LocalPlacement(load, Limits(), clock=lambda: now)
    await placement.warm_up([LENET])
    assert (placement.serves(LENET), placement.failure(LENET) is None) == (False, False)
    assert placement.survey([LENET], 1000).snapshots == [(LENET, None)]
    with pytest.raises(LoadFailedError, match=r"^nothing is served: "):
        placement.check_ready()
    now += 1000
    assert placement.serves(LENET)
    assert placement.failure(LENET) is not None
    ((_, snapshot),) = placement.survey([LENET], 1000).snapshots
    assert snapshot is not None
    broken = False
    await asyncio.wait_for(placement.keep_trying(), 30)
    assert placement.resident(LENET)
    assert placement.failure(LENET) is None
    placement.check_ready()
    await placement.close()


async def test_the_service_is_ready_for_prometheus_once_it_is_warm_and_until_it_stops() -> None:
    stopping = False
    placement = LocalPlacement(FakeEngine, Limits(), stopping=lambda: stopping, memory_limit_bytes=10**9)

    def readings() -> dict[str, float]:
        return {reading.name: reading.value for reading in placement.readings()}

    assert readings()["topfive_ready"] == 0
    await placement.warm_up([LENET])
    assert (readings()["topfive_ready"], readings()["topfive_memory_limit_bytes"]) == (1, 10**9)
    stopping = True
    assert readings()["topfive_ready"] == 0
    with pytest.raises(NotReadyError, match="stopping"):
        placement.check_ready()
    await placement.close()


@pytest.mark.parametrize(
    ("modified_ns", "than_ns", "later"),
    [
        (2, 1, True),
        (1, 2, False),
        (1, 1, False),
        (1, None, False),  # the import was removed again
        (None, 1, True),
        (None, None, True),
    ],
)
def test_of_two_files_of_one_name_the_newer_replaces_the_older(
    modified_ns: int | None, than_ns: int | None, later: bool
) -> None:
    """A file without a time ships with the service: an import replaces it, and it is back once the import is gone."""
    one, other = (
        replace(LENET, modified_ns=ns, path=Path("pretended") if ns else LENET.path) for ns in (modified_ns, than_ns)
    )
    assert came_later(one, other) is later


def test_an_older_file_replaces_a_newer_one_if_it_is_the_one_that_exists(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    changed_ns = path.stat().st_ctime_ns
    newer = replace(LENET, modified_ns=changed_ns + 10**9, path=path)
    assert came_later(replace(LENET, modified_ns=changed_ns, path=path), newer)
    assert not came_later(replace(LENET, modified_ns=changed_ns - 1, path=path), newer)
    assert came_later(replace(LENET, modified_ns=changed_ns, path=path), LENET)


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


async def test_a_pinned_network_stays_in_memory_after_a_re_import_too() -> None:
    placement = LocalPlacement(FakeEngine, Limits(), pinned=["lenet5"])
    await placement.warm_up([LENET])
    imported = replace(LENET, modified_ns=1)
    placement.predictor(imported)
    await until(lambda: placement.predictor(imported).checkpoint is imported)
    for checkpoint in (LENET, imported):
        failure = await placement.unload(checkpoint, wait=False)
        assert failure is not None
        assert failure.slug == "in-use"
    assert placement.resident(imported)
    await placement.close()


async def test_a_re_import_that_cannot_be_loaded_is_not_served_once_the_old_file_has_left_memory() -> None:
    def load(checkpoint: Checkpoint) -> Engine:
        if checkpoint.modified_ns is not None:
            raise OSError(28, "full")
        return FakeEngine(checkpoint)

    placement = LocalPlacement(load, Limits())
    await placement.warm_up([LENET])
    imported = replace(LENET, modified_ns=1)
    assert placement.predictor(imported).checkpoint is LENET
    await until(lambda: not placement._loading_coming)
    # The old file answers as long as it is in memory.
    assert (placement.serves(imported), placement.failure(imported)) == (True, None)
    assert await placement.unload(LENET, wait=True) is None
    assert not placement.serves(imported)
    assert placement.failure(imported) is not None
    await placement.close()


async def test_one_network_that_cannot_be_loaded_does_not_keep_the_service_from_being_ready() -> None:
    broken = replace(Catalogue().find("googlenet@imagenet1k"), path=Path("pretended"))

    def load(checkpoint: Checkpoint) -> Engine:
        if checkpoint is broken:
            raise OSError(28, "full")
        return FakeEngine(checkpoint)

    placement = LocalPlacement(load, Limits())
    await placement.warm_up([broken, LENET])
    placement.check_ready()
    assert (placement.serves(broken), placement.serves(LENET)) == (False, True)
    # Nothing is left to do for the loop that tries again.
    await asyncio.wait_for(placement.keep_trying(), 10)
    await placement.close()


async def test_checkpoints_take_turns_on_the_device_and_wait_in_host_memory() -> None:
    """The device has room for one of three, the host for the weights of all: who leaves is parked before the next is
    woken."""
    host, loads = Host(), list[str]()

    def load(checkpoint: Checkpoint) -> Engine:
        loads.append(checkpoint.variant.name)
        return Sleeper(checkpoint, host, 100, checkpoint.variant.name)

    rows = FOUR[:3]
    profiles = Measured(*(profile(row.name, footprint_mb=10) for row in rows))
    placement = LocalPlacement(load, Limits(), profiles=profiles, memory_limit_bytes=10_000_000, parked_limit_bytes=300)
    await placement.warm_up(rows)
    names = [row.variant.name for row in rows]
    for _ in range(2):
        for row in rows:
            assert await placement.load(row) is None
    # Each was read once; whoever left the device was woken the next time.
    assert sorted(loads) == sorted(names)
    assert host.most <= 300
    readings = {(reading.name, *reading.labels): reading.value for reading in placement.readings()}
    assert readings["topfive_parked_limit_bytes",] == 300
    assert {name: readings["topfive_parked_bytes", name] for name in names} == {
        name: host.held.get(name, 0) for name in names
    }
    assert sum(host.held.values()) == 200
    await placement.close()
    assert host.held == {}


class Stuck:
    """LeNet-5 and GoogLeNet on a device that computes nothing while a test holds it, on a clock that stands still. By
    their profiles a picture takes LeNet-5 a second and GoogLeNet three."""

    googlenet = replace(Catalogue().find("googlenet@imagenet1k"), path=Path("pretended"))

    def __init__(self, limits: Limits | None = None) -> None:
        self.clock = Clock()
        self._free = threading.Event()
        self._free.set()
        self.placement = LocalPlacement(
            self._load,
            limits or Limits(max_batch_size=1),
            profiles=Measured(
                profile("lenet5@mnist", forward_ms=1000), profile("googlenet@imagenet1k", forward_ms=3000)
            ),
            clock=self.clock,
        )
        self._pictures: list[asyncio.Task[object]] = []

    def _load(self, checkpoint: Checkpoint) -> Engine:
        engine = FakeEngine(checkpoint)
        run = engine.run

        def held(*batch: Any) -> Any:
            assert self._free.wait(30)
            return run(*batch)

        engine.run = held  # type: ignore[method-assign]
        return engine

    async def hold(self, checkpoint: Checkpoint) -> None:
        """Puts a picture on the device, and keeps it there."""
        self._free.clear()
        await self.queue(checkpoint, 1)
        await until(lambda: self.placement._slot.busy_s > 0 and self.placement.predictor(checkpoint).queued == 0)

    async def queue(self, checkpoint: Checkpoint, pictures: int) -> None:
        """Queues pictures."""
        predictor = self.placement.predictor(checkpoint)
        for _ in range(pictures):
            self._pictures.append(asyncio.create_task(predictor.predict(picture(), self.clock.now + 600)))
        await asyncio.sleep(0)

    def least_s(self, checkpoint: Checkpoint) -> float:
        """The shortest time within which a picture is answered at once, in seconds: found by bisection."""
        low, high = 0.0, 1e6
        assert self.placement.at_once(checkpoint, high) is checkpoint
        for _ in range(60):
            middle = (low + high) / 2
            if self.placement.at_once(checkpoint, middle) is None:
                low = middle
            else:
                high = middle
        return high

    async def free(self) -> None:
        """Lets the device compute again, waits for all pictures, and closes the placement."""
        self._free.set()
        assert all(isinstance(outcome, Prediction) for outcome in await asyncio.gather(*self._pictures))
        await self.placement.close()


async def test_a_picture_is_answered_at_once_by_a_network_in_memory_that_nobody_waits_for() -> None:
    stuck = Stuck()
    assert stuck.placement.at_once(LENET, 1e6) is None
    # Asking neither loads a network nor gives it a predictor.
    assert stuck.placement._predictors == {}
    await stuck.placement.warm_up([LENET])
    assert stuck.placement.at_once(replace(LENET), 1e6) == LENET
    assert stuck.placement.at_once(stuck.googlenet, 1e6) is None
    await stuck.free()


async def test_at_once_is_within_a_quarter_of_the_time() -> None:
    stuck = Stuck()
    await stuck.placement.warm_up([LENET, stuck.googlenet])
    assert stuck.least_s(LENET) == pytest.approx(4 * 1.0)
    assert stuck.least_s(stuck.googlenet) == pytest.approx(4 * 3.0)
    assert stuck.placement.at_once(LENET, 0.0) is None
    assert stuck.placement.at_once(LENET, -1.0) is None
    await stuck.free()


async def test_all_that_the_device_has_to_do_before_counts_against_answering_at_once() -> None:
    stuck = Stuck()
    await stuck.placement.warm_up([LENET, stuck.googlenet])
    await stuck.hold(LENET)
    # One is on the device for a second, and one's own takes another.
    assert stuck.least_s(LENET) == pytest.approx(4 * (1 + 1))
    await stuck.queue(LENET, 2)
    assert stuck.least_s(LENET) == pytest.approx(4 * (1 + 2 + 1))
    # The queue of another network counts by that network's times.
    await stuck.queue(stuck.googlenet, 3)
    assert stuck.least_s(LENET) == pytest.approx(4 * (1 + 2 + 9 + 1))
    assert stuck.least_s(stuck.googlenet) == pytest.approx(4 * (1 + 2 + 9 + 3))
    # Half of the batch on the device is over.
    stuck.clock.now += 0.5
    assert stuck.least_s(LENET) == pytest.approx(4 * (0.5 + 2 + 9 + 1))
    await stuck.free()


async def test_a_full_queue_answers_nobody_at_once() -> None:
    stuck = Stuck(Limits(max_batch_size=1, max_queue=2))
    await stuck.placement.warm_up([LENET, stuck.googlenet])
    await stuck.hold(LENET)
    await stuck.queue(LENET, 1)
    assert stuck.placement.at_once(LENET, 1e6) is LENET
    await stuck.queue(LENET, 1)
    assert stuck.placement.at_once(LENET, 1e6) is None
    # Each network has a queue of its own.
    assert stuck.placement.at_once(stuck.googlenet, 1e6) is stuck.googlenet
    await stuck.free()


async def test_a_network_that_is_about_to_leave_memory_answers_nobody_at_once() -> None:
    stuck = Stuck()
    await stuck.placement.warm_up([LENET])
    await stuck.hold(LENET)
    unloading = asyncio.create_task(stuck.placement.unload(LENET, wait=True))
    await asyncio.sleep(0)
    assert stuck.placement.resident(LENET)
    assert stuck.placement.at_once(LENET, 1e6) is None
    await stuck.free()
    assert await unloading is None


async def test_another_file_of_the_same_name_is_not_answered_for_at_once() -> None:
    """The survey says which of the two serves, and begins to load the newer one."""
    stuck = Stuck()
    await stuck.placement.warm_up([LENET])
    imported = replace(LENET, modified_ns=1)
    assert stuck.placement.at_once(imported, 1e6) is None
    assert stuck.placement.at_once(LENET, 1e6) is LENET
    stuck.placement.predictor(imported)
    await until(lambda: stuck.placement.predictor(imported).checkpoint is imported)
    assert stuck.placement.at_once(LENET, 1e6) is None
    assert stuck.placement.at_once(imported, 1e6) is imported
    await stuck.free()
