"""Prediction with an ensemble: all members are asked at the same time, and their probabilities are averaged.

Each member has its own predictor, with its own decoding (crops differ), queue and batches, which it shares with
requests for that checkpoint alone. Members return whole distributions: a class that is tenth for one may be first on
average. If one member fails, so does the ensemble, without waiting for the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.checkpoints.catalogue import Checkpoint
from service.domain.ensemble import Ensemble
from service.domain.errors import Failure
from service.domain.picture import Picture
from service.domain.placement import Placement, Predicts
from service.domain.prediction import MAX_K, Prediction


class Member(NamedTuple):
    """The prediction of one member."""

    prediction: Prediction
    total_s: float
    """From the moment in which all members were asked."""


@dataclass(frozen=True, slots=True)
class Average(Prediction):
    """The average of the members' predictions. The times are those of the slowest member, and ``batch_size`` is the
    smallest of the members'."""

    members: tuple[Member, ...] = ()


class Averaging:
    """Predicts with an ensemble.

    Args:
        predictors: one for each member.
        clock: seconds, monotonic.
    """

    def __init__(self, predictors: Sequence[Predicts], clock: Callable[[], float] = time.monotonic) -> None:
        self._predictors = predictors
        self._clock = clock

    async def predict(
        self, image: bytes | Picture, deadline: float, whole: bool = False, caller: str = ""
    ) -> Prediction | Failure:
        """Classifies one picture, as ``Predicts`` says. If members fail, returns the failure with the longest
        Retry-After: several can fail before this task resumes."""
        asked = [asyncio.create_task(self._ask(p, image, deadline, caller)) for p in self._predictors]
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

    async def _ask(self, predictor: Predicts, image: bytes | Picture, deadline: float, caller: str) -> Member:
        started = self._clock()
        outcome = await predictor.predict(image, deadline, True, caller)
        if isinstance(outcome, Failure):
            raise _MemberError(outcome)
        return Member(outcome, self._clock() - started)


def predictor(
    placement: Placement, checkpoint: Checkpoint | Ensemble, clock: Callable[[], float] = time.monotonic
) -> Predicts:
    """The predictor that serves a checkpoint or an ensemble."""
    if isinstance(checkpoint, Ensemble):
        return Averaging([placement.predictor(member) for member in checkpoint.members], clock)
    return placement.predictor(checkpoint)


def average(members: Sequence[Member]) -> Average:
    """The mean of the members' distributions, in float64. Ties: the lower class number first."""
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
    """A member returned a failure. The exception ends the wait for the other members."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.slug)
        self.failure = failure
