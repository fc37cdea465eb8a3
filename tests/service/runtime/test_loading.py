"""A predictor's checkpoint comes into memory and leaves it, and loads that fail are tried again."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace

import pytest

from models.checkpoints.catalogue import Checkpoint, WrongWeightsError
from service.batching.slot import DeviceSlot
from service.domain.errors import Failure, LoadFailedError
from service.domain.prediction import Limits, Prediction
from service.engines import Engine
from service.engines.fake import FakeEngine
from service.inference.decoders import Decoders
from service.runtime.parking import Parking
from service.runtime.predictor import Predictor
from tests.counted import counted
from tests.pictures import picture
from tests.predicting import LENET, predictor, soon
from tests.profiles import profile
from tests.sleepers import Host, Sleeper


async def test_the_checkpoint_is_loaded_once_however_many_pictures_ask() -> None:
    loads = []

    def load(checkpoint: Checkpoint) -> Engine:
        loads.append(threading.current_thread())
        time.sleep(0.05)
        return FakeEngine(checkpoint)

    served = predictor(load)
    assert not served.ready
    outcomes = await asyncio.gather(*(served.predict(picture(1), soon()) for _ in range(8)))
    assert all(isinstance(outcome, Prediction) for outcome in outcomes)
    assert served.ready
    assert len(loads) == 1
    # The event loop was free meanwhile.
    assert loads[0] is not threading.current_thread()
    await served.close()


async def test_a_load_that_fails_is_tried_again_unless_the_file_is_damaged() -> None:
    attempts = iter([OSError("busy"), None, WrongWeightsError("damaged")])

    def load(checkpoint: Checkpoint) -> Engine:
        error = next(attempts)
        if error is not None:
            raise error
        return FakeEngine(checkpoint)

    now = 0.0
    served = predictor(load, clock=lambda: now)
    for _ in range(3):  # no load is tried before the pause is over
        assert isinstance(await served.predict(picture(), soon()), Failure)
    assert served.failing
    assert served.last_failure is not None
    now = 1.0
    # The next try is due, and the reason of the last one is still known.
    assert (served.failure, served.failing) == (None, True)
    assert served.last_failure is not None
    assert isinstance(await served.predict(picture(), soon()), Prediction)
    assert (served.failing, served.last_failure, served.failure) == (False, None, None)
    await served.close()
    damaged = predictor(load)
    for _ in range(3):  # read once: the attempts are used up
        outcome = await damaged.predict(picture(), soon())
        assert isinstance(outcome, Failure)
        assert (outcome.slug, outcome.status, damaged.damaged) == ("weights-damaged", 503, True)
    await damaged.close()


class Broken(FakeEngine):
    """An engine whose warm-up fails."""

    closed = 0

    def warm_up(self, largest: int) -> None:
        raise ArithmeticError("no warm-up")

    def close(self) -> None:
        Broken.closed += 1


async def test_an_engine_whose_warm_up_fails_is_closed_and_the_device_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Broken, "closed", 0)
    slot = DeviceSlot()
    served = Predictor(LENET, Broken, slot, Decoders(2), Limits())
    outcome = await served.predict(picture(), soon())
    assert isinstance(outcome, Failure)
    assert (outcome.slug, Broken.closed, served.ready) == ("load-failed", 1, False)
    async with asyncio.timeout(5), slot.taken():
        pass
    await served.close()


async def test_an_engine_warms_up_on_the_slots_thread_when_the_device_is_free() -> None:
    warmed_in: list[threading.Thread] = []

    class Warming(FakeEngine):
        def warm_up(self, largest: int) -> None:
            warmed_in.append(threading.current_thread())

    slot, made = DeviceSlot(), threading.Event()

    def load(checkpoint: Checkpoint) -> Engine:
        made.set()
        return Warming(checkpoint)

    served = Predictor(LENET, load, slot, Decoders(1), Limits())
    async with slot.taken():
        loading = asyncio.create_task(served.load())
        assert await asyncio.to_thread(made.wait, 5)
        await asyncio.sleep(0.01)
        assert slot.contended
        assert warmed_in == []
    await loading
    assert warmed_in == [await slot.run(threading.current_thread)]
    await served.close()


@pytest.mark.parametrize(("top1", "worth"), [(90.0, 0.9), (None, 0.5)])
async def test_a_use_counts_as_much_as_the_checkpoint_is_accurate(top1: float | None, worth: float) -> None:
    served = Predictor(replace(LENET, top1=top1), FakeEngine, DeviceSlot(), Decoders(1), Limits())
    assert served._resident.worth == pytest.approx(worth)
    await served.close()


async def test_a_pinned_checkpoint_stays_and_one_in_use_is_not_unloaded() -> None:
    served = predictor(pinned=True)
    await served.load()
    outcome = await served.try_unload(wait=True)
    assert outcome is not None
    assert (outcome.slug, served.ready) == ("in-use", True)
    await served.close()
    served = predictor()
    await served.load()
    served.pin()
    assert await served.try_unload(wait=True) is not None
    await served.close()


async def test_loads_and_evictions_are_counted() -> None:
    attempts = iter([OSError("busy"), None, None])
    now = 0.0

    def load(checkpoint: Checkpoint) -> Engine:
        nonlocal now
        error = next(attempts)
        if error is not None:
            raise error
        now += 2.0
        return Slow(checkpoint)

    class Slow(FakeEngine):
        def warm_up(self, largest: int) -> None:
            nonlocal now
            assert largest == 5
            now += 3.0

    served = predictor(load, Limits(max_batch_size=5), clock=lambda: now)
    with counted() as found:
        assert await served.try_load() is not None
        now += 10.0
        assert await served.try_load() is None
        await served.try_unload(wait=False)
        assert await served.try_load() is None
        await served.retire()
    assert found.risen("topfive_loads_total") == {("lenet5", "failed"): 1, ("lenet5", "ok"): 2}
    assert found.rise("topfive_load_seconds_sum", model="lenet5") == pytest.approx(10.0)
    assert found.risen("topfive_evictions_total") == {("lenet5", "asked"): 1, ("lenet5", "replaced"): 1}


async def test_what_needs_no_memory_is_prepared_once_until_a_load_fails() -> None:
    prepared: list[str] = []
    attempts = iter([None, OSError("busy"), None])

    def load(checkpoint: Checkpoint) -> Engine:
        error = next(attempts)
        if error is not None:
            raise error
        return FakeEngine(checkpoint)

    now = 0.0
    served = predictor(load, prepare=lambda checkpoint: prepared.append(checkpoint.name), clock=lambda: now)
    await served.prepare()
    await served.prepare()
    await served.load()
    await served.prepare()
    assert prepared == ["lenet5@mnist"]
    # A load prepares whatever is needed by itself.
    loaded = predictor(prepare=lambda checkpoint: prepared.append("again"))
    await loaded.load()
    await loaded.prepare()
    assert prepared == ["lenet5@mnist"]
    await loaded.close()
    await served.try_unload(wait=False)
    assert await served.try_load() is not None
    with pytest.raises(LoadFailedError):
        await served.prepare()
    assert prepared == ["lenet5@mnist"]
    now += 10.0
    await served.prepare()
    assert len(prepared) == 2
    await served.close()


async def test_a_preparation_that_fails_counts_as_a_load_that_failed() -> None:
    def prepare(_checkpoint: Checkpoint) -> None:
        raise OSError("no disk")

    served = predictor(prepare=prepare)
    with counted() as found, pytest.raises(LoadFailedError):
        await served.prepare()
    assert (served.failing, served.failure is not None, served.damaged) == (True, True, False)
    assert 0 < served.again_in_s <= 1
    assert found.risen("topfive_loads_total") == {("lenet5", "failed"): 1}
    await served.close()


async def test_an_unloaded_engine_is_closed_on_the_slots_thread_and_none_is_closed_twice() -> None:
    closed_in: list[threading.Thread] = []

    class Closing(FakeEngine):
        def close(self) -> None:
            closed_in.append(threading.current_thread())

    slot = DeviceSlot()
    served = Predictor(LENET, Closing, slot, Decoders(1), Limits())
    await served.load()
    await served.try_unload(wait=True)
    await served.close()
    assert closed_in == [await slot.run(threading.current_thread)]


async def test_closing_closes_the_engine() -> None:
    closed: list[str] = []

    class Closing(FakeEngine):
        def close(self) -> None:
            closed.append("closed")

    served = predictor(Closing)
    await served.load()
    await served.close()
    assert closed == ["closed"]


async def test_weights_that_leave_the_device_are_parked_and_the_next_load_wakes_them() -> None:
    host, loads, now = Host(), 0, 0.0

    class Slow(Sleeper):
        def warm_up(self, largest: int) -> None:
            nonlocal now
            now += 3.0

    def load(checkpoint: Checkpoint) -> Engine:
        nonlocal loads
        loads += 1
        return Slow(checkpoint, host)

    measured = profile(load_ms=5000).model_copy(update={"wake_ms": 400})
    served = predictor(load, profile=measured, parking=Parking(1000), clock=lambda: now)
    with counted() as found:
        await served.load()
        assert await served.try_unload(wait=False) is None
        readings = {reading.name: reading.value for reading in served.readings()}
        assert (readings["topfive_parked_bytes"], readings["topfive_resident_bytes"]) == (100, 0)
        assert served.snapshot(0, soon()).load_s == 0.4
        assert isinstance(await served.predict(picture(), soon()), Prediction)
    assert host.events == [f"{what} lenet5@mnist" for what in ("park", "close", "wake", "free")]
    assert (loads, host.held) == (1, {})
    assert found.risen("topfive_loads_total") == {("lenet5", "ok"): 1, ("lenet5", "woken"): 1}
    assert found.rise("topfive_load_seconds_sum", model="lenet5") == 6.0
    readings = {reading.name: reading.value for reading in served.readings()}
    assert readings["topfive_parked_bytes"] == 0
    # A stop parks nothing.
    await served.close()
    assert host.events[4:] == ["close lenet5@mnist"]


async def test_an_unloaded_checkpoint_without_parked_weights_is_expected_to_take_a_whole_load() -> None:
    measured = profile(load_ms=5000).model_copy(update={"wake_ms": 400})
    served = predictor(profile=measured, parking=Parking(1000))
    assert served.snapshot(0, soon()).load_s == 5.0
    await served.load()
    await served.try_unload(wait=False)
    assert served.snapshot(0, soon()).load_s == 5.0
    await served.close()


async def test_weights_that_cannot_be_woken_are_loaded_from_the_file_at_the_next_try() -> None:
    host, now = Host(), 0.0
    host.broken.add("wake")
    served = predictor(lambda checkpoint: Sleeper(checkpoint, host), parking=Parking(1000), clock=lambda: now)
    await served.load()
    await served.try_unload(wait=False)
    assert await served.try_load() is not None
    assert host.held == {}
    now += 1.0
    assert await served.try_load() is None
    await served.close()


async def test_weights_of_a_file_that_was_replaced_are_given_up() -> None:
    host = Host()
    served = predictor(lambda checkpoint: Sleeper(checkpoint, host), parking=Parking(1000))
    await served.load()
    await served.try_unload(wait=False)
    assert host.held
    await served.retire()
    assert host.held == {}
    loaded = predictor(lambda checkpoint: Sleeper(checkpoint, host), parking=Parking(1000))
    await loaded.load()
    host.events.clear()
    await loaded.retire()
    assert host.events == ["close lenet5@mnist"]
