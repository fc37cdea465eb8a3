"""The search for the highest rate that holds, against services that are only a threshold, or only chance."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadreport.knee import TOLERANCE, ambiguity, find_knee


@dataclass(frozen=True)
class Look:
    held: bool
    confirmation: int = 0


@given(threshold=st.floats(0.1, 5000), off=st.floats(0.1, 10))
def test_it_finds_any_threshold_within_its_tolerance(threshold: float, off: float) -> None:
    """Whatever the guess that it begins at was worth."""
    found = find_knee(lambda rate, confirmation: Look(rate <= threshold, confirmation), threshold * off)
    assert found.rate is not None
    assert threshold / TOLERANCE * (1 - 1e-9) <= found.rate <= threshold
    assert found.step == Look(True, 1)
    assert ambiguity(found.tried, found.rate) <= TOLERANCE - 1 + 1e-9


@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_it_ends_whatever_is_measured(seed: int, share: float) -> None:
    chance = random.Random(seed)
    found = find_knee(lambda rate, confirmation: Look(chance.random() < share, confirmation), 10.0)
    assert len(found.tried) <= 20
    assert (found.rate is None) == (found.step is None)
    if found.step is not None:
        assert found.step.held
        assert found.step.confirmation > 0


@given(seed=st.integers(0, 10_000), threshold=st.floats(1, 100))
def test_noise_around_a_threshold_costs_little(seed: int, threshold: float) -> None:
    """A step holds or fails by chance within 10 % of the threshold: what is confirmed is near it all the same."""
    chance = random.Random(seed)
    found = find_knee(lambda rate, _: Look(rate <= threshold * chance.uniform(0.9, 1.1)), 0.75 * threshold)
    assert found.rate is not None
    assert 0.6 * threshold <= found.rate <= 1.1 * threshold


def test_a_lucky_look_is_not_the_figure() -> None:
    """Looks hold up to 12, confirmations, which last longer, up to 10."""
    found = find_knee(lambda rate, confirmation: Look(rate <= (10 if confirmation else 12), confirmation), 8.0)
    assert found.rate is not None
    assert 9 <= found.rate <= 10
    failed = [rate for rate, held, confirmation in found.tried if confirmation and not held]
    assert failed
    # The rate is known up to the confirmation that failed, not only up to the looks.
    assert ambiguity(found.tried, found.rate) == pytest.approx(max(12 / TOLERANCE, *failed) / found.rate - 1, abs=0.1)


def test_looks_that_were_far_off_cost_the_figure_its_sharpness_and_not_the_figure() -> None:
    found = find_knee(lambda rate, confirmation: Look(rate <= (10 if confirmation else 24), confirmation), 20.0)
    assert found.rate is not None
    assert 5 <= found.rate <= 10
    assert ambiguity(found.tried, found.rate) >= 24 / TOLERANCE / found.rate - 1


def test_what_never_holds_has_no_knee() -> None:
    found = find_knee(lambda rate, confirmation: Look(False), 10.0)
    assert (found.rate, found.step) == (None, None)
    assert not any(confirmation for _, _, confirmation in found.tried)


def test_rates_that_are_never_confirmed_are_no_figure() -> None:
    found = find_knee(lambda rate, confirmation: Look(not confirmation and rate < 12), 10.0)
    assert found.rate is None


def test_ambiguity_spans_what_contradicts_itself() -> None:
    tried = [(8.0, True, False), (10.0, False, False), (11.0, True, False), (14.0, False, False), (8.0, True, True)]
    assert ambiguity(tried, 8.0) == pytest.approx(11 / 8 - 1)
    assert ambiguity([(8.0, True, True)], 8.0) == 0
