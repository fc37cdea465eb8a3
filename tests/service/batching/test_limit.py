"""The batch limit, on devices whose best batch is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from service.batching.limit import BatchLimit
from service.domain.quiet import Quiet
from tests.clock import Clock

LARGEST = 16


class Device:
    """Computes batches while enough items wait, and tells the limit how long each took.

    Args:
        limit: what sizes the batches.
        takes: milliseconds of a batch, by its size.
        noise: how much the time of a batch varies, as a share.
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
        (lambda size: 10 * size, {1}),  # a CPU: an item takes as long in a batch as alone
        (lambda size: 2 + 10 * size, {2, 4, 8}),  # the same with time between the batches: 12, 11, 10.5, 10.25, 10.1
        (lambda size: 12 * size if size > 4 else 8 + 4 * size, {4}),  # beyond 4 the caches are too small
    ],
)
def test_it_moves_to_the_smallest_batch_in_which_an_item_takes_nearly_the_least_time(
    takes: Callable[[int], float], best: set[int], profiled: int
) -> None:
    limit = BatchLimit(LARGEST, lambda: profiled)
    device = Device(limit, takes)
    device.run(600)
    device.sizes.clear()
    device.run(800)
    assert limit.size in best
    # Trying the neighbouring sizes takes one batch in eight while the best is settled.
    assert sum(device.sizes[size] for size in best) >= 0.75 * 800


@pytest.mark.parametrize(("profiled", "size"), [(1, 1), (2, 2), (3, 4), (4, 4), (9, 16), (16, 16)])
def test_it_begins_with_what_the_profile_suggests(profiled: int, size: int) -> None:
    assert BatchLimit(LARGEST, lambda: profiled).size == size


def test_the_largest_batch_need_not_be_a_power_of_two() -> None:
    limit = BatchLimit(12, lambda: 1)
    Device(limit, lambda size: 10 + size).run(400)
    assert limit.size == 12
    assert BatchLimit(1, lambda: 1).next(99) == 1


def test_no_size_is_tried_for_which_too_few_items_wait() -> None:
    limit = BatchLimit(LARGEST, lambda: 2)
    device = Device(limit, lambda size: 10 + size)
    device.run(400, waiting=3)
    assert limit.size == 2
    assert set(device.sizes) == {1, 2}
    assert {limit.next(1) for _ in range(50)} == {2}


def test_it_follows_a_device_that_changes() -> None:
    """Other work on the machine changes which batch is best."""
    limit = BatchLimit(LARGEST, lambda: 1)
    Device(limit, lambda size: 10 + size).run(400)
    assert limit.size == 16
    Device(limit, lambda size: 10 * size).run(600)
    assert limit.size == 1


def test_one_lucky_batch_does_not_move_the_limit() -> None:
    limit = BatchLimit(LARGEST, lambda: 1)
    Device(limit, lambda size: 10 * size, noise=0).run(7)
    assert limit.next(64) == 2
    limit.learn(2, 1.0)
    assert limit.size == 1


def test_batches_of_sizes_between_the_limits_are_ignored() -> None:
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
    profiled = 4  # the profile may be measured anew meanwhile
    assert limit.size == 4
    quiet.begin()
    Device(limit, lambda size: 10 * size).run(600)
    assert limit.size == 1


def learned(limit: BatchLimit, size: int, each_s: float, batches: int = 3) -> int:
    """The limit after batches of one size in which each item took so long."""
    for _ in range(batches):
        limit.learn(size, each_s * size)
    return limit.size


@pytest.mark.parametrize(("each_s", "after"), [(0.90, 8), (0.94, 8), (0.96, 4), (1.0, 4)])
def test_it_rises_where_an_item_takes_clearly_less_time_in_the_larger_batch(each_s: float, after: int) -> None:
    limit = BatchLimit(LARGEST, lambda: 4)
    learned(limit, 4, 1.0)
    assert learned(limit, 8, each_s) == after


@pytest.mark.parametrize(("each_s", "after"), [(0.90, 2), (1.0, 2), (1.01, 2), (1.03, 4), (1.2, 4)])
def test_it_sinks_where_an_item_takes_hardly_more_time_in_the_smaller_batch(each_s: float, after: int) -> None:
    limit = BatchLimit(LARGEST, lambda: 4)
    learned(limit, 4, 1.0)
    assert learned(limit, 2, each_s) == after


@pytest.mark.parametrize(("at_four", "at_eight"), [(3, 2), (2, 3)])
def test_it_moves_only_when_three_batches_of_both_sizes_are_known(at_four: int, at_eight: int) -> None:
    limit = BatchLimit(LARGEST, lambda: 4)
    learned(limit, 4, 1.0, at_four)
    assert learned(limit, 8, 0.5, at_eight) == 4
    learned(limit, 4, 1.0, 3 - at_four)
    assert learned(limit, 8, 0.5, 3 - at_eight) == 8


@pytest.mark.parametrize("size", [2, 8])
def test_the_first_batches_of_a_size_count_in_full(size: int) -> None:
    limit = BatchLimit(LARGEST, lambda: 4)
    learned(limit, 4, 1.0, 100)
    # Just as good is not enough to rise, and much worse is not to sink.
    assert learned(limit, size, 1.0 if size == 8 else 1.5) == 4


def test_recent_batches_weigh_more() -> None:
    limit = BatchLimit(LARGEST, lambda: 4)
    learned(limit, 4, 1.0, 100)
    learned(limit, 8, 2.0, 100)
    # A plain mean of the batches of eight would still be 1.8 s.
    assert learned(limit, 8, 0.5, 12) == 8


def test_a_larger_and_a_smaller_size_are_tried_in_turns() -> None:
    limit = BatchLimit(LARGEST, lambda: 4)
    sizes = []
    for _ in range(33):
        sizes.append(limit.next(64))
        limit.learn(sizes[-1], sizes[-1] * (1.0 if sizes[-1] == 4 else 2.0))
    assert Counter(sizes) == {4: 29, 8: 2, 2: 2}
    tried = [size for size in sizes if size != 4]
    assert tried in ([8, 2, 8, 2], [2, 8, 2, 8])
    assert sizes[:7] == [4] * 7


@pytest.mark.parametrize(("waiting", "size"), [(7, 4), (8, 8), (9, 8)])
def test_a_size_is_tried_as_soon_as_enough_items_wait_for_it(waiting: int, size: int) -> None:
    limit = BatchLimit(LARGEST, lambda: 4)
    learned(limit, 4, 1.0, 7)
    assert limit.next(waiting) == size


@pytest.mark.parametrize(("waiting", "size"), [(3, 4), (4, 2), (5, 2)])
def test_a_smaller_size_is_tried_when_a_full_batch_waits(waiting: int, size: int) -> None:
    limit = BatchLimit(LARGEST, lambda: 4)
    learned(limit, 4, 1.0, 15)
    assert limit.next(waiting) == size


def test_a_quiet_time_forgets_all_that_was_measured() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    limit = BatchLimit(LARGEST, lambda: 4, quiet)
    quiet.begin()
    learned(limit, 4, 1.0)
    assert learned(limit, 8, 0.5) == 8
    quiet.end()
    clock.now += 60
    assert limit.size == 4
    quiet.begin()
    assert learned(limit, 4, 1.0) == 4


def test_a_quiet_time_before_anything_was_learned_forgets_nothing() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    limit = BatchLimit(LARGEST, lambda: 4, quiet)
    clock.now += 60
    quiet.begin()
    learned(limit, 4, 1.0)
    assert learned(limit, 8, 0.5) == 8
    quiet.end()
    clock.now += 1
    assert limit.size == 8
