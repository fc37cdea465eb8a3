"""Refused callers are told to come back one after the other, and find room when they do; who does not keep the time
that it is told pays for it alone."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from service.routing import retry_after as module
from service.routing.retry_after import RetryQueue
from tests.clock import Clock

#: The device time of one picture.
PICTURE_S = 0.02
#: Pictures that may wait: 0.2 s of work.
QUEUE = 10


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what spreads callers over the seconds that they round to, and without a margin."""
    monkeypatch.setattr(module, "_GOLDEN", 0.0)
    monkeypatch.setattr(module, "_MOST_LEFT", 1.0)


def test_each_refused_caller_gets_a_turn_of_its_own(exact: None) -> None:
    retry_after = RetryQueue(Clock())
    turns_s = [retry_after.book(0.0, PICTURE_S, f"caller {n}") for n in range(100)]
    assert all(later - earlier == pytest.approx(PICTURE_S) for earlier, later in pairwise(turns_s))


def test_so_does_each_picture_of_one_caller(exact: None) -> None:
    retry_after = RetryQueue(Clock())
    turns_s = [retry_after.book(0.0, PICTURE_S, "one") for _ in range(100)]
    assert all(later - earlier == pytest.approx(PICTURE_S) for earlier, later in pairwise(turns_s))


def test_a_turn_is_not_before_there_is_room_and_at_most_five_minutes_away() -> None:
    retry_after = RetryQueue(Clock())
    assert retry_after.book(3.0, PICTURE_S) == 3.0
    assert retry_after.book(1e9, PICTURE_S) <= 300
    assert max(retry_after.book(0.0, 10.0) for _ in range(1000)) <= 300


def test_turns_grow_to_five_minutes_and_are_spread_from_two_and_a_half_on(exact: None) -> None:
    queue = RetryQueue(Clock())
    turns_s = [queue.book(0.0, 10.0, f"caller {n}") for n in range(200)]
    assert turns_s[:30] == pytest.approx([10.0 * n for n in range(1, 31)])
    assert 150.0 <= min(turns_s[30:]) < 165.0
    assert max(turns_s[30:]) <= 300.0


def test_bookings_are_taken_in_turns(exact: None) -> None:
    """One picture after a caller with a hundred comes after two: that caller's first, and itself."""
    queue = RetryQueue(Clock())
    for _ in range(100):
        queue.book(0.0, 1.0, "many")
    assert queue.book(0.0, 1.0, "one") == pytest.approx(2.0)
    assert queue.book(0.0, 1.0, "another") == pytest.approx(3.0)
    # The one with many waits for all of them.
    assert queue.book(0.0, 1.0, "many") == pytest.approx(103.0)


def bookings_s(queue: RetryQueue, caller: str) -> float:
    """What is booked on a caller and not worked off."""
    return max(0.0, queue._booked[caller].until_s - queue._virtual_s)


@pytest.mark.parametrize("told", [True, False], ids=["the device's own time", "admitted pictures alone"])
def test_what_the_device_had_left_is_taken_off_the_bookings_in_equal_parts(told: bool) -> None:
    clock = Clock()
    queue = RetryQueue(clock)
    queue.book(0.0, 0.1, "small", 0.0 if told else None)
    for n in range(3):
        queue.book(0.0, 1.0, f"large {n}", 0.0 if told else None)
    if not told:
        queue.admitted(0.4, "admitted")
    clock.now += 1.4  # of which it has computed for 0.4 s, so that 1.0 s was left
    queue.book(0.0, 0.5, "next", 0.4 if told else None)
    assert bookings_s(queue, "small") == 0.0
    assert [bookings_s(queue, f"large {n}") for n in range(3)] == pytest.approx([1.0 - 0.9 / 3] * 3)
    assert bookings_s(queue, "next") == pytest.approx(0.5)


def test_a_busy_device_works_nothing_off(exact: None) -> None:
    clock = Clock()
    queue = RetryQueue(clock)
    queue.book(0.0, 1.0, "first", 5.0)
    clock.now += 1.0
    queue.book(0.0, 1.0, "second", 6.0)
    assert bookings_s(queue, "first") == 1.0


def test_a_caller_who_keeps_its_time_is_not_booked_twice_and_one_who_does_not_is(exact: None) -> None:
    clock = Clock()
    queue = RetryQueue(clock)
    for caller in ("keeps", "hurries"):
        queue.book(0.0, 1.0, caller, 0.0)
    clock.now += 1.5
    queue.book(0.0, 1.0, "hurries", 1.5)
    clock.now += 0.5
    queue.book(0.0, 1.0, "keeps", 2.0)
    assert (bookings_s(queue, "keeps"), bookings_s(queue, "hurries")) == pytest.approx((1.0, 2.0))


