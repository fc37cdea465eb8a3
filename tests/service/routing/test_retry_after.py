"""Those who are refused are told to come back one after the other, and find room."""

from __future__ import annotations

import heapq
import math
from itertools import pairwise

import pytest

from service.routing.retry_after import RetryAfter

#: Of one picture on a device that does a device second a second.
PICTURE_S = 0.02
#: Pictures that may wait: 0.2 s of work.
QUEUE = 10


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_refused_get_a_turn_each() -> None:
    retry_after = RetryAfter(Clock())
    turns_s = [retry_after.book(0.0, PICTURE_S) for _ in range(100)]
    assert all(later - earlier == pytest.approx(PICTURE_S) for earlier, later in pairwise(turns_s))


def test_nobody_is_told_to_come_before_there_is_room_or_sent_away_for_ever() -> None:
    retry_after = RetryAfter(Clock())
    assert retry_after.book(3.0, PICTURE_S) == 3.0
    assert retry_after.book(1e9, PICTURE_S) <= 300
    assert max(retry_after.book(0.0, 10.0) for _ in range(1000)) <= 300


def test_what_arrives_anyway_leaves_less_for_those_who_come_back() -> None:
    clock = Clock()
    retry_after = RetryAfter(clock)
    idle_s = retry_after.book(0.0, 1.0)
    for _ in range(1000):
        clock.now += PICTURE_S
        retry_after.arrived(PICTURE_S / 2)
    assert retry_after.book(0.0, 1.0) == pytest.approx(2 * idle_s, rel=0.1)
    clock.now += 1000
    retry_after.arrived(PICTURE_S)  # the one that is refused, as everywhere
    assert retry_after.book(0.0, 1.0) == pytest.approx(idle_s, rel=0.1)


def refused(retry_after: RetryAfter, times: int) -> list[float]:
    """As everywhere: each arrives, and is sent away."""
    waits_s = []
    for _ in range(times):
        retry_after.arrived(PICTURE_S)
        waits_s.append(retry_after.book(0.0, PICTURE_S))
    return waits_s


def test_those_of_a_wave_that_is_over_are_not_waited_for() -> None:
    clock = Clock()
    retry_after = RetryAfter(clock)
    (first_s,) = refused(retry_after, 1)
    assert refused(retry_after, 1000)[-1] > 100 * first_s
    clock.now += 5.0
    assert refused(retry_after, 1) == pytest.approx([first_s], rel=0.01)


def test_in_a_wave_that_does_not_end_what_there_was_time_for_is_done() -> None:
    clock = Clock()
    retry_after = RetryAfter(clock)
    waits_s = []
    for _ in range(300):
        clock.now += 1.0  # one picture a second leaves time for fifty
        waits_s += refused(retry_after, 1)
    assert max(waits_s) < 2 * PICTURE_S


def test_whoever_would_be_sent_away_for_too_long_comes_back_apart_from_the_others() -> None:
    late_s = [wait for wait in refused(RetryAfter(Clock()), 5000) if wait >= 150]
    assert len({math.ceil(wait) for wait in late_s[-1000:]}) > 100
    assert max(late_s) <= 300


def test_at_least_nine_of_ten_who_come_back_after_a_wave_are_served() -> None:
    """Three times what the device can do for five seconds, then a third of it; who is refused comes back once."""
    clock = Clock()
    retry_after = RetryAfter(clock)
    wave = [i * PICTURE_S / 3 for i in range(round(3 * 5 / PICTURE_S))]
    calm = [5 + i * PICTURE_S / 0.3 for i in range(round(0.3 * 300 / PICTURE_S))]
    arrivals = [(at, False) for at in wave + calm]
    heapq.heapify(arrivals)
    free_at, returned = 0.0, list[bool]()
    refused = 0
    while arrivals:
        clock.now, again = heapq.heappop(arrivals)
        retry_after.arrived(PICTURE_S)
        waiting = max(0.0, free_at - clock.now) / PICTURE_S
        served = waiting < QUEUE
        if served:
            free_at = max(free_at, clock.now) + PICTURE_S
        else:
            retry_s = retry_after.book((waiting + 1 - QUEUE) * PICTURE_S, PICTURE_S)
            if not again:
                refused += 1
                heapq.heappush(arrivals, (clock.now + math.ceil(max(1.0, retry_s)), True))
        if again:
            returned.append(served)
    assert len(returned) == refused > 100
    assert sum(returned) >= 0.9 * len(returned)
