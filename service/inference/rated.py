"""Classification at a caller's rate: each picture counts, and is charged the device time that it took.

It stands before the classifier, in the process that decides. So several fronts need not divide a caller's rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.classified import Asking, Classified, Classifies
from service.domain.errors import Failure, RateLimitedError, failure_of
from service.domain.picture import Picture
from service.domain.prediction import Prediction
from service.domain.query import Query
from service.inference.ensemble import Average

if TYPE_CHECKING:
    from service.access.rates import Rates


class Rated:
    """A ``domain.classified.Classifies`` that refuses pictures of callers who have used up their rates.

    Args:
        classifies: classifies the others.
        rates: of the callers.
    """

    def __init__(self, classifies: Classifies, rates: Rates) -> None:
        self._classifies = classifies
        self._rates = rates

    def begin(self, query: Query, arrived: float, caller: str = "") -> Asking:
        return RatedAsking(self._classifies.begin(query, arrived, caller), self._rates, caller)


class RatedAsking:
    """One request: a ``domain.classified.Asking``."""

    __slots__ = ("_asking", "_caller", "_rates")

    def __init__(self, asking: Asking, rates: Rates, caller: str) -> None:
        self._asking = asking
        self._rates = rates
        self._caller = caller

    @property
    def named(self) -> str | None:
        return self._asking.named

    async def check(self) -> None:
        await self._asking.check()

    async def classify(self, picture: bytes | Picture) -> Classified | Failure:
        try:
            self._rates.admit(self._caller)
        except RateLimitedError as error:
            # A value: the other pictures of the request may have been let in.
            return failure_of(error)
        result = await self._asking.classify(picture)
        if isinstance(result, Classified):
            self._rates.used(self._caller, device_s(result.prediction))
        return result


def device_s(prediction: Prediction) -> float:
    """The device time of one picture, in seconds: its share of each forward pass that it was in."""
    if isinstance(prediction, Average):
        return sum(device_s(member) for member, _ in prediction.members)
    return prediction.forward_s / max(1, prediction.batch_size)
