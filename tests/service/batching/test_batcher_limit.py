"""The batcher and a limit that it learns: what it asks for, and what it tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from service.batching.batcher import Batcher
from service.batching.limit import BatchLimit
from service.batching.slot import DeviceSlot

FAR = 1e9


class Told(BatchLimit):
    """A limit that tries a larger batch whenever enough wait, and remembers what it is told."""

    def __init__(self, size: int) -> None:
        super().__init__(16, lambda: size)
        self.told: list[tuple[int, float]] = []
        self.asked: list[int] = []

    def next(self, waiting: int) -> int:
        self.asked.append(waiting)
        return 2 * self.size if waiting >= 2 * self.size else self.size

    def learn(self, size: int, device_s: float) -> None:
        self.told.append((size, device_s))


def slow(items: Sequence[int]) -> list[int]:
    time.sleep(0.02)
    return list(items)


async def answered(limit: BatchLimit, *waves: int) -> list[int]:
    """Items a wave at once, each wave when the one before it is through; the batches they were in."""
    batcher = Batcher(slow, DeviceSlot(), limit=limit, max_queue=100)
    sizes = []
    for wave in waves:
        answers = await asyncio.gather(*(batcher.submit(item, FAR) for item in range(wave)))
        sizes += [answer.batch_size for answer in answers]
    await batcher.close()
    return sizes


async def test_each_batch_asks_how_large_it_may_be() -> None:
    limit = Told(2)
    assert await answered(limit, 7) == [4, 4, 4, 4, 2, 2, 1]
    assert [waiting for waiting in limit.asked if waiting] == [7, 3, 1]


async def test_only_batches_that_were_pressed_say_anything_of_a_limit() -> None:
    limit = Told(2)
    await answered(limit, 7, 1, 3)
    # Not the lone ones, which had room.
    assert [size for size, _ in limit.told] == [4, 2, 2]
    lone = Told(1)
    await answered(lone, 1, 1)
    assert lone.told == []


async def test_the_time_between_two_batches_belongs_to_the_second() -> None:
    """Whoever else runs on the event loop then is what larger batches meet less often."""
    limit, slot = Told(2), DeviceSlot()
    batcher = Batcher(slow, slot, limit=limit, max_queue=100)

    async def hold_up() -> None:
        # Just when the first batch is through.
        while not slot.freed_at > started:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0)
        time.sleep(0.1)  # noqa: ASYNC251 - the loop is to stand still
        await batcher.submit(9, FAR)

    started = time.monotonic()
    await asyncio.gather(hold_up(), *(batcher.submit(item, FAR) for item in range(5)))
    await batcher.close()
    (first, first_s), (second, second_s) = limit.told
    assert (first, second) == (4, 2)
    assert second_s > first_s + 0.05


async def test_the_time_in_which_nothing_waited_belongs_to_nobody() -> None:
    limit = Told(2)
    batcher = Batcher(slow, DeviceSlot(), limit=limit, max_queue=100)
    for _ in range(2):
        await asyncio.gather(*(batcher.submit(item, FAR) for item in range(2)))
        await asyncio.sleep(0.2)
    await batcher.close()
    (_, first_s), (_, second_s) = limit.told
    assert second_s < first_s + 0.1


@pytest.mark.parametrize("size", [1, 4])
async def test_without_a_limit_the_largest_batch_is_fixed(size: int) -> None:
    batcher = Batcher(slow, DeviceSlot(), max_batch_size=size, max_queue=100)
    answers = await asyncio.gather(*(batcher.submit(item, FAR) for item in range(8)))
    assert {answer.batch_size for answer in answers} == {size}
    await batcher.close()
