"""The batcher and the batch limit: what it asks the limit for, and what it tells it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from service.batching.limit import BatchLimit
from service.batching.slot import DeviceSlot
from tests.batching import FAR, Runner, batcher, tens
from tests.clock import Clock


class Told(BatchLimit):
    """A limit that tries a larger batch whenever enough items wait, and remembers what it is told."""

    def __init__(self, size: int) -> None:
        super().__init__(16, lambda: size)
        self.told: list[tuple[int, float]] = []
        self.asked: list[int] = []

    def next(self, waiting: int) -> int:
        self.asked.append(waiting)
        return 2 * self.size if waiting >= 2 * self.size else self.size

    def learn(self, size: int, device_s: float) -> None:
        self.told.append((size, device_s))


class Device:
    """A device on which every batch takes a second."""

    def __init__(self, limit: BatchLimit) -> None:
        self.clock = Clock(0.0)
        self.slot = DeviceSlot(clock=self.clock)
        self.runner = Runner(self._run)
        self.served = batcher(self.runner, self.slot, limit=limit, clock=self.clock)

    def _run(self, items: Sequence[int]) -> list[int]:
        self.clock.now += 1.0
        return tens(items)

    async def answer(self, items: int) -> list[int]:
        """Submits items at once; returns the sizes of the batches they were in."""
        answers = await asyncio.gather(*(self.served.submit(item, FAR) for item in range(items)))
        return [answer.batch_size for answer in answers]


async def test_each_batch_asks_how_large_it_may_be() -> None:
    limit = Told(2)
    device = Device(limit)
    assert await device.answer(7) == [4, 4, 4, 4, 2, 2, 1]
    assert [waiting for waiting in limit.asked if waiting] == [7, 3, 1]
    await device.served.close()


@pytest.mark.parametrize(
    ("size", "waves", "told"),
    [
        (2, (7, 1, 3), [4, 2, 2]),  # a lone item leaves room in its batch
        (2, (2,), [2]),  # just as many as fit
        (1, (1, 1), []),  # a batch of one item that nobody waits behind
        (1, (2,), [2]),
    ],
)
async def test_only_full_batches_for_which_enough_waited_say_anything_of_the_limit(
    size: int, waves: Sequence[int], told: Sequence[int]
) -> None:
    limit = Told(size)
    device = Device(limit)
    for items in waves:
        await device.answer(items)
    assert limit.told == [(batch, 1.0) for batch in told]
    await device.served.close()


async def test_a_batch_that_a_deadline_cut_short_says_nothing_of_the_limit() -> None:
    limit = Told(2)
    device = Device(limit)
    # It is forecast that an item takes ten seconds in whatever batch, so that two fit before the first deadline.
    device.runner.forward_s = [10.0 * size for size in range(17)]
    await asyncio.gather(device.served.submit(0, 25.0), *(device.served.submit(item, FAR) for item in range(1, 4)))
    assert [(len(batch.tickets), batch.cut) for batch, *_ in device.runner.learned] == [(2, "deadline"), (2, "full")]
    assert limit.told == [(2, 1.0)]
    await device.served.close()


async def test_the_time_between_two_batches_belongs_to_the_second() -> None:
    """Other work on the event loop delays each batch, and larger batches meet it less often."""
    limit = Told(2)
    device = Device(limit)

    async def hold_up() -> None:
        # Just when the first batch is through.
        while device.slot.freed_at == -math.inf:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0)
        device.clock.now += 5.0
        await device.served.submit(9, FAR)

    await asyncio.gather(hold_up(), device.answer(5))
    await device.served.close()
    assert limit.told == [(4, 1.0), (2, 6.0)]


async def test_the_time_in_which_nothing_waited_belongs_to_no_batch() -> None:
    limit = Told(2)
    device = Device(limit)
    for _ in range(2):
        await device.answer(2)
        device.clock.now += 100.0
    await device.served.close()
    assert limit.told == [(2, 1.0)] * 2


async def test_the_time_in_which_another_checkpoint_had_the_device_belongs_to_no_batch() -> None:
    limit = Told(2)
    device = Device(limit)
    async with device.slot.taken():
        answers = asyncio.create_task(device.answer(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        device.clock.now += 50.0
    await answers
    await device.served.close()
    assert limit.told == [(2, 1.0)]
