"""The batcher on a device that copies while it computes, and what it lets in before it takes a batch."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.batching.batcher import Batched, Batcher
from service.batching.slot import DeviceSlot

FAR = 1e9


def tens(items: Sequence[int]) -> list[int]:
    return [item * 10 for item in items]


def submit(batcher: Batcher[int, int], item: int) -> asyncio.Task[Batched[int]]:
    return asyncio.create_task(batcher.submit(item, FAR))


async def until(condition: threading.Event) -> None:
    """Waits for what another thread sets, without holding the loop."""
    assert await asyncio.get_running_loop().run_in_executor(None, condition.wait, 10)


class Pipeline:
    """A device that takes a batch while it computes another; the test lets each end."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.begun = threading.Event()
        self._permits = threading.Semaphore(0)

    def begin(self, items: Sequence[int]) -> Callable[[], list[int]]:
        self.events.append(f"begin {list(items)}")
        if 13 in items:
            raise ArithmeticError("unlucky")
        self.begun.set()

        def finish() -> list[int]:
            assert self._permits.acquire(timeout=10), "the test never let it end"
            self.events.append(f"end {list(items)}")
            return tens(items)

        return finish

    def end(self, times: int = 1000) -> None:
        self._permits.release(times)


def unlucky_tens(items: Sequence[int]) -> list[int]:
    if 13 in items:
        raise ArithmeticError("unlucky")
    return tens(items)


def ahead(pipeline: Pipeline, slot: DeviceSlot, run: Callable[[Sequence[int]], list[int]] = tens) -> Batcher[int, int]:
    return Batcher(run, slot, max_batch_size=2, max_queue=100, begin=lambda: pipeline.begin)


async def test_a_full_batch_begins_before_the_one_before_it_has_ended() -> None:
    pipeline = Pipeline()
    batcher = ahead(pipeline, DeviceSlot())
    tasks = [submit(batcher, item) for item in range(5)]
    await until(pipeline.begun)
    pipeline.end()
    assert [(await task).output for task in tasks] == [0, 10, 20, 30, 40]
    # The last is not full, and so not frozen while another runs.
    assert pipeline.events == ["begin [0, 1]", "begin [2, 3]", "end [0, 1]", "end [2, 3]", "begin [4]", "end [4]"]
    await batcher.close()


async def test_passes_that_overlap_do_not_count_the_same_time_twice() -> None:
    pipeline, told = Pipeline(), list[tuple[float, float]]()

    def learn(_batch: object, began: float, held_s: float, _error: Exception | None) -> None:
        told.append((began, began + held_s))

    batcher: Batcher[int, int] = Batcher(
        tens, DeviceSlot(), max_batch_size=2, max_queue=100, begin=lambda: pipeline.begin, learn=learn
    )
    started = time.monotonic()
    tasks = [submit(batcher, item) for item in range(9)]
    await until(pipeline.begun)
    await asyncio.sleep(0.02)
    pipeline.end()
    answers = await asyncio.gather(*tasks)
    took = time.monotonic() - started
    await batcher.close()
    assert len(told) == 5
    assert all(ended <= began for (_, ended), (began, _) in pairwise(told))
    assert sum(ended - began for began, ended in told) <= took
    # What a picture waits for its answer is another matter.
    assert sum(answer.forward_s for answer in answers[::2]) > sum(ended - began for began, ended in told)


async def test_nothing_begins_early_while_another_checkpoint_waits() -> None:
    pipeline, slot = Pipeline(), DeviceSlot()
    first, second = ahead(pipeline, slot), Batcher(tens, slot, max_batch_size=2, max_queue=100)
    tasks = [submit(first, item) for item in range(2)]
    await until(pipeline.begun)
    tasks += [submit(second, 7), *(submit(first, item) for item in range(2, 4))]
    await asyncio.sleep(0)
    pipeline.end()
    assert [(await task).output for task in tasks] == [0, 10, 70, 20, 30]
    assert pipeline.events == ["begin [0, 1]", "end [0, 1]", "begin [2, 3]", "end [2, 3]"]
    await first.close()
    await second.close()


async def test_only_the_guilty_of_a_batch_that_fails_to_begin_sees_the_error() -> None:
    """Its halves are run without looking ahead."""
    pipeline = Pipeline()
    batcher = ahead(pipeline, DeviceSlot(), run=unlucky_tens)
    tasks = [submit(batcher, item) for item in (1, 2, 12, 13, 3, 4)]
    await until(pipeline.begun)
    pipeline.end()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, ArithmeticError) for answer in answers] == [False, False, False, True, False, False]
    await batcher.close()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_every_item_is_answered_with_its_own_output(items: list[int]) -> None:
    async def run() -> list[int]:
        pipeline = Pipeline()
        pipeline.end(10_000)
        batcher = ahead(pipeline, DeviceSlot())
        answers = await asyncio.gather(*(submit(batcher, item) for item in items))
        await batcher.close()
        assert sum(event.startswith("begin") for event in pipeline.events) >= len(items) / 2
        return [answer.output for answer in answers]

    assert asyncio.run(run()) == tens(items)


async def test_a_batch_with_room_waits_a_moment_for_what_is_being_decoded() -> None:
    arriving = 2
    batcher = Batcher(tens, DeviceSlot(), max_batch_size=4, max_queue=100, arriving=lambda: arriving)
    first = submit(batcher, 1)
    await asyncio.sleep(0)
    arriving = 0
    second = submit(batcher, 2)
    assert [(await task).batch_size for task in (first, second)] == [2, 2]
    await batcher.close()


async def test_but_not_for_long() -> None:
    """Whatever is arriving may never come: its picture may be broken, or its caller gone."""
    batcher = Batcher(tens, DeviceSlot(), max_batch_size=4, max_queue=100, arriving=lambda: 1)
    assert (await submit(batcher, 1)).batch_size == 1
    await batcher.close()


async def test_requests_that_are_here_already_are_one_batch() -> None:
    batcher = Batcher(tens, DeviceSlot(), max_batch_size=16, max_queue=100)

    async def a_little_later(turns: int) -> Batched[int]:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await batcher.submit(turns, FAR)

    answers = await asyncio.gather(*(a_little_later(turns) for turns in range(6)))
    assert {answer.batch_size for answer in answers} == {6}
    await batcher.close()
