"""The batcher: what goes into a batch, in which order, and what never does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.batcher import Batched, Batcher
from service.batching.slot import DeviceSlot
from service.domain.errors import DeadlineMissedError, NotReadyError, OverloadedError

FAR = 1e9


class Gate:
    """A forward pass that waits until the test lets it go, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = threading.Event()
        self._permits = threading.Semaphore(0)

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.running.set()
        assert self._permits.acquire(timeout=10), "the test never opened the gate"
        return [item * 10 for item in items]

    def open(self, times: int = 1000) -> None:
        self._permits.release(times)


def tens(items: Sequence[int]) -> list[int]:
    return [item * 10 for item in items]


def submit(batcher: Batcher[int, int], item: int, deadline: float = FAR) -> asyncio.Task[Batched[int]]:
    return asyncio.create_task(batcher.submit(item, deadline))


async def until(condition: threading.Event) -> None:
    """Waits for what another thread sets, without holding the loop."""
    assert await asyncio.get_running_loop().run_in_executor(None, condition.wait, 10)


async def test_a_lone_request_is_a_batch_of_one() -> None:
    batcher = Batcher(tens, DeviceSlot(), max_batch_size=8, max_queue=10)
    answer = await batcher.submit(4, FAR)
    assert (answer.output, answer.batch_size) == (40, 1)
    await batcher.close()


async def test_what_queues_while_the_device_is_busy_is_the_next_batch() -> None:
    gate = Gate()
    batcher = Batcher(gate, DeviceSlot(), max_batch_size=4, max_queue=100)
    first = submit(batcher, 0)
    await until(gate.running)
    rest = [submit(batcher, item) for item in range(1, 7)]
    await asyncio.sleep(0)
    gate.open()
    answers = [await task for task in (first, *rest)]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert [answer.output for answer in answers] == [0, 10, 20, 30, 40, 50, 60]
    assert [answer.batch_size for answer in answers] == [1, 4, 4, 4, 4, 2, 2]
    await batcher.close()


async def test_the_earliest_deadline_goes_first() -> None:
    gate = Gate()
    batcher = Batcher(gate, DeviceSlot(), max_batch_size=2, max_queue=100)
    first = submit(batcher, 0)
    await until(gate.running)
    rest = [submit(batcher, item, FAR + deadline) for item, deadline in ((1, 40), (2, 10), (3, 30), (4, 20))]
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(first, *rest)
    assert gate.batches == [[0], [2, 4], [3, 1]]
    await batcher.close()


async def test_a_cancelled_request_is_never_run() -> None:
    gate = Gate()
    batcher = Batcher(gate, DeviceSlot(), max_batch_size=4, max_queue=100)
    first = submit(batcher, 0)
    await until(gate.running)
    goes, stays = submit(batcher, 1), submit(batcher, 2)
    await asyncio.sleep(0)
    goes.cancel()
    gate.open()
    await asyncio.gather(first, stays)
    assert gate.batches == [[0], [2]]
    await batcher.close()


async def test_a_hopeless_request_is_dropped_before_the_forward_pass() -> None:
    now = 100.0
    gate = Gate()
    batcher = Batcher(gate, DeviceSlot(), max_batch_size=4, max_queue=100, clock=lambda: now)
    first = submit(batcher, 0)
    await until(gate.running)
    late, fine = submit(batcher, 1, deadline=150.0), submit(batcher, 2, deadline=350.0)
    await asyncio.sleep(0)
    now = 200.0
    gate.open()
    await asyncio.gather(first, fine)
    with pytest.raises(DeadlineMissedError, match="100000 ms in the queue"):
        await late
    assert gate.batches == [[0], [2]]
    await batcher.close()


async def test_the_fastest_forward_pass_counts_towards_the_deadline() -> None:
    """Once a pass is known to take 10 s at best, a deadline 5 s away is lost."""
    times = iter([0.0, 0.0, 0.0, 10.0] + [10.0] * 10)
    batcher = Batcher(tens, DeviceSlot(), max_batch_size=4, max_queue=100, clock=lambda: next(times))
    await batcher.submit(0, FAR)
    with pytest.raises(DeadlineMissedError):
        await batcher.submit(1, 15.0)
    assert (await batcher.submit(2, 25.0)).output == 20
    await batcher.close()


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    gate = Gate()
    batcher = Batcher(gate, DeviceSlot(), max_batch_size=1, max_queue=2)
    running = submit(batcher, 0)
    await until(gate.running)
    waiting = [submit(batcher, item) for item in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError) as refused:
        await batcher.submit(3, FAR)
    assert refused.value.retry_after_s > 0
    gate.open()
    await asyncio.gather(running, *waiting)
    assert (await batcher.submit(4, FAR)).output == 40
    await batcher.close()


async def test_a_failing_batch_fails_its_callers_and_no_later_one() -> None:
    def run(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise RuntimeError("bad luck")
        return tens(items)

    batcher = Batcher(run, DeviceSlot(), max_batch_size=4, max_queue=100)
    with pytest.raises(RuntimeError, match="bad luck"):
        await batcher.submit(13, FAR)
    assert (await batcher.submit(1, FAR)).output == 10
    await batcher.close()


async def test_batchers_on_one_slot_take_turns() -> None:
    """One network under load does not starve another on the same device."""
    order: list[str] = []
    slot = DeviceSlot()

    def recorded(name: str) -> Batcher[int, int]:
        def run(items: Sequence[int]) -> list[int]:
            order.append(name)
            return tens(items)

        return Batcher(run, slot, max_batch_size=1, max_queue=100)

    busy, quiet = recorded("busy"), recorded("quiet")
    tasks = [submit(busy, item) for item in range(6)] + [submit(quiet, item) for item in range(3)]
    await asyncio.gather(*tasks)
    assert order == ["busy", "quiet", "busy", "quiet", "busy", "quiet", "busy", "busy", "busy"]
    await busy.close()
    await quiet.close()


async def test_closing_answers_everybody() -> None:
    gate = Gate()
    batcher = Batcher(gate, DeviceSlot(), max_batch_size=1, max_queue=100)
    running = submit(batcher, 0)
    await until(gate.running)
    waiting = submit(batcher, 1)
    await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.close())
    with pytest.raises(NotReadyError):
        await waiting
    gate.open()
    assert (await running).output == 0
    await closing
    with pytest.raises(NotReadyError):
        await batcher.submit(2, FAR)


@given(
    deadlines=st.lists(st.integers(0, 50), min_size=1, max_size=40),
    max_batch_size=st.integers(1, 9),
)
def test_batches_are_the_sorted_queue_cut_into_pieces(deadlines: list[int], max_batch_size: int) -> None:
    """Against brute force: sort by deadline, then by arrival, and cut."""

    async def batches() -> list[list[int]]:
        gate = Gate()
        batcher = Batcher(gate, DeviceSlot(), max_batch_size=max_batch_size, max_queue=1000)
        first = submit(batcher, -1)
        await until(gate.running)
        rest = [submit(batcher, item, FAR + deadline) for item, deadline in enumerate(deadlines)]
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(first, *rest)
        await batcher.close()
        return gate.batches[1:]

    expected = sorted(range(len(deadlines)), key=lambda item: (deadlines[item], item))
    cut = [expected[i : i + max_batch_size] for i in range(0, len(expected), max_batch_size)]
    assert asyncio.run(batches()) == cut
