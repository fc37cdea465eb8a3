"""A predictor over a fake engine: loading once, errors as values, room for what is being decoded."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint, WrongWeightsError
from models.images.preprocess import Preprocess, picture_to_crop
from service.batching.slot import DeviceSlot
from service.domain.errors import Failure
from service.domain.prediction import Limits, Prediction
from service.engines import Engine
from service.engines.fake import FakeEngine
from service.runtime.predictor import Predictor
from tests.pictures import picture

LENET = Catalogue().find("lenet5@mnist")


def soon() -> float:
    return time.monotonic() + 60


def predictor(load: object = FakeEngine, limits: Limits | None = None, **options: Any) -> Predictor:
    return Predictor(LENET, load, DeviceSlot(), ThreadPoolExecutor(2), limits or Limits(), **options)  # type: ignore[arg-type]


async def test_a_picture_becomes_a_prediction() -> None:
    served = predictor()
    outcome = await served.predict(picture(5), soon())
    assert isinstance(outcome, Prediction)
    assert (outcome.indices[0], outcome.batch_size) == (5, 1)
    assert min(outcome.decode_s, outcome.queue_s, outcome.forward_s) >= 0
    await served.close()


async def test_however_many_ask_the_checkpoint_is_loaded_once() -> None:
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


async def test_errors_are_values() -> None:
    served = predictor()
    outcome = await served.predict(b"text", soon())
    assert isinstance(outcome, Failure)
    assert outcome.slug == "undecodable"
    late = await served.predict(picture(), time.monotonic() - 1)
    assert isinstance(late, Failure)
    assert late.slug == "deadline-missed"
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
    for _ in range(3):  # nobody tries before the pause is over
        assert isinstance(await served.predict(picture(), soon()), Failure)
    now = 1.0
    assert isinstance(await served.predict(picture(), soon()), Prediction)
    await served.close()
    damaged = predictor(load)
    for _ in range(3):  # read once: the attempts are used up
        outcome = await damaged.predict(picture(), soon())
        assert isinstance(outcome, Failure)
        assert (outcome.slug, outcome.status, damaged.damaged) == ("weights-damaged", 503, True)
    await damaged.close()


async def test_the_deadline_bounds_the_wait_for_a_load_which_goes_on_for_the_others() -> None:
    release = threading.Event()

    def load(checkpoint: Checkpoint) -> Engine:
        assert release.wait(30)
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
        assert release.wait(30)
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
    """A burst is refused at its arrival, not after each picture has been decoded in vain."""
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
    await served.close()


@pytest.mark.parametrize(
    ("image", "on_the_loop"),
    [(picture(5), True), (picture(5, side=128), True), (picture(5, side=129), False), (picture(5, side=4000), False)],
    ids=["digit", "thumbnail", "larger", "few bytes, many pixels"],
)
async def test_only_what_is_small_is_decoded_on_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, image: bytes, on_the_loop: bool
) -> None:
    from service.runtime import decoding as module

    decoded_in = []

    def watched(data: bytes, preprocess: Preprocess, *, max_pixels: int, quick: bool = False) -> object:
        crop = picture_to_crop(data, preprocess, max_pixels=max_pixels, quick=quick)
        decoded_in.append(threading.current_thread())
        return crop

    monkeypatch.setattr(module, "picture_to_crop", watched)
    served = predictor()
    outcome = await served.predict(image, soon())
    assert isinstance(outcome, Prediction)
    assert outcome.indices[0] == 5
    assert [thread is threading.current_thread() for thread in decoded_in] == [on_the_loop]
    await served.close()


async def test_a_limit_below_what_is_small_holds() -> None:
    served = predictor(limits=Limits(max_pixels=100))
    outcome = await served.predict(picture(5), soon())
    assert isinstance(outcome, Failure)
    assert outcome.slug == "too-many-pixels"
    await served.close()
