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


def late(safety: Safety, times: int = 1) -> None:
    for _ in range(times):
        safety.learn(1.0, 3.0, late=True)


def test_late_answers_raise_the_factor_and_time_calms_it() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    quiet.begin()
    safety = Safety(clock, quiet)
    least = safety.factor
    safety.learn(1.0, 1.0)
    assert safety.factor == least >= 1
    for times in (1, 3, 200):
        before = safety.factor
        late(safety, times)
        assert safety.factor > before
    highest = safety.factor
    assert highest == 4
    clock.now += 90
    assert least < safety.factor < least + 0.4 * (highest - least)
    clock.now += 3600
    assert safety.factor == pytest.approx(least)


def test_answers_that_took_longer_than_predicted_do_not_raise_it_unless_they_are_late() -> None:
    safety = Safety(Clock())
    safety.learn(1.0, 5.0)
    assert safety.factor == LEAST_SAFETY


def test_one_late_answer_in_two_hundred_keeps_the_factor_where_it_is() -> None:
    for in_time, moves in ((199, 0), (400, -1), (50, 1)):
        safety = Safety(Clock())
        late(safety, 10)
        before = safety.factor
        for _ in range(5):
            late(safety)
            for _ in range(in_time):
                safety.learn(1.0, 1.0)
        moved = safety.factor - before
        assert abs(moved) < 0.01 if not moves else moved * moves > 0.1


@pytest.mark.parametrize("watched", [True, False], ids=["of a checkpoint", "by itself"])
def test_late_answers_are_forgotten_in_four_quiet_seconds(watched: bool) -> None:
    clock = Clock()
    quiet = Quiet(clock)
    safety = Safety(clock, quiet if watched else None)
    least = safety.factor
    late(safety, 200)
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
        safety.learn(1.0, 3.0, late=True, trial=True)
        began = clock.now
        while not safety.trial:
            clock.now += 1 / 64
        waits.append(clock.now - began)
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 16, 16, 16]
    before = safety.factor
    safety.learn(1.0, 2.0, trial=True)
    assert safety.trial
    # The prediction was wrong to refuse it: half of what was learned is taken back.
    assert safety.factor - LEAST_SAFETY == pytest.approx((before - LEAST_SAFETY) / 2)
    safety.learn(1.0, 3.0, late=True, trial=True)
    assert not safety.trial
    clock.now += 0.25
    assert safety.trial


def test_only_a_trial_delays_the_next_trial() -> None:
    safety = Safety(Clock())
    late(safety)
    assert safety.trial


def test_a_trial_that_missed_is_forgotten_in_four_quiet_seconds() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    safety = Safety(clock, quiet)
    for _ in range(9):
        safety.learn(1.0, 3.0, late=True, trial=True)
    assert not safety.trial
    clock.now += 4.5
    assert safety.trial
    safety.learn(1.0, 3.0, late=True, trial=True)  # the first of a new series
    clock.now += 0.25
    assert safety.trial


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


def test_two_thirds_of_it_are_gone_in_ninety_seconds_of_use() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    quiet.begin()
    safety = Safety(clock, quiet)
    late(safety, 5)
    assert safety.factor == pytest.approx(1.6)
    clock.now += 90
    left = 1.1 + 0.5 / math.e
    assert safety.factor == pytest.approx(left)
    # What is left of it counts with the next one.
    late(safety)
    assert safety.factor == pytest.approx(left + 0.1)


def test_a_trial_that_kept_its_budget_does_not_raise_the_factor() -> None:
    for late in (False, True):
        safety = Safety(Clock())
        safety.learn(1.0, 2.0, late=late, trial=True)
        assert safety.trial is not late
        assert (safety.factor > LEAST_SAFETY) is late


def test_a_trial_may_follow_at_the_end_of_the_wait_and_not_before() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    quiet.begin()
    safety = Safety(clock, quiet)
    safety.learn(1.0, 3.0, late=True, trial=True)
    clock.now += 0.2499
    assert not safety.trial
    clock.now += 0.0001
    assert safety.trial
