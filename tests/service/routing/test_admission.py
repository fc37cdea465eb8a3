"""Promises: those who were let in are not made late by those who come after them."""

from __future__ import annotations

import math
from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from service.routing.admission import Promises


def test_whoever_goes_before_takes_from_the_slack_of_those_after_him() -> None:
    promises = Promises()
    with promises.made(10.0, slack_s=3.0, device_s=1.0), promises.made(20.0, slack_s=5.0, device_s=1.0):
        assert promises.slack_s(5.0) == 3.0
        assert promises.slack_s(15.0) == 5.0
        assert promises.slack_s(20.0) == math.inf
        with promises.made(12.0, slack_s=1.0, device_s=2.0):
            assert promises.slack_s(15.0) == 3.0
            assert promises.slack_s(11.0) == 1.0
    assert promises.slack_s(0.0) == math.inf


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 4), st.integers(0, 40)),
        max_size=30,
    )
)
def test_on_a_device_that_keeps_to_its_times_every_promise_is_kept(pictures: list[tuple[int, int, int]]) -> None:
    """All arrive at once, are let in or not one after the other, and are then computed, earliest deadline first."""
    promises, let_in = Promises(), list[tuple[int, int, int]]()
    with ExitStack() as kept:
        for number, (_, takes, deadline) in enumerate(pictures):
            before = sum(other for due, _, other in let_in if due <= deadline)
            slack = deadline - before - takes
            if slack >= 0 and takes <= promises.slack_s(deadline):
                kept.enter_context(promises.made(deadline, slack, takes))
                let_in.append((deadline, number, takes))
    clock = 0
    for deadline, _, takes in sorted(let_in):
        clock += takes
        assert clock <= deadline
