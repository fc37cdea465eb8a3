"""Rates as operators write them."""

from __future__ import annotations

import pytest

from service.config.rate import checked_rate, parse_rates


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("100/second", [(100, 1)]),
        ("10 per 2 minutes", [(10, 120)]),
        ("5/hour", [(5, 3600)]),
        ("20/second;500/minute", [(20, 1), (500, 60)]),
        ("1/day", [(1, 86400)]),
    ],
)
def test_what_limits_understands_is_a_rate(text: str, rates: list[tuple[int, int]]) -> None:
    assert [(item.amount, item.get_expiry()) for item in parse_rates(text)] == rates
    assert checked_rate(text) == text


@pytest.mark.parametrize("text", ["", "x", "100", "0/second", "-1/second", "1.5/second", "5/fortnight"])
def test_everything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="100/second"):
        checked_rate(text)
