"""The batcher's care for single requests: whose deadline is near, whose picture breaks a batch, and who has gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from service.batching.batcher import Batched, Batcher
from service.batching.slot import DeviceSlot

FAR = 1e9
LARGEST = 16


class Device:
    """A device with a clock of its own, that waits for the test before its first batch."""

    def __init__(self, fixed_s: float = 0.0, each_s: float = 1.0, guilty: frozenset[int] = frozenset()) -> None:
        self.now = 0.0
        self.batches: list[list[int]] = []
        self.running, self.open = threading.Event(), threading.Event()
        self.guilty = guilty
        self.forward_s = [fixed_s + each_s * size for size in range(LARGEST + 1)]

    def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.running.set()
        assert self.open.wait(10), "the test never opened it"
        self.now += self.forward_s[len(items)]
        if self.guilty.intersection(items):
            raise ArithmeticError("unlucky")
        return [item * 10 for item in items]

    def batcher(self, *, foresight: bool = True) -> Batcher[int, int]:
        return Batcher(
            self.run,
            DeviceSlot(),
            max_batch_size=LARGEST,
            max_queue=100,
            forward_s=lambda: self.forward_s if foresight else (),
            clock=lambda: self.now,
        )

    async def queue_up(
        self, batcher: Batcher[int, int], deadlines: Sequence[float]
    ) -> list[asyncio.Task[Batched[int]]]:
        """Requests 1, 2, ... that wait behind request 0, which runs."""
        tasks = [asyncio.create_task(batcher.submit(0, FAR))]
        assert await asyncio.to_thread(self.running.wait, 10)
        tasks += [asyncio.create_task(batcher.submit(item, deadline)) for item, deadline in enumerate(deadlines, 1)]
        await asyncio.sleep(0)
        return tasks


@pytest.mark.parametrize("guilty", range(1, 9))
async def test_only_the_guilty_of_a_failing_batch_sees_the_error(guilty: int) -> None:
    device = Device(guilty=frozenset({guilty}))
    batcher = device.batcher()
    tasks = await device.queue_up(batcher, [FAR] * 8)
    device.open.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [item for item, answer in enumerate(answers) if isinstance(answer, ArithmeticError)]
    assert failed == [guilty]
    assert all(answer.output == item * 10 for item, answer in enumerate(answers) if isinstance(answer, Batched))
    # The one before it, the batch of eight, and two halves at each of three levels.
    assert len(device.batches) == 1 + 1 + 2 * 3
    await batcher.close()


async def test_several_guilty_ones_are_found_each() -> None:
    device = Device(guilty=frozenset({2, 3, 7}))
    batcher = device.batcher()
    tasks = await device.queue_up(batcher, [FAR] * 8)
    device.open.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert {item for item, answer in enumerate(answers) if isinstance(answer, ArithmeticError)} == device.guilty
    await batcher.close()


async def test_a_cancelled_request_frees_its_place_at_once() -> None:
    device = Device()
    batcher = device.batcher()
    running, goes, stays = await device.queue_up(batcher, [FAR, FAR])
    assert batcher.queue_length == 2
    goes.cancel()
    await asyncio.sleep(0)
    assert batcher.queue_length == 1
    device.open.set()
    await asyncio.gather(running, stays)
    assert device.batches == [[0], [2]]
    await batcher.close()


async def test_a_batch_is_cut_short_for_the_earliest_deadline() -> None:
    """Request 0 ends at 1, and four more fit before 5.5; a picture takes as long in any batch."""
    device = Device(each_s=1.0)
    batcher = device.batcher()
    tasks = await device.queue_up(batcher, [FAR, 5.5, *[FAR] * 6])
    device.open.set()
    await asyncio.gather(*tasks)
    assert device.batches == [[0], [2, 1, 3, 4], [5, 6, 7, 8]]
    await batcher.close()


async def test_a_deadline_that_is_lost_anyway_cuts_nothing() -> None:
    """By the forecast; since a pass was once faster than that, it goes along."""
    device = Device(each_s=1.0)
    batcher = device.batcher()
    tasks = await device.queue_up(batcher, [FAR, 2.0, *[FAR] * 6])
    device.forward_s[1:] = [size * 1.1 for size in range(1, LARGEST + 1)]
    device.open.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [len(batch) for batch in device.batches] == [1, 7]
    await batcher.close()


@pytest.mark.parametrize("foresight", [True, False])
async def test_a_device_that_is_as_fast_for_sixteen_as_for_one_is_not_given_single_ones(foresight: bool) -> None:
    """Batches of one for each deadline would be a sixteenth of the throughput, and the next deadlines lost."""
    device = Device(fixed_s=10.0, each_s=0.1)
    batcher = device.batcher(foresight=foresight)
    tasks = await device.queue_up(batcher, [device.forward_s[1] * 2 + 0.01, *[FAR] * 15])
    device.open.set()
    await asyncio.gather(*tasks)
    assert len(device.batches[1]) == LARGEST
    await batcher.close()


@pytest.mark.parametrize("fixed_s", [0.0, 0.5, 2.0, 10.0])
async def test_deadlines_cost_little_throughput(fixed_s: float) -> None:
    """However dense they are: against the same load without foresight, on the device's own clock."""
    took_s = {}
    for foresight in (True, False):
        device = Device(fixed_s=fixed_s, each_s=1.0)
        batcher = device.batcher(foresight=foresight)
        tasks = await device.queue_up(batcher, [20.0 + 5.0 * item for item in range(64)])
        device.open.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        took_s[foresight] = device.now / sum(isinstance(answer, Batched) for answer in answers)
        await batcher.close()
    assert took_s[True] <= took_s[False] / 0.8
