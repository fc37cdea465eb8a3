"""Safety: raised by predictions that were missed, calmed by time and quiet."""

from __future__ import annotations

import random
import statistics

import pytest

from service.domain.decision import LEAST_SAFETY
from service.domain.quiet import Quiet
from service.routing.safety import Safety


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_missed_predictions_raise_the_safety_and_time_calms_it() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    quiet.begin()
    safety = Safety(clock, quiet)
    least = safety.factor
    safety.judge(1.0, 1.0)
    assert safety.factor == least >= 1
    for misses in (1, 3, 200):
        before = safety.factor
        for _ in range(misses):
            safety.judge(1.0, 2.0)
        assert safety.factor > before
    highest = safety.factor
    assert highest <= 4
    safety.judge(1.0, highest)  # within what the factor allows for
    assert safety.factor == highest
    clock.now += 90
    assert least < safety.factor < least + 0.4 * (highest - least)
    clock.now += 3600
    assert safety.factor == pytest.approx(least)


@pytest.mark.parametrize("watched", [True, False], ids=["of a checkpoint", "by itself"])
def test_missed_predictions_are_forgotten_once_it_is_quiet(watched: bool) -> None:
    clock = Clock()
    quiet = Quiet(clock)
    safety = Safety(clock, quiet if watched else None)
    least = safety.factor
    for _ in range(200):
        safety.judge(1.0, 9.0)
    highest = safety.factor
    clock.now += 0.5
    assert safety.factor == pytest.approx(highest, rel=0.01)
    clock.now += 4.5
    assert safety.factor == least


def test_trials_that_miss_become_rarer_and_one_that_keeps_its_budget_is_followed_at_once() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    quiet.begin()
    safety = Safety(clock, quiet)
    waits = []
    for _ in range(9):
        assert safety.trial
        safety.judge(1.0, 3.0, 2.0)
        began = clock.now
        while not safety.trial:
            clock.now += 1 / 64
        waits.append(clock.now - began)
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 16, 16, 16]
    before = safety.factor
    safety.judge(1.0, 2.0, 2.0)
    assert safety.trial
    # The prediction was wrong to refuse it, and is believed less.
    assert safety.factor - LEAST_SAFETY == pytest.approx((before - LEAST_SAFETY) / 2)
    safety.judge(1.0, 3.0, 2.0)
    assert not safety.trial
    clock.now += 0.25
    assert safety.trial


def test_what_was_let_in_by_the_predictions_is_no_trial() -> None:
    safety = Safety(Clock())
    safety.judge(1.0, 3.0)
    assert safety.trial


def test_a_trial_that_missed_is_forgotten_once_it_is_quiet() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    safety = Safety(clock, quiet)
    for _ in range(9):
        safety.judge(1.0, 3.0, 2.0)
    assert not safety.trial
    clock.now += 4.5
    assert safety.trial
    safety.judge(1.0, 3.0, 2.0)  # the first of a new series
    clock.now += 0.25
    assert safety.trial


def test_a_greater_miss_raises_the_safety_by_more() -> None:
    factors = []
    for actual_s in (1.3, 2.0, 3.0):
        safety = Safety(Clock())
        safety.judge(1.0, actual_s)
        factors.append(safety.factor)
    assert factors == sorted(set(factors))


def test_the_accuracy_is_of_the_last_predictions() -> None:
    safety = Safety(Clock())
    assert safety.accuracy() == (0, None, None)
    taken = random.Random(2)
    pairs = [(taken.uniform(0.1, 1), taken.uniform(0.1, 1)) for _ in range(300)]
    for predicted_s, actual_s in pairs:
        safety.judge(predicted_s, actual_s)
    last = pairs[-256:]
    assert safety.accuracy() == pytest.approx(
        (256, statistics.median(a / p for p, a in last), statistics.median(abs(p - a) / a for p, a in last))
    )
