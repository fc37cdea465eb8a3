"""Budgets, what an answer says about rejected checkpoints, and times as text."""

from __future__ import annotations

import pytest

from service.domain.decision import LEAST_SAFETY, Budget, Considered, milliseconds


def test_the_whole_time_is_the_stated_one() -> None:
    assert (Budget(0.25).whole_s, Budget(0.25).gone_s) == (0.25, 0.0)
    late = Budget(0.25, stated_s=0.75)
    assert (late.whole_s, late.gone_s, str(late)) == (0.75, 0.5, "750 ms")


def test_the_least_safety_factor_adds_ten_percent() -> None:
    assert LEAST_SAFETY == 1.1


def test_unknown_fields_of_a_considered_checkpoint_are_left_out() -> None:
    assert Considered(model="vgg16", rejected="weights missing").model_dump() == {
        "model": "vgg16",
        "rejected": "weights missing",
    }
    entry = Considered(model="vgg16", rejected="latency", predicted_ms=0.0, footprint_mb=780.0)
    assert entry.model_dump()["predicted_ms"] == 0.0
    assert entry.model_dump_json() == ('{"model":"vgg16","rejected":"latency","predicted_ms":0.0,"footprint_mb":780.0}')


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0001234, "0.123 ms"),
        (0.00999, "9.99 ms"),
        (0.01, "10 ms"),
        (0.0126, "13 ms"),
        (12.5, "12500 ms"),
    ],
)
def test_milliseconds_have_three_digits_below_ten(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text
