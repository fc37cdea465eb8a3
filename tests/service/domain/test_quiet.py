"""Quiet time, and how much of what was learned still counts after it."""

from __future__ import annotations

import pytest

from service.domain.quiet import Quiet
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_quiet_time_does_not_grow_while_pictures_are_in_flight_or_in_short_pauses(clock: Clock) -> None:
    quiet = Quiet(clock)
    quiet.begin()
    quiet.begin()
    assert quiet.in_use
    clock.now += 50
    quiet.end()
    clock.now += 50
    assert quiet.in_use
    assert quiet.seconds == 0
    quiet.end()
    assert not quiet.in_use
    clock.now += 1
    assert quiet.seconds == 0
    clock.now += 1
    assert quiet.seconds == 1


def test_quiet_times_add_up_without_the_first_second_of_each(clock: Clock) -> None:
    quiet = Quiet(clock)
    for pause_s, seconds in ((0.75, 0), (1.5, 0.5), (3, 2.5), (1, 2.5)):
        clock.now += pause_s
        quiet.touch()
        assert quiet.seconds == seconds


def test_what_was_learned_fades_to_nothing_in_three_seconds(clock: Clock) -> None:
    quiet = Quiet(clock)
    learned = quiet.seconds
    left = []
    for _ in range(40):
        left.append(quiet.kept(learned))
        clock.now += 0.125
    assert left[:9] == [1.0] * 9
    assert left == sorted(left, reverse=True)
    assert 0.4 < left[20] < 0.6  # after 2.5 seconds
    assert left[31] > 0 == left[32]  # before and after four
    # It fades in few steps, because each costs a new forecast.
    assert len(set(left)) <= 17


def test_what_is_learned_later_counts_in_full(clock: Clock) -> None:
    quiet = Quiet(clock)
    before = quiet.seconds
    clock.now += 10
    quiet.touch()
    assert (quiet.kept(before), quiet.kept(quiet.seconds)) == (0, 1)
