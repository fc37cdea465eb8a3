"""Safety factors: missed predictions raise them, time and quiet calm them, and trials test them."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from service.domain.decision import LEAST_SAFETY
from service.domain.quiet import Quiet
from service.routing.safety import Safety
from tests.clock import Clock


def test_missed_predictions_raise_the_factor_and_time_calms_it() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    quiet.begin()
    safety = Safety(clock, quiet)
    least = safety.factor
    safety.learn(1.0, 1.0)
    assert safety.factor == least >= 1
    for misses in (1, 3, 200):
        before = safety.factor
        for _ in range(misses):
            safety.learn(1.0, 2.0)
        assert safety.factor > before
    highest = safety.factor
    assert highest <= 4
    safety.learn(1.0, highest)  # within the factor
    assert safety.factor == highest
    clock.now += 90
    assert least < safety.factor < least + 0.4 * (highest - least)
    clock.now += 3600
    assert safety.factor == pytest.approx(least)


@pytest.mark.parametrize("watched", [True, False], ids=["of a checkpoint", "by itself"])
def test_missed_predictions_are_forgotten_in_four_quiet_seconds(watched: bool) -> None:
    clock = Clock()
    quiet = Quiet(clock)
    safety = Safety(clock, quiet if watched else None)
    least = safety.factor
    for _ in range(200):
        safety.learn(1.0, 9.0)
    highest = safety.factor
    clock.now += 0.5
    assert safety.factor == pytest.approx(highest, rel=0.01)
    clock.now += 4.5
    assert safety.factor == least


def test_trials_that_miss_become_rarer_until_one_keeps_its_budget() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    quiet.begin()
    safety = Safety(clock, quiet)
    waits = []
    for _ in range(9):
        assert safety.trial
        safety.learn(1.0, 3.0, 2.0)
        began = clock.now
        while not safety.trial:
            clock.now += 1 / 64
        waits.append(clock.now - began)
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 16, 16, 16]
    before = safety.factor
    safety.learn(1.0, 2.0, 2.0)
    assert safety.trial
    # The prediction was wrong to refuse it: half of what was learned is taken back.
    assert safety.factor - LEAST_SAFETY == pytest.approx((before - LEAST_SAFETY) / 2)
    safety.learn(1.0, 3.0, 2.0)
    assert not safety.trial
    clock.now += 0.25
    assert safety.trial


def test_only_a_trial_delays_the_next_trial() -> None:
    safety = Safety(Clock())
    safety.learn(1.0, 3.0)
    assert safety.trial


def test_a_trial_that_missed_is_forgotten_in_four_quiet_seconds() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    safety = Safety(clock, quiet)
    for _ in range(9):
        safety.learn(1.0, 3.0, 2.0)
    assert not safety.trial
    clock.now += 4.5
    assert safety.trial
    safety.learn(1.0, 3.0, 2.0)  # the first of a new series
    clock.now += 0.25
    assert safety.trial


def test_a_greater_miss_raises_the_factor_by_more() -> None:
    factors = []
    for actual_s in (1.3, 2.0, 3.0):
        safety = Safety(Clock())
        safety.learn(1.0, actual_s)
        factors.append(safety.factor)
    assert factors == sorted(set(factors))


def test_errors_are_those_of_the_last_predictions() -> None:
    safety = Safety(Clock())
    assert safety.errors() == (0, None, None)
    taken = random.Random(2)
    pairs = [(taken.uniform(0.1, 1), taken.uniform(0.1, 1)) for _ in range(300)]
    for predicted_s, actual_s in pairs:
        safety.learn(predicted_s, actual_s)
    last = pairs[-256:]
    assert safety.errors() == pytest.approx(
        (256, statistics.median(a / p for p, a in last), statistics.median(abs(p - a) / a for p, a in last))
    )


def test_a_miss_raises_the_factor_by_half_of_it_and_two_thirds_are_gone_in_ninety_seconds_of_use() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    quiet.begin()
    safety = Safety(clock, quiet)
    safety.learn(2.0, 4.2)  # 2.1 times the prediction: 1 more than the factor allows
    assert safety.factor == pytest.approx(1.6)
    clock.now += 90
    assert safety.factor == pytest.approx(1.1 + 0.5 / math.e)
    # What is left of it counts with the next miss.
    safety.learn(1.0, 2.1)
    left = 1.1 + 0.5 / math.e
    assert safety.factor == pytest.approx(left + (2.1 - left) / 2)


def test_a_prediction_within_the_factor_keeps_it() -> None:
    safety = Safety(Clock())
    safety.learn(1.0, 1.1)
    assert safety.factor == 1.1
    safety.learn(1.0, 1.12)
    assert safety.factor == pytest.approx(1.11)


def test_the_factor_is_at_most_four() -> None:
    safety = Safety(Clock())
    safety.learn(1.0, 100.0)
    assert safety.factor == 4.0


def test_a_trial_that_is_answered_exactly_in_time_kept_its_budget() -> None:
    for actual_s, kept in ((2.0, True), (2.0001, False)):
        safety = Safety(Clock())
        safety.learn(1.0, actual_s, 2.0)
        assert safety.trial is kept
        # One that kept its budget does not raise the factor, however far it was from the profile's prediction.
        assert (safety.factor == 1.1) is kept


def test_a_trial_may_follow_at_the_end_of_the_wait_and_not_before() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    quiet.begin()
    safety = Safety(clock, quiet)
    safety.learn(1.0, 3.0, 2.0)
    clock.now += 0.2499
    assert not safety.trial
    clock.now += 0.0001
    assert safety.trial
