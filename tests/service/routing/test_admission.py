"""Admission: admitted pictures are not made late by pictures that arrive after them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from hypothesis import given
from hypothesis import strategies as st

from service.routing.admission import AdmittedPictures


@contextmanager
def admit(admitted: AdmittedPictures, deadline: float, slack_s: float, device_s: float) -> Iterator[None]:
    picture = admitted.add(deadline, slack_s, device_s)
    try:
        yield
    finally:
        admitted.remove(picture)


def test_a_picture_takes_from_the_slack_of_the_pictures_behind_it() -> None:
    admitted = AdmittedPictures()
    with admit(admitted, 10.0, slack_s=3.0, device_s=1.0), admit(admitted, 20.0, slack_s=5.0, device_s=1.0):
        assert admitted.slack_s(5.0) == 3.0
        assert admitted.slack_s(15.0) == 5.0
        assert admitted.slack_s(20.0) == math.inf
        with admit(admitted, 12.0, slack_s=1.0, device_s=2.0):
            assert admitted.slack_s(15.0) == 3.0
            assert admitted.slack_s(11.0) == 1.0
    assert admitted.slack_s(0.0) == math.inf


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 4), st.integers(0, 40)),
        max_size=30,
    )
)
def test_no_admitted_picture_is_late_on_a_device_that_takes_the_predicted_times(
    pictures: list[tuple[int, int, int]],
) -> None:
    """All pictures arrive at once and are admitted or not in turn; then they are computed, earliest deadline first."""
    pictures_admitted, admitted = AdmittedPictures(), list[tuple[int, int, int]]()
    with ExitStack() as kept:
        for number, (_, takes, deadline) in enumerate(pictures):
            before = sum(other for due, _, other in admitted if due <= deadline)
            slack = deadline - before - takes
            if slack >= 0 and takes <= pictures_admitted.slack_s(deadline):
                kept.enter_context(admit(pictures_admitted, deadline, slack, takes))
                admitted.append((deadline, number, takes))
    clock = 0
    for deadline, _, takes in sorted(admitted):
        clock += takes
        assert clock <= deadline


def test_pictures_with_the_same_deadline_are_kept_apart() -> None:
    admitted = AdmittedPictures()
    first = admitted.add(10.0, 3.0, 1.0)
    admitted.add(10.0, 2.0, 1.0)
    # Neither is behind the other.
    assert (admitted.slack_s(9.0), admitted.slack_s(10.0)) == (2.0, math.inf)
    admitted.remove(first)
    assert admitted.slack_s(9.0) == 2.0


def test_what_a_caller_has_beyond_a_few_may_be_made_late_by_others_and_not_by_itself() -> None:
    admitted = AdmittedPictures()
    bulk = [admitted.add(100.0, float(slack), 0.0, "bulk") for slack in range(10, 0, -1)]
    # The slack of the first four counts.
    assert admitted.slack_s(50.0, "polite") == 7.0
    assert admitted.slack_s(50.0, "bulk") == 1.0
    for picture in bulk:
        admitted.remove(picture)
    assert admitted.slack_s(50.0, "polite") == math.inf
    # Nothing is remembered of a caller who has gone.
    admitted.add(100.0, 3.0, 0.0, "bulk")
    assert admitted.slack_s(50.0, "polite") == 3.0
    assert len(admitted._callers) == 1
