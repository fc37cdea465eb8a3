"""The pictures that are on their way to a queue."""

from __future__ import annotations

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
