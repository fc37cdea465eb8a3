"""Admission: pictures that were let in are not made late by those that come after them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from hypothesis import given
from hypothesis import strategies as st

from service.routing.admission import Admission


@contextmanager
def let_in(admission: Admission, deadline: float, slack_s: float, device_s: float) -> Iterator[None]:
    picture = admission.add(deadline, slack_s, device_s)
    try:
        yield
    finally:
        admission.remove(picture)


def test_a_picture_takes_from_the_slack_of_the_pictures_behind_it() -> None:
    admission = Admission()
    with let_in(admission, 10.0, slack_s=3.0, device_s=1.0), let_in(admission, 20.0, slack_s=5.0, device_s=1.0):
        assert admission.slack_s(5.0) == 3.0
        assert admission.slack_s(15.0) == 5.0
        assert admission.slack_s(20.0) == math.inf
        with let_in(admission, 12.0, slack_s=1.0, device_s=2.0):
            assert admission.slack_s(15.0) == 3.0
            assert admission.slack_s(11.0) == 1.0
    assert admission.slack_s(0.0) == math.inf


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 4), st.integers(0, 40)),
        max_size=30,
    )
)
def test_on_a_device_that_keeps_to_its_times_no_admitted_picture_is_late(pictures: list[tuple[int, int, int]]) -> None:
    """All arrive at once, each is let in or not in turn, and then they are computed, earliest deadline first."""
    admission, admitted = Admission(), list[tuple[int, int, int]]()
    with ExitStack() as kept:
        for number, (_, takes, deadline) in enumerate(pictures):
            before = sum(other for due, _, other in admitted if due <= deadline)
            slack = deadline - before - takes
            if slack >= 0 and takes <= admission.slack_s(deadline):
                kept.enter_context(let_in(admission, deadline, slack, takes))
                admitted.append((deadline, number, takes))
    clock = 0
    for deadline, _, takes in sorted(admitted):
        clock += takes
        assert clock <= deadline
