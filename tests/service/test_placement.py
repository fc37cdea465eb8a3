"""Predictors in one process: which one serves a checkpoint, and what a re-import does."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from models.checkpoints import Catalogue
from service.engines.fake import FakeEngine
from service.errors import NotReadyError
from service.placement import LocalPlacement
from service.predictor import Limits, Prediction
from tests.pictures import picture

LENET = Catalogue().find("lenet5@mnist")


async def test_a_checkpoint_has_one_predictor() -> None:
    placement = LocalPlacement(FakeEngine, Limits())
    assert placement.predictor(LENET) is placement.predictor(replace(LENET))
    await placement.close()


async def test_a_replaced_file_gets_a_new_predictor_and_the_old_one_answers_what_it_has() -> None:
    placement = LocalPlacement(lambda checkpoint: FakeEngine(checkpoint, seconds=0.1), Limits(max_batch_size=1))
    old = placement.predictor(LENET)
    running = [asyncio.create_task(old.predict(picture(), time.monotonic() + 30)) for _ in range(4)]
    await asyncio.sleep(0.05)
    imported = replace(LENET, modified_ns=1, origin="imported")
    new = placement.predictor(imported)
    assert new is not old
    assert not placement.resident(imported)
    assert isinstance(await new.predict(picture(), time.monotonic() + 30), Prediction)
    assert all(isinstance(outcome, Prediction) for outcome in await asyncio.gather(*running))
    await asyncio.gather(*placement._retiring)
    assert not old.ready
    assert placement.predictor(imported) is new
    await placement.close()


async def test_not_ready_says_what_is_being_done() -> None:
    placement = LocalPlacement(FakeEngine, Limits())
    with pytest.raises(NotReadyError, match="starting"):
        placement.check_ready()
    await placement.warm_up([LENET])
    placement.check_ready()
    assert placement.resident(LENET)
    await placement.close()
    with pytest.raises(NotReadyError, match="stopping"):
        placement.check_ready()
