"""The search for the knee, on services that hold up to a threshold, or by chance."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadreport.knee import ambiguity, find_knee

#: The report says: "looks go up and down until the gap is 10 %".
GAP = 1.1


@dataclass(frozen=True)
class Look:
    held: bool
    confirmation: int = 0


@given(threshold=st.floats(0.1, 5000), off=st.floats(0.1, 10))
def test_a_threshold_is_found_within_ten_percent_wherever_the_search_begins(threshold: float, off: float) -> None:
    found = find_knee(lambda rate, confirmation: Look(rate <= threshold, confirmation), threshold * off)
    assert found.rate is not None
    assert threshold / GAP * (1 - 1e-9) <= found.rate <= threshold
    assert found.step == Look(True, 1)
    assert ambiguity(found.tried, found.rate) <= GAP - 1 + 1e-9


@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_the_search_ends_after_twenty_steps_at_most(seed: int, share: float) -> None:
    chance = random.Random(seed)
    found = find_knee(lambda rate, confirmation: Look(chance.random() < share, confirmation), 10.0)
    assert len(found.tried) <= 20
    assert (found.rate is None) == (found.step is None)
    if found.step is not None:
        assert found.step.held
        assert found.step.confirmation > 0


@given(seed=st.integers(0, 10_000), threshold=st.floats(1, 100))
def test_noise_around_a_threshold_moves_the_knee_little(seed: int, threshold: float) -> None:
    """A step within 10 % of the threshold holds or fails by chance; the confirmed rate is near the threshold still."""
    chance = random.Random(seed)
    found = find_knee(lambda rate, _: Look(rate <= threshold * chance.uniform(0.9, 1.1)), 0.75 * threshold)
    assert found.rate is not None
    assert 0.6 * threshold <= found.rate <= 1.1 * threshold


def test_the_result_is_a_confirmation_and_not_a_lucky_look() -> None:
    """Looks hold up to 12, confirmations, which last longer, up to 10."""
    found = find_knee(lambda rate, confirmation: Look(rate <= (10 if confirmation else 12), confirmation), 8.0)
    assert found.rate is not None
    assert 9 <= found.rate <= 10
    failed = [rate for rate, held, confirmation in found.tried if confirmation and not held]
    assert failed
    # The rate is known up to the confirmation that failed, not only up to the looks.
    assert ambiguity(found.tried, found.rate) == pytest.approx(max(12 / GAP, *failed) / found.rate - 1, abs=0.1)


def test_looks_that_were_far_off_give_a_rough_figure() -> None:
    found = find_knee(lambda rate, confirmation: Look(rate <= (10 if confirmation else 24), confirmation), 20.0)
    assert found.rate is not None
    assert 5 <= found.rate <= 10
    assert ambiguity(found.tried, found.rate) >= 24 / GAP / found.rate - 1


def test_without_a_rate_that_holds_there_is_no_knee() -> None:
    found = find_knee(lambda rate, confirmation: Look(False), 10.0)
    assert (found.rate, found.step) == (None, None)
    assert not any(confirmation for _, _, confirmation in found.tried)


def test_without_a_confirmation_there_is_no_knee() -> None:
    found = find_knee(lambda rate, confirmation: Look(not confirmation and rate < 12), 10.0)
    assert found.rate is None


def test_ambiguity_reaches_up_to_steps_that_contradict_each_other() -> None:
    tried = [(8.0, True, False), (10.0, False, False), (11.0, True, False), (14.0, False, False), (8.0, True, True)]
    assert ambiguity(tried, 8.0) == pytest.approx(11 / 8 - 1)
    assert ambiguity([(8.0, True, True)], 8.0) == 0


def test_a_look_that_failed_at_the_confirmed_rate_does_not_bound_it() -> None:
    """The confirmation lasted longer and held: what bounds the knee is the next failure above."""
    assert ambiguity([(8.0, False, False), (10.0, False, False), (8.0, True, True)], 8.0) == pytest.approx(0.25)


def test_ambiguity_counts_the_lowest_failure_above_and_none_below() -> None:
    tried = [(12.0, False, False), (6.0, False, False), (9.0, False, False), (8.0, True, True)]
    assert ambiguity(tried, 8.0) == pytest.approx(9 / 8 - 1)


def test_confirmations_retreat_slowly_and_then_in_large_steps() -> None:
    found = find_knee(lambda rate, confirmation: Look(not confirmation and rate < 12, confirmation), 10.0)
    rates = [rate for rate, _, confirmation in found.tried if confirmation]
    assert [later / earlier for earlier, later in pairwise(rates)] == pytest.approx([0.93, 0.93, 0.93, 0.8, 0.6])


def test_confirmations_are_numbered_from_one() -> None:
    numbers: list[int] = []

    def measure(rate: float, confirmation: int) -> Look:
        numbers.append(confirmation)
        return Look(rate < 12 and confirmation in (0, 3))

    found = find_knee(measure, 10.0)
    assert [number for number in numbers if number] == [1, 2, 3]
    assert found.tried[-1][1:] == (True, True)


def test_the_search_halves_the_gap_on_a_logarithmic_scale() -> None:
    found = find_knee(lambda rate, confirmation: Look(rate <= 10.5, confirmation), 10.0)
    looks = [rate for rate, _, confirmation in found.tried if not confirmation]
    # First up by 35 %, then the geometric mean of the rates on both sides.
    assert looks[:3] == pytest.approx([10.0, 13.5, (10.0 * 13.5) ** 0.5])


def test_the_search_goes_down_by_the_same_stride() -> None:
    found = find_knee(lambda rate, confirmation: Look(rate <= 5.6, confirmation), 10.0)
    looks = [rate for rate, _, confirmation in found.tried if not confirmation]
    assert looks[:3] == pytest.approx([10.0, 10 / 1.35, 10 / 1.35**2])


def test_without_a_rate_that_holds_twelve_are_tried() -> None:
    found = find_knee(lambda rate, confirmation: Look(False), 10.0)
    assert [rate for rate, _, _ in found.tried] == pytest.approx([10 / 1.35**n for n in range(12)])


def test_a_service_without_a_limit_gets_the_last_rate_confirmed() -> None:
    found = find_knee(lambda rate, confirmation: Look(True, confirmation), 10.0)
    assert found.rate == pytest.approx(10 * 1.35**11)
