"""Predicting with an ensemble: its members are asked at once, and their probabilities averaged.

Each member is its own predictor, with its own decoding (their crops differ), queue and batches, which it shares with
whoever asks for it alone. They answer with whole distributions, since what is tenth for one may be first on average. If
one fails, that is what became of the picture, and nobody waits for the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.checkpoints.catalogue import Checkpoint
from service.domain.ensemble import Ensemble
from service.domain.errors import Failure
from service.domain.placement import Placement, Predicts
from service.domain.prediction import MAX_K, Prediction


class Member(NamedTuple):
    """What one network made of a picture."""

    prediction: Prediction
    total_s: float
    """Until it had, from the moment in which all were asked."""


@dataclass(frozen=True, slots=True)
class Average(Prediction):
    """The most probable classes by the average. Times are those of the member that was last, and ``batch_size`` is the
    smallest that one of them was in."""

    members: tuple[Member, ...] = ()


class Averaging:
    """Serves an ensemble.

    Args:
        predictors: of its members.
    """

    def __init__(self, predictors: Sequence[Predicts]) -> None:
        self._predictors = predictors

    async def predict(self, image: bytes, deadline: float, whole: bool = False) -> Prediction | Failure:
        """As ``Predictor.predict``; a failure is a member's, of several the one with the longest ``Retry-After``."""
        asked = [asyncio.create_task(_member(p, image, deadline)) for p in self._predictors]
        try:
            await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in asked:
                task.cancel()
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
        failures = [outcome.failure for outcome in outcomes if isinstance(outcome, _MemberError)]
        if failures:
            return max(failures, key=lambda failure: float(failure.extras.get("retry_after_ms", 0.0)))
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return average([outcome for outcome in outcomes if isinstance(outcome, Member)])


def predictor(placement: Placement, checkpoint: Checkpoint | Ensemble) -> Predicts:
    """What serves a checkpoint, or an ensemble."""
    if isinstance(checkpoint, Ensemble):
        return Averaging([placement.predictor(member) for member in checkpoint.members])
    return placement.predictor(checkpoint)


def average(members: Sequence[Member]) -> Average:
    """The mean of the members' distributions, in float64; of equals the lower class number comes first."""
    distributions = np.stack([np.frombuffer(m.prediction.distribution or b"", np.float32) for m in members])
    mean: npt.NDArray[np.float64] = distributions.mean(axis=0, dtype=np.float64)
    order = np.argsort(-mean, kind="stable")[:MAX_K]
    last = max(members, key=lambda member: member.total_s).prediction
    return Average(
        tuple(mean[order].tolist()),
        tuple(order.tolist()),
        min(member.prediction.batch_size for member in members),
        last.decode_s,
        last.queue_s,
        last.forward_s,
        members=tuple(members),
    )


class _MemberError(Exception):
    """A member failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.slug)
        self.failure = failure


async def _member(predicts: Predicts, image: bytes, deadline: float) -> Member:
    started = time.monotonic()
    outcome = await predicts.predict(image, deadline, True)
    if isinstance(outcome, Failure):
        raise _MemberError(outcome)
    return Member(outcome, time.monotonic() - started)
