"""Refused callers are told to come back one after the other, and find room when they do."""

from __future__ import annotations

import heapq
import math
from itertools import pairwise

import pytest

from service.routing.retry_after import RetryQueue
from tests.clock import Clock

#: The device time of one picture.
PICTURE_S = 0.02
#: Pictures that may wait: 0.2 s of work.
QUEUE = 10


def test_each_refused_caller_gets_a_turn_of_its_own() -> None:
    retry_after = RetryQueue(Clock())
    turns_s = [retry_after.book(0.0, PICTURE_S) for _ in range(100)]
    assert all(later - earlier == pytest.approx(PICTURE_S) for earlier, later in pairwise(turns_s))


def test_a_turn_is_not_before_there_is_room_and_at_most_five_minutes_away() -> None:
    retry_after = RetryQueue(Clock())
    assert retry_after.book(3.0, PICTURE_S) == 3.0
    assert retry_after.book(1e9, PICTURE_S) <= 300
    assert max(retry_after.book(0.0, 10.0) for _ in range(1000)) <= 300


def test_arriving_pictures_leave_less_for_callers_who_come_back() -> None:
    clock = Clock()
    retry_after = RetryQueue(clock)
    idle_s = retry_after.book(0.0, 1.0)
    for _ in range(1000):
        clock.now += PICTURE_S
        retry_after.arrived(PICTURE_S / 2)
    assert retry_after.book(0.0, 1.0) == pytest.approx(2 * idle_s, rel=0.1)
    clock.now += 1000
    retry_after.arrived(PICTURE_S)  # the picture that is refused is counted first, as the router does
    assert retry_after.book(0.0, 1.0) == pytest.approx(idle_s, rel=0.1)


def refused(retry_after: RetryQueue, times: int) -> list[float]:
    """Each picture arrives and is refused, as the router does it."""
    waits_s = []
    for _ in range(times):
        retry_after.arrived(PICTURE_S)
        waits_s.append(retry_after.book(0.0, PICTURE_S))
    return waits_s


def test_a_new_wave_does_not_wait_for_the_last_one() -> None:
    clock = Clock()
    retry_after = RetryQueue(clock)
    (first_s,) = refused(retry_after, 1)
    assert refused(retry_after, 1000)[-1] > 100 * first_s
    clock.now += 5.0
    assert refused(retry_after, 1) == pytest.approx([first_s], rel=0.01)


def test_an_endless_wave_is_worked_off_meanwhile() -> None:
    clock = Clock()
    retry_after = RetryQueue(clock)
    waits_s = []
    for _ in range(300):
        clock.now += 1.0  # one picture a second leaves time for fifty
        waits_s += refused(retry_after, 1)
    assert max(waits_s) < 2 * PICTURE_S


def test_turns_beyond_the_longest_are_spread_over_its_second_half() -> None:
    late_s = [wait for wait in refused(RetryQueue(Clock()), 5000) if wait >= 150]
    assert len({math.ceil(wait) for wait in late_s[-1000:]}) > 100
    assert max(late_s) <= 300


def test_nine_of_ten_callers_who_come_back_after_a_wave_are_served() -> None:
    """Five seconds of three times the capacity, then a third of it; each refused caller comes back once."""
    clock = Clock()
    retry_after = RetryQueue(clock)
    began = clock.now
    wave = [began + i * PICTURE_S / 3 for i in range(round(3 * 5 / PICTURE_S))]
    calm = [began + 5 + i * PICTURE_S / 0.3 for i in range(round(0.3 * 300 / PICTURE_S))]
    arrivals = [(at, False) for at in wave + calm]
    heapq.heapify(arrivals)
    free_at, returned = began, list[bool]()
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


def test_callers_who_come_back_are_assumed_to_need_what_admitted_pictures_took() -> None:
    """Dear pictures are admitted, then a cheap one is refused: by then there may be room for a dear one again."""
    clock = Clock()
    queue = RetryQueue(clock)
    for _ in range(200):
        clock.now += 100.0
        queue.admitted(2.0)
    # One picture in twenty decides: one cheap picture changes the mean by a twentieth.
    clock.now += 100.0
    queue.admitted(1.0)
    clock.now += 100.0
    assert queue.book(0.0, 0.01) == pytest.approx(1.95, rel=0.01)
    # A refused picture that takes longer counts for itself.
    clock.now += 100.0
    assert queue.book(0.0, 3.0) == pytest.approx(3.0, rel=0.01)


def test_the_demand_of_a_burst_fades_in_a_pause() -> None:
    clock = Clock()
    queue = RetryQueue(clock)
    for _ in range(100):
        queue.arrived(PICTURE_S)  # two device seconds at once
    assert queue.book(0.0, 1.0) == pytest.approx(10.0)  # a tenth of the device is left, at least
    clock.now += 60.0
    assert queue.book(0.0, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("calm_s", "turn_s"), [(1.9, 2.0), (2.1, 1.0)])
def test_a_wave_is_over_after_two_seconds_without_a_refusal(calm_s: float, turn_s: float) -> None:
    clock = Clock()
    queue = RetryQueue(clock)
    queue.book(0.0, 1.0)
    clock.now += calm_s
    assert queue.book(0.0, 1.0) == pytest.approx(turn_s)


def test_half_of_the_demand_is_of_the_last_third_of_a_second() -> None:
    clock = Clock()
    queue = RetryQueue(clock)
    queue.arrived(0.25)  # half of what the device can compute in half a second
    assert queue.book(0.0, 1.0) == pytest.approx(2.0)
    clock.now += 0.5 * math.log(2)
    assert RetryQueue._left(queue, clock.now) == pytest.approx(0.75)


def test_turns_grow_to_five_minutes_and_are_spread_from_two_and_a_half_on() -> None:
    queue = RetryQueue(Clock())
    turns_s = [queue.book(0.0, 10.0) for _ in range(200)]
    assert turns_s[:30] == pytest.approx([10.0 * n for n in range(1, 31)])
    assert 150.0 <= min(turns_s[30:]) < 165.0
    assert max(turns_s[30:]) <= 300.0
