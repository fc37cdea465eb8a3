"""A predictor over a fake engine: loads, errors as values, bounds, and batches that grow under load."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Any

import pytest

from models.checkpoints.catalogue import Checkpoint
from models.images.outline import Outline
from models.images.preprocess import Preprocess
from service.batching.slot import DeviceSlot
from service.domain.errors import Failure
from service.domain.prediction import Limits, Prediction
from service.engines import Engine
from service.engines.fake import FakeEngine
from service.inference.decoders import Decoders
from service.inference.decoding import decode_small
from service.profiling.profiles import Latency
from service.runtime.predictor import Predictor
from service.runtime.residency import Residency
from tests.pictures import photo, picture
from tests.predicting import LENET, Held, predictor, soon
from tests.profiles import latency, profile


async def test_a_picture_becomes_a_prediction() -> None:
    served = predictor()
    outcome = await served.predict(picture(5), soon())
    assert isinstance(outcome, Prediction)
    assert (outcome.indices[0], outcome.batch_size) == (5, 1)
    assert min(outcome.decode_s, outcome.queue_s, outcome.forward_s) >= 0
    await served.close()


async def test_errors_are_values() -> None:
    served = predictor()
    outcome = await served.predict(b"text", soon())
    assert isinstance(outcome, Failure)
    assert outcome.slug == "undecodable"
    late = await served.predict(picture(), time.monotonic() - 1)
    assert isinstance(late, Failure)
    assert late.slug == "deadline-missed"
    await served.close()


async def test_the_deadline_bounds_the_wait_for_a_load_which_goes_on_for_other_pictures() -> None:
    release = threading.Event()

    def load(checkpoint: Checkpoint) -> Engine:
        assert release.wait(5)
        return FakeEngine(checkpoint)

    served = predictor(load)
    patient = asyncio.create_task(served.predict(picture(), soon()))
    await asyncio.sleep(0)
    hasty = await served.predict(picture(), time.monotonic() + 0.05)
    assert isinstance(hasty, Failure)
    assert hasty.slug == "deadline-missed"
    release.set()
    assert isinstance(await patient, Prediction)
    await served.close()


async def test_a_full_queue_refuses_while_the_checkpoint_is_still_loading() -> None:
    release = threading.Event()

    def load(checkpoint: Checkpoint) -> Engine:
        assert release.wait(5)
        return FakeEngine(checkpoint)

    served = predictor(load, Limits(max_queue=3))
    posts = [asyncio.create_task(served.predict(picture(), soon())) for _ in range(10)]
    await asyncio.sleep(0.05)
    refused = [post for post in posts if post.done()]
    assert len(refused) == 7
    release.set()
    outcomes = await asyncio.gather(*posts)
    assert sum(isinstance(outcome, Prediction) for outcome in outcomes) == 3
    await served.close()


async def test_pictures_being_decoded_count_towards_the_queue() -> None:
    """A burst is refused when it arrives, not after each picture has been decoded in vain."""
    served = predictor(lambda checkpoint: FakeEngine(checkpoint, seconds=0.05), Limits(max_batch_size=1, max_queue=3))
    await served.load()
    outcomes = await asyncio.gather(*(served.predict(picture(), soon()) for _ in range(20)))
    refused = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert {outcome.slug for outcome in refused} == {"overloaded"}
    assert len(refused) >= 15
    await served.close()


async def test_a_defect_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    served = predictor(lambda checkpoint: FakeEngine(checkpoint, poison=0))
    outcome = await served.predict(picture(), soon())
    assert isinstance(outcome, Failure)
    assert outcome.slug == "internal"
    assert "poisoned batch" in caplog.text
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["lenet5@mnist failed"]
    await served.close()


async def test_a_picture_whose_load_fails_leaves_nothing_behind() -> None:
    """No place in the queue, no bytes, no user of the memory, and nothing in flight."""

    def load(_checkpoint: Checkpoint) -> Engine:
        raise OSError("busy")

    now = 0.0
    small = len(picture())
    served = predictor(load, Limits(max_queue=1, max_queue_bytes=small), clock=lambda: now)
    for _ in range(3):
        outcome = await served.predict(picture(), 1e9)
        assert isinstance(outcome, Failure)
        assert (outcome.slug, served.queued, served._quiet.in_use) == ("load-failed", 0, False)
        now += 1000.0
    assert served._arriving.size == 0
    await served.close()


async def test_a_picture_that_cannot_be_decoded_leaves_nothing_behind() -> None:
    memory = Residency(100_000_000)
    served = predictor(residency=memory, limits=Limits(max_queue=1))
    for _ in range(3):
        outcome = await served.predict(b"text", soon())
        assert isinstance(outcome, Failure)
        assert (outcome.slug, served.queued, served._arriving.size) == ("undecodable", 0, 0)
    # Whatever is in use cannot be unloaded.
    assert await served.try_unload(wait=False) is None
    assert not served.ready
    await served.close()


async def test_a_picture_of_a_checkpoint_that_must_not_be_loaded_yet_does_not_wait_for_another_load() -> None:
    def broken(_checkpoint: Checkpoint) -> Engine:
        raise OSError("busy")

    memory, held = Residency(100_000_000), Held()
    served, other = predictor(broken, residency=memory), predictor(held.load, residency=memory)
    assert await served.try_load() is not None
    loading = asyncio.create_task(other.load())
    await asyncio.sleep(0.01)
    async with asyncio.timeout(1):
        assert isinstance(await served.predict(picture(), soon()), Failure)
    assert not loading.done()
    held.release.set()
    await loading
    await served.close()
    await other.close()


@pytest.mark.parametrize(("room", "let_in"), [(2.0, 2), (2.9, 2), (3.0, 3)])
async def test_the_bytes_of_pictures_that_are_not_queued_yet_are_bounded(room: float, let_in: int) -> None:
    held, sent = Held(), photo()
    served = predictor(held.load, Limits(max_queue_bytes=int(room * len(sent))))
    posts = [asyncio.create_task(served.predict(sent, soon())) for _ in range(6)]
    await asyncio.sleep(0.05)
    assert [post.done() for post in posts].count(False) == let_in == served.queued
    held.release.set()
    outcomes = await asyncio.gather(*posts)
    assert sum(isinstance(outcome, Prediction) for outcome in outcomes) == let_in
    assert {outcome.slug for outcome in outcomes if isinstance(outcome, Failure)} == {"overloaded"}
    assert served.queued == 0
    await served.close()


async def test_pictures_on_their_way_go_before_later_deadlines() -> None:
    held = Held()
    served = predictor(held.load)
    deadlines = [soon() + after for after in (1, 2, 3)]
    posts = [asyncio.create_task(served.predict(picture(), deadline)) for deadline in deadlines]
    await asyncio.sleep(0)
    found = [served.snapshot(100, deadline) for deadline in (deadlines[0] - 1, *deadlines)]
    assert [snapshot.ahead for snapshot in found] == [0, 1, 2, 3]
    assert {snapshot.queued for snapshot in found} == {3}
    held.release.set()
    await asyncio.gather(*posts)
    await served.close()


async def test_a_snapshot_tells_the_load_until_it_is_done_and_again_after_an_unload() -> None:
    served = predictor(profile=profile(load_ms=700), residency=Residency(10_000_000))
    assert served.snapshot(100, soon()).load_s == pytest.approx(0.7)
    await served.load()
    assert served.snapshot(100, soon()).load_s == 0
    # While it is being unloaded, a new picture waits for the next load already.
    async with served._residency.using(served._resident):
        unloading = asyncio.create_task(served.try_unload(wait=True))
        await asyncio.sleep(0)
        assert served.snapshot(100, soon()).load_s == pytest.approx(0.7)
    await unloading
    assert served.snapshot(100, soon()).load_s == pytest.approx(0.7)
    await served.close()


async def test_a_snapshot_tells_the_bounds_of_queue_and_batch() -> None:
    """A picture takes as long in a batch as alone by the profile, so that batches begin with one picture."""
    served = predictor(profile=profile(forward_ms=10), limits=Limits(max_batch_size=8, max_queue=5))
    snapshot = served.snapshot(100, soon())
    assert (snapshot.max_queue, len(snapshot.forward_s) - 1) == (5, 1)
    # A guess is no reason to make batches small.
    unknown = predictor(limits=Limits(max_batch_size=8))
    assert len(unknown.snapshot(100, soon()).forward_s) - 1 == 8
    await served.close()
    await unknown.close()


async def test_decoded_pictures_in_the_queue_are_bounded_in_bytes() -> None:
    """A crop of 32 x 32 bytes is larger than its file. One is on the device and two wait."""
    running, release = threading.Event(), threading.Event()

    class Blocked(FakeEngine):
        def run(self, *batch: Any) -> Any:
            running.set()
            assert release.wait(5)
            return super().run(*batch)

    served = predictor(Blocked, Limits(max_batch_size=1, max_queue_bytes=2 * 1024))
    await served.load()
    posts = [asyncio.create_task(served.predict(picture(), soon()))]
    assert await asyncio.to_thread(running.wait, 5)
    for _ in range(2):
        posts.append(asyncio.create_task(served.predict(picture(), soon())))
        await asyncio.sleep(0)
    refused = await served.predict(picture(), soon())
    release.set()
    assert isinstance(refused, Failure)
    assert refused.slug == "overloaded"
    assert all(isinstance(outcome, Prediction) for outcome in await asyncio.gather(*posts))
    await served.close()


async def test_a_retired_predictor_takes_no_more_pictures() -> None:
    served = predictor()
    assert isinstance(await served.predict(picture(), soon()), Prediction)
    await served.retire()
    outcome = await served.predict(picture(), soon())
    assert isinstance(outcome, Failure)
    assert outcome.slug == "not-ready"
    await served.close()


async def test_another_profile_is_forecast_by_from_then_on() -> None:
    served = predictor(profile=profile(forward_ms=10))
    assert served.snapshot(100, soon()).forward_s[1] == pytest.approx(0.010)
    served.expect(profile(forward_ms=30))
    assert served.snapshot(100, soon()).forward_s[1] == pytest.approx(0.030)
    assert served._passes.expected_s(1) == pytest.approx(0.030)
    await served.close()


async def test_a_checkpoint_of_which_there_is_no_room_does_not_fit() -> None:
    served = predictor(profile=profile(footprint_mb=10), residency=Residency(9_000_000))
    assert not served.snapshot(100, soon()).fits
    assert not served.has_room
    outcome = await served.try_load()
    assert outcome is not None
    assert outcome.slug == "out-of-memory"
    roomy = predictor(profile=profile(footprint_mb=10), residency=Residency(10_000_000))
    assert roomy.snapshot(100, soon()).fits
    assert roomy.has_room
    roomy.expect(profile(footprint_mb=10).model_copy(update={"load_peak_bytes": 10_000_001}))
    assert not roomy.snapshot(100, soon()).fits
    await served.close()
    await roomy.close()


async def test_a_checkpoint_that_fits_has_room_only_where_nothing_must_be_unloaded_for_it() -> None:
    memory = Residency(15_000_000)
    first, second = (predictor(profile=profile(footprint_mb=10), residency=memory) for _ in range(2))
    assert second.has_room
    await first.load()
    assert (second.has_room, second.snapshot(100, soon()).fits) == (False, True)
    await second.load()
    assert (first.ready, second.ready) == (False, True)
    await first.close()
    await second.close()


async def test_a_snapshot_tells_what_profile_and_load_say() -> None:
    """A twentieth of the passes takes a quarter more than the mean, and decoding takes less at the median."""
    measured = profile(forward_ms=10, footprint_mb=12, load_ms=300).model_copy(
        update={
            "forward": {1: Latency(mean_ms=10, p50_ms=9, p95_ms=12.5, p99_ms=20, runs=9)},
            "decode": {"thumbnail": Latency(mean_ms=3, p50_ms=2, p95_ms=5, p99_ms=9, runs=9)},
        }
    )
    served = predictor(profile=measured)
    snapshot = served.snapshot(100, soon())
    assert snapshot.forward_s[1] == pytest.approx(0.0125)
    assert (snapshot.spread, snapshot.decode_s) == (pytest.approx(1.25), 0.002)
    assert (snapshot.footprint_bytes, snapshot.load_s) == (12_000_000, pytest.approx(0.3))
    # Under load decoding takes ten times as long; the profile still says the same.
    served._quiet.begin()
    for _ in range(200):
        served.forecast.learn_decode(100, 0.02)
    later = served.snapshot(100, soon())
    assert later.decode_s == pytest.approx(0.02, rel=0.01)
    assert (later.profiled_decode_s, later.profiled_forward_s) == (0.002, pytest.approx(0.0125))
    served._quiet.end()
    await served.close()


async def test_gauges_tell_how_long_the_oldest_picture_has_waited() -> None:
    held, now = Held(), 100.0
    served = predictor(held.load, profile=profile(footprint_mb=3), clock=lambda: now)
    post = asyncio.create_task(served.predict(picture(), 1e9))
    await asyncio.sleep(0)
    now = 107.0
    readings = {reading.name: reading.value for reading in served.readings()}
    assert readings["topfive_queue_length"] == 1
    assert readings["topfive_queue_oldest_seconds"] == 7.0
    assert readings["topfive_footprint_bytes"] == 3_000_000
    assert readings["topfive_resident_bytes"] in (0, 3_000_000)
    held.release.set()
    await post
    readings = {reading.name: reading.value for reading in served.readings()}
    assert (readings["topfive_queue_length"], readings["topfive_queue_oldest_seconds"]) == (0, 0)
    assert readings["topfive_resident_bytes"] == 3_000_000
    await served.close()


async def test_a_prediction_tells_the_times_of_its_phases_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    from service.runtime import decoding as module

    now = 100.0

    def slow(image: bytes, preprocess: Preprocess, max_pixels: int) -> object:
        nonlocal now
        now += 2.0
        return decode_small(image, preprocess, max_pixels)

    class Slow(FakeEngine):
        def run(self, *batch: Any) -> Any:
            nonlocal now
            now += 5.0
            return super().run(*batch)

    def load(checkpoint: Checkpoint) -> Engine:
        nonlocal now
        now += 50.0  # which is none of the phases
        return Slow(checkpoint)

    monkeypatch.setattr(module, "decode_small", slow)
    served = Predictor(LENET, load, DeviceSlot(clock=lambda: now), Decoders(1), Limits(), clock=lambda: now)
    outcome = await served.predict(picture(), 1e9)
    assert isinstance(outcome, Prediction)
    assert (outcome.decode_s, outcome.queue_s, outcome.forward_s) == (2.0, 0.0, 5.0)
    assert outcome.distribution is None
    whole = await served.predict(picture(), 1e9, True)
    assert isinstance(whole, Prediction)
    assert whole.distribution is not None
    await served.close()


async def test_decoding_and_passes_are_learned_from() -> None:
    served = predictor(lambda checkpoint: FakeEngine(checkpoint, seconds=0.05), profile=profile(forward_ms=1))
    for _ in range(3):
        assert isinstance(await served.predict(picture(), soon()), Prediction)
    assert served.forecast._decode_ratios
    # The forecast is between the profile and what passes take now; it is drawn anew when one more is learned.
    await asyncio.sleep(0.06)
    assert isinstance(await served.predict(picture(), soon()), Prediction)
    assert served.snapshot(100, soon()).forward_s[1] > 0.002
    await served.close()


CALLERS = 16


async def answered(served: Predictor, seconds: float) -> list[int]:
    """The batch sizes of pictures from callers who each wait for an answer before they send the next picture."""
    until, sizes = time.monotonic() + seconds, list[int]()

    async def caller() -> None:
        while time.monotonic() < until:
            outcome = await served.predict(picture(), soon())
            assert isinstance(outcome, Prediction)
            sizes.append(outcome.batch_size)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return sizes


async def test_batches_grow_under_load_where_that_gives_more_a_second() -> None:
    """A forward pass takes as long for sixteen pictures as for one; the profile says that larger ones do not pay."""
    noisy = profile().model_copy(update={"forward": {1: latency(5), 16: latency(90)}})
    served = predictor(
        lambda checkpoint: FakeEngine(checkpoint, seconds=0.005), Limits(max_batch_size=CALLERS), profile=noisy
    )
    await served.load()
    at_first, later = await answered(served, 0.05), await answered(served, 2.0)
    assert set(at_first[:4]) == {1}
    assert max(later) >= 8
    # The median of pictures, not of batches: larger batches hold more of them.
    assert sorted(later)[len(later) // 2] >= 4
    await served.close()


async def test_what_was_learned_counts_while_pictures_are_in_flight_and_fades_when_none_are() -> None:
    """By the profile a pass takes ten milliseconds and a batch holds one picture."""
    now = 100.0
    served = predictor(profile=profile(forward_ms=10), clock=lambda: now)

    def batch_and_pass() -> tuple[int, float]:
        forward_s = served.snapshot(100, 1e9).forward_s
        return len(forward_s) - 1, forward_s[1]

    served._quiet.begin()
    for size, seconds in [(1, 0.4)] * 50 + [(2, 0.4)] * 50:
        now += 0.1
        served.forecast.learn(size, seconds)
        served._batch_limit.learn(size, seconds)
    now += 60.0
    size, seconds = batch_and_pass()
    assert size > 1
    assert seconds > 0.1
    served._quiet.end()
    now += 60.0
    assert batch_and_pass() == (1, pytest.approx(0.010))
    await served.close()


async def test_a_bulk_leaves_room_for_another_caller_who_is_answered_before_its_end() -> None:
    running, release = threading.Event(), threading.Event()

    class Blocked(FakeEngine):
        def run(self, *batch: Any) -> Any:
            running.set()
            assert release.wait(5)
            return super().run(*batch)

    served = predictor(Blocked, Limits(max_batch_size=1, max_queue=36))
    await served.load()
    over: list[str] = []

    async def asks(caller: str) -> Prediction | Failure:
        outcome = await served.predict(picture(), soon(), False, caller)
        over.append(caller if isinstance(outcome, Prediction) else "refused")
        return outcome

    bulk = [asyncio.create_task(asks("bulk"))]
    assert await asyncio.to_thread(running.wait, 5)
    bulk += [asyncio.create_task(asks("bulk")) for _ in range(60)]
    await asyncio.sleep(0)
    assert Counter(over) == {"refused": 60 - 32}
    polite = asyncio.create_task(asks("polite"))
    await asyncio.sleep(0)
    assert served.snapshot(1000, soon(), "other").ahead == 2  # the polite one's, and one of the bulk
    release.set()
    assert isinstance(await polite, Prediction)
    # The picture that was being computed, and one whose turn it was, went before.
    assert Counter(over)["bulk"] <= 3
    await asyncio.gather(*bulk)
    assert served._places._held == {}
    await served.close()


def test_a_snapshot_knows_what_the_picture_takes() -> None:
    served = predictor(profile=profile())
    plain = served.snapshot(300_000, soon())
    large = Outline("png alpha", 8900, 8900, 300_000, 4.0 * 8900**2)
    told = served.snapshot(300_000, soon(), outline=large)
    assert told.decode_s > 0.5 > plain.decode_s
    assert told.profiled_decode_s > 0.5