def test_a_caller_who_comes_back_and_is_admitted_is_booked_no_more(exact: None) -> None:
    clock = Clock()
    queue = RetryQueue(clock)
    for n in range(2):
        queue.book(0.0, 1.0, f"caller {n}", 0.0)
    queue.admitted(1.0, "caller 0", 0.0)  # before its time: another picture
    assert bookings_s(queue, "caller 0") == 1.0
    clock.now += 2.0
    queue.admitted(1.0, "caller 0", 2.0)
    assert (bookings_s(queue, "caller 0"), bookings_s(queue, "caller 1")) == (0.0, 1.0)


def test_a_caller_who_does_not_come_back_counts_no_more_soon_after_its_time(exact: None) -> None:
    clock = Clock()
    queue = RetryQueue(clock)
    due_in_s = queue.book(0.0, 5.0, "gone", 0.0)
    for passed_s, ahead_s in ((due_in_s, 5.0), (due_in_s + 1.5, 5.0), (due_in_s + 2.5, 0.0)):
        clock.now = 1000.0 + passed_s
        queue._refused_at = clock.now  # the wave goes on
        told_s = queue.book(0.0, 7.0, f"next {passed_s}", passed_s)
        queue._booked.pop(f"next {passed_s}")
        assert told_s - module._lasts_s(passed_s) == pytest.approx(ahead_s + 7.0)


def test_a_new_wave_does_not_wait_for_the_last_one(exact: None) -> None:
    clock = Clock()
    queue = RetryQueue(clock)
    told_s = [queue.book(0.0, PICTURE_S, f"caller {n}", 0.0) for n in range(1000)]
    assert told_s[-1] > 100 * told_s[0]
    clock.now += 5.0
    assert queue.book(0.0, PICTURE_S, "next", 5.0) == pytest.approx(told_s[0] / module._LEAST_LEFT)


@pytest.mark.parametrize(("calm_s", "over"), [(1.9, False), (2.1, True)])
def test_a_wave_is_over_after_two_seconds_without_a_refusal(exact: None, calm_s: float, over: bool) -> None:
    clock = Clock()
    queue = RetryQueue(clock)
    queue.book(0.0, 5.0, "first", 0.0)
    clock.now += calm_s
    # A caller who comes before its time does not prolong it.
    queue.book(0.0, 5.0, "first", calm_s)
    clock.now += 0.05
    queue.book(0.0, 1.0, "next", calm_s + 0.05)
    assert (queue._wave_since == clock.now) == over


@pytest.mark.parametrize(("used", "left"), [(0.0, 1.0), (0.25, 0.75), (0.5, 0.5), (1.0, 0.1)])
def test_what_was_left_before_a_wave_is_assumed_to_be_left_after_it(exact: None, used: float, left: float) -> None:
    clock = Clock()
    queue = RetryQueue(clock)
    clock.now += 100.0
    assert queue.book(0.0, 1.0, "caller", 100.0 * used) == pytest.approx(1.0 / left)


def test_a_wave_is_assumed_to_last_as_long_again(exact: None) -> None:
    assert [module._lasts_s(lasted_s) for lasted_s in (0.0, 0.1, 0.5, 2.0, 5.0, 10.0, 100.0)] == pytest.approx(
        [0.0, 1.0, 5.0, 5.0, 5.0, 10.0, 30.0]
    )


def test_callers_who_come_back_are_assumed_to_need_what_admitted_pictures_took(exact: None) -> None:
    """Dear pictures are admitted, then a cheap one is refused: by then there may be room for a dear one again."""
    queue = RetryQueue(Clock())
    for _ in range(200):
        queue.admitted(2.0, "a", 0.0)
    # One picture in twenty decides: one cheap picture changes the mean by a twentieth.
    queue.admitted(1.0, "a", 0.0)
    assert queue.book(0.0, 0.01, "b", 0.0) == pytest.approx(1.95, rel=0.01)
    # A refused picture that takes longer counts for itself.
    assert queue.book(0.0, 3.0, "c", 0.0) == pytest.approx(1.95 + 3.0, rel=0.01)


def test_memory_is_bounded_and_callers_beyond_it_still_count(exact: None) -> None:
    clock = Clock()
    queue = RetryQueue(clock)
    told_s = [queue.book(0.0, 0.01, f"caller {n}", 0.0) for n in range(5000)]
    assert len(queue._booked) <= module._MOST_CALLERS
    assert told_s == pytest.approx([0.01 * n for n in range(1, 5001)])
    # Whoever sent many pictures and goes with the rest counts for one.
    queue = RetryQueue(clock)
    for _ in range(1000):
        queue.book(0.0, 0.01, "many", 0.0)
    for n in range(300):
        queue.book(0.0, 0.01, f"caller {n}", 0.0)
    assert "many" not in queue._booked
    assert queue.book(0.0, 0.01, "next", 0.0) == pytest.approx(0.01 * 302)


