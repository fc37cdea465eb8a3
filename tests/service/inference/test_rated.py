"""Pictures are let in at their caller's rate, and charged the device time that they took."""

from __future__ import annotations

from typing import Any, cast

import pytest

from service.access.rates import Rates
from service.domain.classified import Classified, Served
from service.domain.errors import Failure
from service.domain.prediction import Prediction
from service.domain.query import Query
from service.inference.ensemble import Average, Member
from service.inference.rated import Rated, device_s
from tests.clock import Clock


def prediction(forward_s: float, batch_size: int) -> Prediction:
    return Prediction((1.0,), (0,), batch_size, 0.5, 0.25, forward_s)


class Classifies:
    """Answers with one result, and notes what it was asked."""

    def __init__(self, result: Classified | Failure) -> None:
        self.result = result
        self.begun: list[tuple[float, str]] = []
        self.named = "lenet5"
        self.pictures = 0

    def begin(self, query: Query, arrived: float, caller: str = "") -> Any:
        self.begun.append((arrived, caller))
        return self

    async def classify(self, picture: object) -> Classified | Failure:
        self.pictures += 1
        return self.result


def classified(made: Prediction) -> Classified:
    return Classified(made, cast(Served, None), None, 1.0)


async def test_a_picture_over_the_rate_is_not_classified() -> None:
    inner = Classifies(classified(prediction(0.1, 1)))
    asking = Rated(inner, Rates("2/minute", None, clock=Clock())).begin(Query(), 7.0, "a")
    assert asking.named == "lenet5"
    results = [await asking.classify(b"x") for _ in range(3)]
    assert results[:2] == [inner.result] * 2
    assert isinstance(results[2], Failure)
    assert (results[2].slug, results[2].extras["retry_after_ms"]) == ("rate-limited", 60_000)
    assert (inner.pictures, inner.begun) == (2, [(7.0, "a")])


async def test_device_time_is_charged_to_the_caller() -> None:
    rates = Rates(None, 1.0, clock=Clock())
    rated = Rated(Classifies(classified(prediction(3.0, 2))), rates)
    assert isinstance(await rated.begin(Query(), 0.0, "a").classify(b"x"), Classified)
    assert isinstance(await rated.begin(Query(), 0.0, "a").classify(b"x"), Failure)
    assert isinstance(await rated.begin(Query(), 0.0, "b").classify(b"x"), Classified)


async def test_a_failure_costs_no_device_time() -> None:
    failure = Failure("undecodable", "no picture")
    rated = Rated(Classifies(failure), Rates(None, 1e-6, clock=Clock()))
    for _ in range(3):
        assert await rated.begin(Query(), 0.0, "a").classify(b"x") is failure


@pytest.mark.parametrize(
    ("made", "seconds"),
    [
        (prediction(0.8, 4), 0.2),
        (prediction(0.8, 1), 0.8),
        (prediction(0.8, 0), 0.8),
        # Each member's share of its own forward pass, not that of the slowest.
        (
            Average((1.0,), (0,), 1, 0, 0, 9.0, members=(Member(prediction(0.8, 4), 1), Member(prediction(0.3, 3), 1))),
            0.3,
        ),
    ],
)
def test_device_time_is_the_share_of_the_forward_passes(made: Prediction, seconds: float) -> None:
    assert device_s(made) == pytest.approx(seconds)
