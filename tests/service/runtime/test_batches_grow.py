"""Batches under load, whatever one look at a quiet machine said of them."""

from __future__ import annotations

import asyncio
import time

from models.checkpoints.catalogue import Catalogue
from service.domain.prediction import Limits, Prediction
from service.engines.fake import FakeEngine
from service.runtime.placement import LocalPlacement
from tests.pictures import picture
from tests.profiles import Measured, latency, profile

LENET = Catalogue().find("lenet5@mnist")
CALLERS = 16


async def answered(placement: LocalPlacement, seconds: float) -> list[int]:
    """The batches of the pictures of callers who each wait for an answer before they send the next."""
    predictor, until, sizes = placement.predictor(LENET), time.monotonic() + seconds, list[int]()

    async def caller() -> None:
        while time.monotonic() < until:
            outcome = await predictor.predict(picture(), time.monotonic() + 30)
            assert isinstance(outcome, Prediction)
            sizes.append(outcome.batch_size)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return sizes


async def test_batches_grow_under_load_where_that_gives_more_a_second() -> None:
    """A forward pass takes as long for sixteen pictures as for one; the profile says that larger ones do not pay."""
    noisy = profile().model_copy(update={"forward": {1: latency(5), 16: latency(90)}})
    placement = LocalPlacement(
        lambda checkpoint: FakeEngine(checkpoint, seconds=0.005),
        Limits(max_batch_size=CALLERS),
        profiles=Measured(noisy),
    )
    await placement.warm_up([LENET])
    at_first, later = await answered(placement, 0.05), await answered(placement, 2.0)
    assert set(at_first[:4]) == {1}
    assert max(later) >= 8
    # Of the pictures, which larger batches have more of.
    assert sorted(later)[len(later) // 2] >= 4
    await placement.close()
