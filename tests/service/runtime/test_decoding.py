"""Where a predictor has pictures decoded, and who waits for them meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from models.images.cost import Price, Work
from models.images.pictures import UndecodableError
from models.images.preprocess import Preprocess, picture_to_crop
from service.domain.errors import Failure
from service.domain.prediction import Limits, Prediction
from service.runtime.predictor import Predictor
from tests.pictures import photo, picture
from tests.predicting import predictor, soon


@pytest.mark.parametrize(
    ("image", "on_the_loop"),
    [(picture(5), True), (picture(5, side=128), True), (picture(5, side=500), False), (picture(5, side=4000), False)],
    ids=["digit", "thumbnail", "larger", "few bytes, many pixels"],
)
async def test_only_what_is_small_is_decoded_on_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, image: bytes, on_the_loop: bool
) -> None:
    from service.inference import decoding as module

    decoded_in = []

    def watched(data: bytes, preprocess: Preprocess, **options: Any) -> object:
        crop = picture_to_crop(data, preprocess, **options)
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


async def test_a_picture_that_is_broken_keeps_no_batch_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch waits for it while a thread decodes it, and goes when it turns out to be broken."""
    from service.inference import decoders as module

    release, decoding = threading.Event(), threading.Event()

    def broken(*_: object) -> object:
        decoding.set()
        assert release.wait(5)
        raise UndecodableError("broken")

    monkeypatch.setattr(module, "decode", broken)
    served = predictor()
    await served.load()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 1000.0)  # moments never end
    late = asyncio.create_task(served.predict(photo(), soon()))
    assert await asyncio.get_running_loop().run_in_executor(None, decoding.wait, 5)
    good = asyncio.create_task(served.predict(picture(5), soon()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not good.done()
    release.set()
    for _ in range(500):
        if good.done() and late.done():
            break
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.01)
    assert good.done(), "the batch still waits"
    assert isinstance(late.result(), Failure)
    assert isinstance(good.result(), Prediction)
    monkeypatch.undo()
    await served.close()


class Stuck:
    """A photograph whose decode waits until the test ends it, beside digits for the same checkpoint."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from service.inference import decoders as module

        self.began, self.release = threading.Event(), threading.Event()
        real = module.decode

        def held(*arguments: Any) -> Any:
            self.began.set()
            assert self.release.wait(10)
            return real(*arguments)

        monkeypatch.setattr(module, "decode", held)


async def passed_by(served: Predictor, stuck: Stuck) -> None:
    """A digit is answered while a photograph is being decoded, although moments never end."""
    photograph = asyncio.create_task(served.predict(photo(), soon()))
    assert await asyncio.to_thread(stuck.began.wait, 5)
    await until(lambda: served.soon == 0)
    assert served.queued == 1
    # An idle device: nothing is ahead of others, and nothing waits.
    snapshot = served.snapshot(100, soon())
    assert (snapshot.ahead, snapshot.queued) == (0, 0)
    assert served.waiting_s == 0
    digit = await served.predict(picture(5), soon())
    assert isinstance(digit, Prediction)
    assert not photograph.done()
    stuck.release.set()
    assert isinstance(await photograph, Prediction)
    assert (served.soon, served.queued) == (0, 0)
    await served.close()


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not what():  # noqa: ASYNC110 - a thread or a timer changes it
            await asyncio.sleep(0.001)


async def test_a_dear_picture_keeps_neither_batches_nor_budgets_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    from service.batching import batcher
    from service.runtime import decoding as module

    stuck = Stuck(monkeypatch)
    monkeypatch.setattr(module, "work_of", lambda *_: Work(Price(1.0, 1), dear=True))
    monkeypatch.setattr(batcher, "_MOMENT_S", 60.0)
    served = predictor()
    await served.load()
    await asyncio.wait_for(passed_by(served, stuck), 5)


async def test_a_decode_that_outruns_its_price_keeps_neither_batches_nor_budgets_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from service.batching import batcher
    from service.runtime import decoding as module

    stuck = Stuck(monkeypatch)
    monkeypatch.setattr(module, "outrun_s", lambda work: 0.01 if work.price.seconds < 0.1 else 60.0)
    monkeypatch.setattr(batcher, "_MOMENT_S", 60.0)
    served = predictor()
    await served.load()
    await asyncio.wait_for(passed_by(served, stuck), 5)
