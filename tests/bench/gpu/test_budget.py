"""The budget: what fits begins, what does not is named."""

from __future__ import annotations

from bench.gpu.budget import Budget
from tests.clock import Clock


def test_a_step_begins_if_the_rest_suffices_for_it_and_what_is_reserved() -> None:
    clock = Clock()
    budget = Budget(100, clock)
    assert budget.allows("all of it", 100)
    assert not budget.allows("engines", 60, reserve_s=41)
    clock.now += 70
    assert (budget.left_s, budget.took_s) == (30, 70)
    assert budget.allows("decoding", 30)
    assert not budget.allows("served", 31)
    assert budget.left_out == ["engines (needs 60 s, 59 s were left)", "served (needs 31 s, 30 s were left)"]


def test_beyond_the_end_nothing_is_left() -> None:
    clock = Clock()
    budget = Budget(10, clock)
    clock.now += 11
    assert budget.left_s == 0
    assert not budget.allows("a step", 0.1)


def test_a_step_that_was_cut_off_is_named() -> None:
    budget = Budget(10)
    budget.cut("engines", "cut off")
    assert budget.left_out == ["engines (cut off)"]
