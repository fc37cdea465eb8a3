"""Times have the mean and the 95th percentile of their profile."""

from __future__ import annotations

import math
import random
from statistics import fmean

import numpy as np
import pytest

from service.profiling.profiles import Latency
from service.twin.durations import Durations, sigma


def measured(mean_ms: float, p95_ms: float) -> Latency:
    return Latency(mean_ms=mean_ms, p50_ms=mean_ms, p95_ms=p95_ms, p99_ms=2 * p95_ms, runs=9)


@pytest.mark.parametrize("spread", [1.05, 1.2, 1.5, 2.5])
def test_draws_have_the_mean_and_the_percentile(spread: float) -> None:
    durations = Durations([(1, measured(10, 10 * spread))], 1, random.Random(1))
    drawn = sorted(durations.draw(1) for _ in range(40_000))
    assert fmean(drawn) == pytest.approx(0.01, rel=0.02)
    assert drawn[38_000] == pytest.approx(0.01 * spread, rel=0.03)


def test_the_fit_is_that_of_a_lognormal_distribution() -> None:
    """Numpy's own, with the deviation that the formula gives."""
    for spread in (1.1, 2.0, 3.0):
        deviation = sigma(spread)
        values = np.random.default_rng(2).lognormal(-deviation * deviation / 2, deviation, 400_000)
        assert np.quantile(values, 0.95) / values.mean() == pytest.approx(spread, rel=0.02)


def test_a_tail_that_no_such_distribution_has_is_the_longest_that_one_has() -> None:
    assert sigma(50.0) == pytest.approx(1.6449, abs=1e-3)
    assert math.exp(1.6449**2 / 2) < 50


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_without_a_tail_every_time_is_the_mean(spread: float) -> None:
    durations = Durations([(1, measured(10, 10 * spread))], 2, random.Random(1))
    assert [durations.draw(1), durations.draw(2)] == pytest.approx([0.01, 0.02])


def test_chance_can_be_left_out() -> None:
    durations = Durations([(1, measured(10, 30))], 1, random.Random(1), spread=False)
    assert {durations.draw(1) for _ in range(9)} == {0.01}


def test_means_are_on_straight_lines_between_sizes_and_go_on_beyond() -> None:
    points = [(2, measured(10, 10)), (4, measured(30, 30)), (8, measured(50, 50))]
    durations = Durations(points, 16, random.Random(1))
    assert [durations.mean_s(size) for size in (1, 2, 3, 4, 6, 8, 16)] == pytest.approx(
        [0.01, 0.01, 0.02, 0.03, 0.04, 0.05, 0.09]
    )


def test_a_larger_batch_never_takes_less() -> None:
    durations = Durations([(1, measured(10, 10)), (2, measured(8, 8)), (4, measured(12, 12))], 4, random.Random(1))
    assert [durations.mean_s(size) for size in (1, 2, 3, 4)] == pytest.approx([0.01, 0.01, 0.01, 0.012])


def test_the_spread_is_that_of_the_size() -> None:
    """Beyond the sizes that were measured it stays."""
    points = [(1, measured(10, 10)), (2, measured(10, 20))]
    durations = Durations(points, 8, random.Random(3))
    assert {durations.draw(1) for _ in range(9)} == {0.01}
    drawn = sorted(durations.draw(8) / durations.mean_s(8) for _ in range(20_000))
    assert drawn[19_000] == pytest.approx(2.0, rel=0.05)