@dataclass
class Told:
    """What one refused caller was told, and what became of it."""

    at: float
    wait_s: float
    served: bool | None = None
    """Whether it was admitted when it came back."""


@dataclass
class Service:
    """A device with a short queue, in virtual time. Callers come back once, after whole seconds."""

    clock: Clock = field(default_factory=Clock)
    told: list[Told] = field(default_factory=list)
    used_s: float = 0.0

    def run(self, arrivals: Iterable[tuple[float, str]]) -> list[Told]:
        queue = RetryQueue(self.clock)
        began = free_at = self.clock.now
        waiting: deque[float] = deque()
        events: list[tuple[float, int, str, Told | None]] = [
            (began + at, n, caller, None) for n, (at, caller) in enumerate(arrivals)
        ]
        heapq.heapify(events)
        while events:
            self.clock.now, number, caller, again = heapq.heappop(events)
            while waiting and waiting[0] <= self.clock.now:
                waiting.popleft()
            used_s = self.used_s - max(0.0, free_at - self.clock.now)
            served = len(waiting) < QUEUE
            if served:
                free_at = max(free_at, self.clock.now) + PICTURE_S
                self.used_s += PICTURE_S
                waiting.append(free_at)
                queue.admitted(PICTURE_S, caller, used_s)
            else:
                room_in_s = (len(waiting) + 1 - QUEUE) * PICTURE_S
                wait_s = queue.book(room_in_s, PICTURE_S, caller, used_s)
                if again is None:
                    told = Told(self.clock.now, wait_s)
                    self.told.append(told)
                    due = self.clock.now + math.ceil(max(1.0, wait_s))
                    heapq.heappush(events, (due, number, caller, told))
            if again is not None:
                again.served = served
        return self.told


def load(times: float, seconds: float, start: float, source: random.Random, name: str) -> list[tuple[float, str]]:
    """Arrivals of so many times what the device computes, at moments that know nothing of each other."""
    count = round(times * seconds / PICTURE_S)
    return [(start + source.uniform(0.0, seconds), f"{name}{n}" if name[-1] == " " else name) for n in range(count)]


CALLERS = pytest.mark.parametrize("name", ["caller ", "one"], ids=["many callers", "one caller"])


@CALLERS
@pytest.mark.parametrize(("times", "seconds"), [(3.0, 5.0), (2.0, 5.0), (3.0, 2.0), (2.0, 2.0)])
@pytest.mark.parametrize("usual", [0.0, 0.3, 0.6])
def test_nine_of_ten_callers_who_come_back_after_a_wave_are_served_and_nobody_is_told_much_too_late(
    name: str, times: float, seconds: float, usual: float
) -> None:
    told = []
    for seed in range(3):
        source = random.Random(seed)
        before = load(usual, 20.0, 0.0, source, name)
        wave = load(times, seconds, 20.0, source, name)
        after = load(max(usual, 0.3), 100.0, 20.0 + seconds, source, name)
        told += [told for told in Service().run(before + wave + after) if told.at - 1000.0 >= 20.0]
    assert len(told) > 100
    assert sum(one.served is True for one in told) >= 0.9 * len(told)
    # The device has worked off what came beyond its capacity so long after the wave's beginning.
    over_s = seconds + (times - 1.0) * seconds / (1.0 - usual)
    at_last_s = max(one.at + one.wait_s for one in told if one.at < 1020.0 + seconds) - 1020.0
    assert 0.5 * over_s <= at_last_s <= 1.5 * over_s + 6.0


def test_what_a_rude_caller_is_told_grows_and_what_others_are_told_does_not(exact: None) -> None:
    clock = Clock()
    queue = RetryQueue(clock)
    rude_s, polite_s = [], []
    for n in range(5000):
        clock.now += 0.001
        used_s = clock.now - 1000.0
        rude_s.append(queue.book(0.05, PICTURE_S, "rude", used_s))
        if n % 500 == 499:
            polite_s.append(queue.book(0.05, PICTURE_S, f"polite {n}", used_s))
            queue._booked.pop(f"polite {n}")  # it comes back and is answered
    assert rude_s[-1] > 50
    # The wave lasts as long as polite callers are refused, which adds some seconds, and one picture of the rude one.
    assert max(polite_s) <= 2 * PICTURE_S + module._lasts_s(5.0)


def test_a_device_that_was_idle_is_not_assumed_to_be_all_left() -> None:
    clock = Clock()
    for queue in (RetryQueue(clock), RetryQueue(clock)):
        clock.now += 100.0
        queue.book(0.0, 1.0, "caller", 0.0)
        assert queue._left == 0.85
