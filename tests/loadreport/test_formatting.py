"""Figures have three significant digits below a thousand."""

from __future__ import annotations

import pytest

from loadreport.formatting import number, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0.00"),
        (9.994, "9.99"),
        (9.995, "10.0"),
        (-9.99, "-9.99"),
        (99.94, "99.9"),
        (99.95, "100"),
        (-99.96, "-100"),
        (1234.5, "1,234"),
        (1_000_000.0, "1,000,000"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_percentages() -> None:
    assert percent(0.5) == "50 %"
    assert percent(0.12345, 2) == "12.35 %"
    assert percent(-0.05, 1) == "-5.0 %"
