"""The batch limit, over devices whose best batch is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from service.batching.limit import BatchLimit
from service.domain.quiet import Quiet

LARGEST = 16


class Clock:
    """Goes only where it is put."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Device:
    """Computes batches for as long as there are enough pictures, and tells the limit how long each took.

    Args:
        limit: what is told.
        takes: milliseconds of a batch, by its size.
    """

    def __init__(self, limit: BatchLimit, takes: Callable[[int], float], *, noise: float = 0.1) -> None:
        self._limit, self._takes, self._noise = limit, takes, noise
        self._random = Random(1)
        self.sizes: Counter[int] = Counter()

    def run(self, batches: int, waiting: int = 64) -> None:
        for _ in range(batches):
            size = min(waiting, self._limit.next(waiting))
            self.sizes[size] += 1
            self._limit.learn(size, self._takes(size) * self._random.uniform(1 - self._noise, 1 + self._noise))


@pytest.mark.parametrize("profiled", [1, 2, 5, 16])
@pytest.mark.parametrize(
    ("takes", "best"),
    [
        (lambda size: 10 + size, {16}),  # a GPU: what a batch costs hardly depends on its size
        (lambda size: 10 * size, {1}),  # a CPU: a picture takes as long in a batch as alone
        (lambda size: 2 + 10 * size, {2, 4, 8}),  # the same with time between the batches: 12, 11, 10.5, 10.25, 10.1
        (lambda size: 12 * size if size > 4 else 8 + 4 * size, {4}),  # beyond 4 the caches are too small
    ],
)
def test_it_moves_to_the_smallest_batch_in_which_a_picture_takes_nearly_the_least(
    takes: Callable[[int], float], best: set[int], profiled: int
) -> None:
    limit = BatchLimit(LARGEST, lambda: profiled)
    device = Device(limit, takes)
    device.run(600)
    device.sizes.clear()
    device.run(800)
    assert limit.size in best
    # Looking at the sizes beside it takes one batch in eight, while which one is best is settled.
    assert sum(device.sizes[size] for size in best) >= 0.75 * 800


@pytest.mark.parametrize(("profiled", "size"), [(1, 1), (2, 2), (3, 4), (4, 4), (9, 16), (16, 16)])
def test_it_begins_with_what_the_profile_suggests(profiled: int, size: int) -> None:
    assert BatchLimit(LARGEST, lambda: profiled).size == size


def test_the_largest_batch_need_not_be_a_power_of_two() -> None:
    limit = BatchLimit(12, lambda: 1)
    Device(limit, lambda size: 10 + size).run(400)
    assert limit.size == 12
    assert BatchLimit(1, lambda: 1).next(99) == 1


def test_no_batch_is_tried_for_which_too_few_wait() -> None:
    limit = BatchLimit(LARGEST, lambda: 2)
    device = Device(limit, lambda size: 10 + size)
    device.run(400, waiting=3)
    assert limit.size == 2
    assert set(device.sizes) == {1, 2}
    assert {limit.next(1) for _ in range(50)} == {2}


def test_it_follows_the_device() -> None:
    """What is right alone on a machine may be wrong beside other work."""
    limit = BatchLimit(LARGEST, lambda: 1)
    Device(limit, lambda size: 10 + size).run(400)
    assert limit.size == 16
    Device(limit, lambda size: 10 * size).run(600)
    assert limit.size == 1


def test_one_lucky_batch_moves_nothing() -> None:
    limit = BatchLimit(LARGEST, lambda: 1)
    Device(limit, lambda size: 10 * size, noise=0).run(7)
    assert limit.next(64) == 2
    limit.learn(2, 1.0)
    assert limit.size == 1


def test_sizes_between_the_limits_say_nothing() -> None:
    limit = BatchLimit(LARGEST, lambda: 4)
    for _ in range(100):
        limit.learn(3, 1e-6)
    assert {limit.next(64) for _ in range(100)} == {4}


def test_after_a_quiet_time_it_is_the_profiles_again() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    profiled = 1
    limit = BatchLimit(LARGEST, lambda: profiled, quiet)
    quiet.begin()
    Device(limit, lambda size: 10 + size).run(400)
    clock.now += 60
    assert limit.size == 16
    quiet.end()
    clock.now += 4.5
    assert limit.size == 1
    profiled = 4  # which may be measured anew meanwhile
    assert limit.size == 4
    quiet.begin()
    Device(limit, lambda size: 10 * size).run(600)
    assert limit.size == 1
