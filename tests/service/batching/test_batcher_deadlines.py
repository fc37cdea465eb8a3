"""The batcher and deadlines: where a batch ends for one, and what that costs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from service.batching.batcher import Batched, Batcher
from tests.batching import FAR, Runner, batcher, submit, tens, until
from tests.clock import Clock

LARGEST = 16


class Device:
    """A device with a clock of its own, which waits for the test before its first batch."""

    def __init__(self, fixed_s: float = 0.0, each_s: float = 1.0) -> None:
        self.clock = Clock(0.0)
        self.batches: list[list[int]] = []
        self.running, self.open = threading.Event(), threading.Event()
        self.forward_s = [fixed_s + each_s * size for size in range(LARGEST + 1)]
        self.runner = Runner(self._run)

    def _run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.running.set()
        assert self.open.wait(5), "the test never opened it"
        self.clock.now += self.forward_s[len(items)]
        return tens(items)

    def batcher(self, *, foresight: bool = True) -> Batcher[int, int]:
        """A batcher that knows how long passes take, unless it is to have no foresight."""
        self.runner.forward_s = self.forward_s if foresight else ()
        return batcher(self.runner, limit=LARGEST, clock=self.clock)

    async def queue_up(self, served: Batcher[int, int], deadlines: Sequence[float]) -> list[asyncio.Task[Batched[int]]]:
        """Requests 1, 2, ... that wait behind request 0, which runs."""
        tasks = [submit(served, 0)]
        await until(self.running)
        tasks += [submit(served, item, deadline) for item, deadline in enumerate(deadlines, 1)]
        await asyncio.sleep(0)
        return tasks


async def test_a_cancelled_request_frees_its_place_at_once() -> None:
    device = Device()
    served = device.batcher()
    running, cancelled, stays = await device.queue_up(served, [FAR, FAR])
    assert served.queue_length == 2
    cancelled.cancel()
    await asyncio.sleep(0)
    assert served.queue_length == 1
    device.open.set()
    await asyncio.gather(running, stays)
    assert device.batches == [[0], [2]]
    await served.close()


async def test_a_batch_is_cut_short_for_the_earliest_deadline() -> None:
    """Request 0 ends at 1 s, and four more end before 5.5 s; an item takes as long in any batch."""
    device = Device(each_s=1.0)
    served = device.batcher()
    tasks = await device.queue_up(served, [FAR, 5.5, *[FAR] * 6])
    device.open.set()
    await asyncio.gather(*tasks)
    assert device.batches == [[0], [2, 1, 3, 4], [5, 6, 7, 8]]
    await served.close()


async def test_a_deadline_that_cannot_be_met_cuts_no_batch() -> None:
    """By the forecast it cannot be met. A pass was once faster than the forecast, so its item is run all the same."""
    device = Device(each_s=1.0)
    served = device.batcher()
    tasks = await device.queue_up(served, [FAR, 2.0, *[FAR] * 6])
    device.forward_s[1:] = [size * 1.1 for size in range(1, LARGEST + 1)]
    device.open.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [len(batch) for batch in device.batches] == [1, 7]
    await served.close()


@pytest.mark.parametrize("foresight", [True, False])
async def test_a_device_that_is_as_fast_for_sixteen_items_as_for_one_is_given_no_single_ones(foresight: bool) -> None:
    """A batch of one for each deadline would cost most of the throughput, and miss the deadlines that follow."""
    device = Device(fixed_s=10.0, each_s=0.1)
    served = device.batcher(foresight=foresight)
    tasks = await device.queue_up(served, [device.forward_s[1] * 2 + 0.01, *[FAR] * 15])
    device.open.set()
    await asyncio.gather(*tasks)
    assert len(device.batches[1]) == LARGEST
    await served.close()


@pytest.mark.parametrize("fixed_s", [0.0, 0.5, 2.0, 10.0])
async def test_deadlines_cost_little_throughput(fixed_s: float) -> None:
    """Compared with the same load without foresight, by the device's own clock."""
    took_s = {}
    for foresight in (True, False):
        device = Device(fixed_s=fixed_s, each_s=1.0)
        served = device.batcher(foresight=foresight)
        tasks = await device.queue_up(served, [20.0 + 5.0 * item for item in range(64)])
        device.open.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        took_s[foresight] = device.clock.now / sum(isinstance(answer, Batched) for answer in answers)
        await served.close()
    assert took_s[True] <= took_s[False] / 0.8
