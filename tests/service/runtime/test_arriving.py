"""The pictures that are on their way to a queue."""

from __future__ import annotations

from service.domain.shares import FEW
from service.runtime.arriving import Arriving


def test_arriving_pictures_are_counted_until_they_end() -> None:
    arriving = Arriving()
    assert (len(arriving), arriving.size, arriving.oldest_s(50.0)) == (0, 0, 0.0)
    first, second, third = (
        arriving.begin(deadline, since, size)
        for deadline, since, size in ((30.0, 10.0, 100), (10.0, 12.0, 20), (20.0, 11.0, 3))
    )
    assert (len(arriving), arriving.size, arriving.oldest_s(50.0)) == (3, 123, 40.0)
    assert [arriving.ahead_of(deadline) for deadline in (9.9, 10.0, 20.0, 99.0)] == [0, 1, 2, 3]
    arriving.end(first)
    assert (len(arriving), arriving.size, arriving.oldest_s(50.0)) == (2, 23, 39.0)
    assert arriving.ahead_of(99.0) == 2
    arriving.end(third)
    arriving.end(second)
    assert (len(arriving), arriving.size) == (0, 0)


def test_arriving_pictures_that_are_equal_end_one_by_one() -> None:
    arriving = Arriving()
    arrivals = [arriving.begin(1.0, 0.0, 10) for _ in range(2)]
    arriving.end(arrivals[0])
    assert (len(arriving), arriving.size) == (1, 10)


def test_pictures_that_are_long_in_coming_are_counted_but_not_waited_for() -> None:
    arriving = Arriving()
    near = arriving.begin(10.0, 0.0, 1)
    far = arriving.begin(10.0, 0.0, 2, far=True)
    assert (len(arriving), arriving.soon, arriving.size, arriving.ahead_of(99.0)) == (2, 1, 3, 1)
    late = arriving.outran(near)
    assert (len(arriving), arriving.soon, arriving.size, arriving.ahead_of(99.0)) == (2, 0, 3, 0)
    # One that was far is far still.
    assert arriving.outran(far) == far
    assert arriving.soon == 0
    arriving.end(late)
    arriving.end(far)
    assert (len(arriving), arriving.soon, arriving.size) == (0, 0, 0)


def test_of_another_caller_with_many_only_a_few_are_ahead() -> None:
    arriving = Arriving()
    bulk = [arriving.begin(10.0, 0.0, 1, "bulk") for _ in range(20)]
    arriving.begin(10.0, 0.0, 1, "other")
    assert arriving.ahead_of(10.0, "polite") == FEW + 1
    assert arriving.ahead_of(10.0, "bulk") == 21
    assert arriving.ahead_of(9.0, "bulk") == 0
    for arrival in bulk:
        arriving.end(arrival)
    assert arriving.ahead_of(10.0, "polite") == 1


def test_of_another_caller_with_more_as_many_are_ahead_as_the_caller_has_itself() -> None:
    arriving = Arriving()
    for caller, count in (("bulk", 20), ("busy", 8)):
        for _ in range(count):
            arriving.begin(10.0, 0.0, 1, caller)
    assert arriving.ahead_of(10.0, "busy") == 8 + 9
    assert arriving.ahead_of(10.0, "bulk") == 20 + 8


def test_whoever_waits_is_told_when_a_picture_ends_or_is_long_in_coming() -> None:
    told: list[int] = []
    arriving = Arriving(lambda: told.append(arriving.soon))
    first, second = (arriving.begin(1.0, 0.0, 10) for _ in range(2))
    assert told == []
    late = arriving.outran(first)
    assert told == [1]
    arriving.end(second)
    arriving.end(late)
    assert told == [1, 0, 0]
