"""The memory for bodies: who gets room, and who gives way."""

from __future__ import annotations

import pytest

from service.domain.errors import OverloadedError
from service.http.body_memory import SMALL, BodyMemory, Room
from tests.clock import Clock

MB = 1_000_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> BodyMemory:
    return BodyMemory(8 * MB, clock)


def room(memory: BodyMemory, size: int = 0) -> Room:
    found = Room(memory)
    found.resize(size)
    return found


def test_large_bodies_have_three_quarters_and_small_ones_all_of_it(memory: BodyMemory) -> None:
    large = room(memory, 6 * MB)
    for size in (SMALL + 1, MB):
        with pytest.raises(OverloadedError):
            room(memory, size)
        with pytest.raises(OverloadedError):
            memory.check(size)
    memory.check(SMALL)
    small = [room(memory, SMALL) for _ in range(2 * MB // SMALL)]
    with pytest.raises(OverloadedError, match="8 MB") as raised:
        room(memory, SMALL)
    assert raised.value.retry_after_s > 0
    # What is given back may be taken again, once.
    small[0].free()
    small[0].free()
    assert room(memory, SMALL).size == SMALL
    large.resize(3 * MB)
    memory.check(MB)
    large.free()
    assert memory.held == len(small) * SMALL


def test_a_room_that_may_not_grow_keeps_its_size(memory: BodyMemory) -> None:
    found = room(memory, 4 * MB)
    with pytest.raises(OverloadedError):
        found.resize(7 * MB)
    assert (found.size, memory.held) == (4 * MB, 4 * MB)
    found.resize(6 * MB)
    found.resize(MB)
    assert (found.size, memory.held) == (MB, MB)


def arriving(memory: BodyMemory, size: int, ended: list[str], name: str) -> Room:
    found = Room(memory)
    found.arrives(lambda: ended.append(name))
    found.grow(size)
    return found


def test_bodies_that_have_stopped_give_way_in_the_order_in_which_they_did(memory: BodyMemory, clock: Clock) -> None:
    ended: list[str] = []
    for name in ("first", "second", "third"):
        arriving(memory, MB, ended, name)
        clock.now += 1
    clock.now += 3
    moving = arriving(memory, MB, ended, "moving")
    memory.check(2 * MB)
    assert ended == []
    room(memory, 3 * MB)
    assert ended == ["first"]
    assert memory.held == 6 * MB
    moving.grow(2 * MB)
    assert ended == ["first", "second"]
    with pytest.raises(OverloadedError):
        memory.check(5 * MB)
    assert ended == ["first", "second"], "nobody gives way in vain"


def test_a_body_moves_if_it_gains_64_kib_in_two_seconds(memory: BodyMemory, clock: Clock) -> None:
    ended: list[str] = []
    fast, slow = arriving(memory, MB, ended, "fast"), arriving(memory, MB, ended, "slow")
    for step in range(1, 10):
        clock.now += 1.5
        fast.grow(MB + step * SMALL)
        slow.grow(MB + step * 1_000)
    memory.check(4 * MB)
    assert ended == ["slow"]


def test_a_body_that_has_arrived_does_not_give_way(memory: BodyMemory, clock: Clock) -> None:
    ended: list[str] = []
    arriving(memory, 5 * MB, ended, "whole").arrived()
    clock.now += 100
    with pytest.raises(OverloadedError):
        memory.check(2 * MB)
    assert (ended, memory.arriving) == ([], {})


def test_what_clients_announce_takes_nothing(memory: BodyMemory, clock: Clock) -> None:
    """A thousand clients that send a byte each leave the room to others."""
    ended: list[str] = []
    for number in range(1_000):
        memory.check(2 * MB)
        arriving(memory, 1, ended, str(number))
    clock.now += 100
    room(memory, 5 * MB)
    assert ended == []
