"""One caller cannot fill a queue, and a newcomer finds room."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.places import Places
from service.domain.errors import OverloadedError


class Hall:
    """Places that callers take as long as they are let in."""

    def __init__(self, places: int, size: int = 10**9) -> None:
        self.places = Places(places, size)
        self.count, self.size = places, size
        self.held: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def enter(self, caller: str, size: int = 1) -> bool:
        taken, taken_bytes = self.held.total(), self.bytes.total()
        if taken == self.count or taken_bytes + size > self.size:
            return False  # the queue itself refuses
        try:
            self.places.check(caller, taken, taken_bytes, size, 0.01)
        except OverloadedError:
            return False
        self.places.take(caller, size)
        self.held[caller] += 1
        self.bytes[caller] += size
        return True

    def go(self, caller: str, size: int = 1) -> None:
        self.places.give_back(caller, size)
        self.held[caller] -= 1
        self.bytes[caller] -= size


@pytest.mark.parametrize("callers", [1, 2, 3, 10])
def test_greedy_callers_get_the_same_and_leave_room_for_the_next(callers: int) -> None:
    hall = Hall(512)
    for _ in range(512):
        for caller in range(callers):
            hall.enter(f"greedy {caller}")
    held = [hall.held[f"greedy {caller}"] for caller in range(callers)]
    assert max(held) - min(held) <= 1
    # Each has eight places for each that is free.
    assert min(held) == pytest.approx(512 * 8 / (8 * callers + 1), abs=1.5)
    assert all(hall.enter("newcomer") for _ in range(4))


def test_a_newcomer_finds_a_place_whatever_thirty_greedy_callers_do() -> None:
    hall = Hall(512)
    for turn in range(4000):
        hall.enter(f"greedy {turn % 30}")
    assert hall.enter("newcomer")


def test_a_lone_caller_takes_all_places_of_a_short_queue() -> None:
    hall = Hall(8)
    assert [hall.enter("lone") for _ in range(9)] == [True] * 8 + [False]


def test_a_share_is_of_the_bytes_too() -> None:
    hall = Hall(512, 256_000_000)
    while hall.enter("large", 5_000_000):
        pass
    assert hall.bytes["large"] == pytest.approx(256_000_000 * 8 / 9, abs=5_000_000)
    assert hall.enter("newcomer", 25_000_000)
    # One picture of any size is let in where none waits, although another of the caller's is being computed.
    places = Places(512, 100)
    places.take("lone", 90)
    places.check("lone", 0, 0, 90, 0.01)
    with pytest.raises(OverloadedError, match="MB"):
        places.check("lone", 1, 90, 90, 0.01)


def test_the_longer_the_way_to_the_share_the_later_is_the_time_to_come_back() -> None:
    hall = Hall(512)
    while hall.enter("greedy"):
        pass
    waits = []
    for taken in (460, 480, 511):
        with pytest.raises(OverloadedError, match="kept for other callers") as refused:
            hall.places.check("greedy", taken, 0, 1, 0.01)
        waits.append(refused.value.retry_after_s)
    assert waits == sorted(waits)
    # So many pictures later there is a place: each gives one back and frees one.
    assert waits[-1] == pytest.approx(0.01 * (hall.held["greedy"] - 8) / 9, rel=0.05)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200), st.integers(1, 40))
def test_whoever_is_let_in_is_within_its_share(steps: list[tuple[str, bool]], places: int) -> None:
    hall = Hall(places)
    for caller, enters in steps:
        if enters:
            held, free = hall.held[caller], places - hall.held.total()
            assert hall.enter(caller) == (free > 0 and held < 8 * free)
        elif hall.held[caller]:
            hall.go(caller)
    for caller, count in hall.held.items():
        for _ in range(count):
            hall.places.give_back(caller, 1)
    assert hall.places._held == {}
