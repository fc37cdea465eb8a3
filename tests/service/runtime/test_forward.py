"""The forward passes of a checkpoint: on which engine they run, what they return, and what is learned from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from models.checkpoints.catalogue import Catalogue
from service.batching.queue import Batch, DeadlineQueue
from service.engines import TopK
from service.engines.fake import FakeEngine
from service.profiling.forecast import Forecast
from service.profiling.profiles import Latency
from service.runtime.arriving import Arriving
from service.runtime.forward import ForwardPasses, Input, Output
from service.telemetry.recorder import PredictorMetrics
from tests.batching import FAR
from tests.clock import Clock
from tests.counted import counted
from tests.profiles import profile

LENET = Catalogue().find("lenet5")
#: On average ten milliseconds for one picture and forty for a batch of sixteen; a twentieth of the passes takes a fifth
#: more.
PROFILE = profile().model_copy(
    update={
        "forward": {
            size: Latency(mean_ms=mean, p50_ms=0.9 * mean, p95_ms=1.2 * mean, p99_ms=1.5 * mean, runs=9)
            for size, mean in ((1, 10.0), (16, 40.0))
        }
    }
)


class Overlapping(FakeEngine):
    """An engine that takes a batch while it computes another, and remembers whether whole distributions were asked
    for."""

    def submit(self, crops: Any, whole: bool = False) -> Any:
        return self.run(crops, whole)

    def collect(self, batch: Any) -> TopK:
        assert isinstance(batch, TopK)
        return batch

    def run(self, crops: Any, whole: bool = False) -> TopK:
        self.asked_whole = whole
        return super().run(crops, whole)


def forward_passes(arriving: Arriving | None = None) -> ForwardPasses:
    forecast = Forecast(LENET, PROFILE, 16, Clock())
    return ForwardPasses(forecast, Arriving() if arriving is None else arriving, PredictorMetrics(LENET))


def inputs(**whole: bool) -> list[Input]:
    """Pictures whose classes are 0, 1, 2 ..."""
    return [Input(np.full((32, 32, 1), number, np.uint8), wanted) for number, wanted in enumerate(whole.values())]


async def batch_of(items: list[Input], cut: str = "drained") -> Batch[Input, Any]:
    queue: DeadlineQueue[Input, Any] = DeadlineQueue(99, 10**9)
    for item in items:
        queue.push(item, FAR, 0, 0.0)
    return queue.next_batch(99, (), 0.0, 0.0)._replace(cut=cut)


@pytest.mark.parametrize("begun", [False, True])
def test_whole_distributions_are_fetched_and_returned_only_for_inputs_that_want_them(begun: bool) -> None:
    engine, passes = Overlapping(LENET), forward_passes()
    passes.use(engine)

    def run(batch: list[Input]) -> list[Output]:
        return passes.begin(batch)() if begun else passes.run(batch)

    assert [top[2] for top in run(inputs(a=False, b=False))] == [None, None]
    assert not engine.asked_whole
    plain, whole, other = run(inputs(a=False, b=True, c=True))
    assert engine.asked_whole
    assert plain[2] is None
    for top, first in ((whole, 1), (other, 2)):
        assert top[2] is not None
        distribution = np.frombuffer(top[2], np.float32)
        assert distribution.shape == (10,)
        assert (distribution[list(top[1])] == np.float32(top[0])).all()
        assert top[1][0] == first


def test_only_an_engine_that_takes_a_second_batch_overlaps() -> None:
    passes = forward_passes()
    assert not passes.overlaps
    plain, overlapping = FakeEngine(LENET), Overlapping(LENET)
    for engine, overlaps in ((plain, False), (overlapping, True), (plain, False)):
        passes.use(engine)
        assert passes.overlaps is overlaps
    passes.use(overlapping)
    passes.use(None)
    assert not passes.overlaps


def test_another_engine_takes_over_and_the_one_before_is_returned() -> None:
    passes = forward_passes()
    first, second = FakeEngine(LENET), FakeEngine(LENET)
    assert passes.use(first) is None
    assert passes.use(second) is first
    passes.run(inputs(a=False))
    assert (first.batches, second.batches) == ([], [1])
    assert passes.use(None) is second


def test_the_batcher_sees_the_forecast_and_the_pictures_that_arrive() -> None:
    arriving = Arriving()
    passes = forward_passes(arriving)
    assert [passes.forward_s[size] for size in (1, 16)] == pytest.approx([0.012, 0.048])
    assert passes.expected_s(1) == pytest.approx(0.010)
    assert passes.expected_s(16) == pytest.approx(0.040)
    assert passes.arriving == 0
    arriving.begin(FAR, 0.0, 10)
    assert passes.arriving == 1


async def test_a_pass_that_succeeded_is_counted_and_corrects_the_forecast() -> None:
    passes = forward_passes()
    batch = await batch_of(inputs(a=False, b=False), cut="full")
    before = passes.expected_s(2)
    with counted() as found:
        for _ in range(50):
            passes.learn(batch, 0.0, 2.0, None)
    assert found.risen("topfive_batches_total") == {("full", "lenet5"): 50}
    assert found.rise("topfive_batch_size_sum", model="lenet5") == 100
    assert found.rise("topfive_device_seconds_total", model="lenet5") == pytest.approx(100.0)
    # Twelve milliseconds each, on the straight line between the two sizes of the profile.
    assert found.rise("topfive_profiled_device_seconds_total", model="lenet5") == pytest.approx(50 * 0.012)
    clock: Any = passes.forecast._clock
    clock.now += 1.0  # the forecast is drawn anew only so often
    passes.learn(batch, 0.0, 2.0, None)
    assert passes.expected_s(2) > 10 * before


async def test_a_pass_that_failed_is_neither_counted_nor_learned_from() -> None:
    passes = forward_passes()
    batch = await batch_of(inputs(a=False))
    clock: Any = passes.forecast._clock
    before = passes.forecast.forward_s
    clock.now += 1.0
    with counted() as found:
        passes.learn(batch, 0.0, 9.0, ArithmeticError("bad luck"))
    assert found.risen("topfive_batches_total") == {}
    assert found.risen("topfive_device_seconds_total") == {}
    assert passes.forecast.forward_s == before


@pytest.mark.parametrize(("any_thread", "largest"), [(True, 4), (False, 0)])
def test_passes_of_a_third_of_a_millisecond_run_on_the_event_loop(any_thread: bool, largest: int) -> None:
    """By the profile a pass takes 0.15 ms for one picture and 0.9 ms for sixteen: 0.3 ms for four, 0.35 for five."""

    class Quick(FakeEngine):
        @property
        def any_thread(self) -> bool:
            return any_thread

    means = {1: 0.15, 16: 0.9}
    quick = PROFILE.model_copy(
        update={"forward": {n: Latency(mean_ms=m, p50_ms=m, p95_ms=m, p99_ms=m, runs=9) for n, m in means.items()}}
    )
    passes = ForwardPasses(Forecast(LENET, quick, 16, Clock()), Arriving(), PredictorMetrics(LENET))
    assert not passes.at_once(1)
    passes.use(Quick(LENET))
    assert [size for size in range(1, 17) if passes.at_once(size)] == list(range(1, largest + 1))


def test_an_engine_that_overlaps_batches_is_never_run_on_the_event_loop() -> None:
    passes = forward_passes()

    class Both(Overlapping):
        any_thread = True

    passes.use(Both(LENET))
    assert not passes.at_once(1)


def test_a_pass_alone_takes_what_the_profile_says_whatever_was_learned() -> None:
    for known, expected_s in ((PROFILE, PROFILE.forward[1].mean_ms / 1000), (None, math.inf)):
        passes = ForwardPasses(Forecast(LENET, known, 16, Clock()), Arriving(), PredictorMetrics(LENET))
        passes.forecast.learn(1, 9.0)
        assert passes.alone_s == pytest.approx(expected_s)
