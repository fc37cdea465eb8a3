"""Threads that work ahead of a loop: in order, not too far ahead, and gone at the end."""

from __future__ import annotations

import threading

import pytest

from models.data.ahead import ahead


@pytest.mark.parametrize("threads", [1, 3, None])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_results_come_in_order(count: int, threads: int | None) -> None:
    assert list(ahead(lambda number: number * number, count, threads)) == [number * number for number in range(count)]


def test_as_many_are_made_at_once_as_there_are_threads() -> None:
    """Three threads wait for each other: fewer would never pass."""
    together = threading.Barrier(3)
    assert len(list(ahead(lambda _number: together.wait(20), 9, 3))) == 9


@pytest.mark.parametrize("threads", [1, 4])
def test_no_more_than_one_a_thread_is_started_ahead_of_the_loop(threads: int) -> None:
    started: list[int] = []
    results = ahead(lambda number: started.append(number), 50, threads)
    for taken in range(1, 20):
        next(results)
        assert len(started) <= taken + threads
    results.close()


def test_an_error_reaches_the_loop_in_its_turn_and_ends_the_threads() -> None:
    def make(number: int) -> int:
        if number == 3:
            raise OSError("the fourth")
        return number

    before = threading.active_count()
    results = ahead(make, 100, 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the fourth"):
        next(results)
    assert threading.active_count() == before


def test_a_loop_that_ends_early_leaves_no_thread_and_no_work_behind() -> None:
    before, started = threading.active_count(), set[int]()
    results = ahead(lambda number: started.add(number), 1000, 2)
    next(results)
    results.close()
    assert threading.active_count() == before
    assert len(started) <= 3
