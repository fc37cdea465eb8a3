"""The batcher on a device that copies while it computes, and what joins a batch before it is taken."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.batcher import Batched
from service.batching.slot import DeviceSlot
from tests.batching import FAR, Gate, Runner, batcher, submit, tens, until
from tests.clock import Clock


class Pipeline(Runner):
    """A device that takes a batch while it computes another; the test lets each end."""

    overlaps = True

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(self._unlucky)
        self.events: list[str] = []
        self.begun = threading.Event()
        self.recovers = True
        """Whether the pass that follows one that failed succeeds."""
        self._clock = clock
        self._permits = threading.Semaphore(0)

    def begin(self, items: Sequence[int]) -> Callable[[], list[int]]:
        self.events.append(f"begin {list(items)}")
        if 13 in items:
            raise ArithmeticError("unlucky")
        self.begun.set()

        def finish() -> list[int]:
            assert self._permits.acquire(timeout=10), "the test never let it end"
            if self._clock is not None:
                self._clock.now += 1.0
            self.events.append(f"end {list(items)}")
            return tens(items)

        return finish

    def _unlucky(self, items: Sequence[int]) -> list[int]:
        self.events.append(f"run {list(items)}")
        if 13 in items and not self.recovers:
            raise ArithmeticError("unlucky")
        return tens(items)

    def end(self, times: int = 1000) -> None:
        self._permits.release(times)


async def test_a_full_batch_begins_before_the_one_before_it_has_ended() -> None:
    pipeline = Pipeline()
    served = batcher(pipeline, limit=2)
    tasks = [submit(served, item) for item in range(5)]
    await until(pipeline.begun)
    pipeline.end()
    assert [(await task).output for task in tasks] == [0, 10, 20, 30, 40]
    # The last batch is not full, and so it is not fixed while another runs.
    assert pipeline.events == ["begin [0, 1]", "begin [2, 3]", "end [0, 1]", "end [2, 3]", "begin [4]", "end [4]"]
    await served.close()


async def test_passes_that_overlap_do_not_count_the_same_time_twice() -> None:
    """Five passes end one second after the other. Each item but the first two waits for the pass before its own."""
    clock = Clock(0.0)
    pipeline = Pipeline(clock)
    served = batcher(pipeline, limit=2, clock=clock)
    tasks = [submit(served, item) for item in range(9)]
    await until(pipeline.begun)
    pipeline.end()
    answers = await asyncio.gather(*tasks)
    await served.close()
    told = [(started, started + seconds) for _, started, seconds, _ in pipeline.learned]
    assert len(told) == 5
    assert all(ended <= began for (_, ended), (began, _) in pairwise(told))
    assert [ended - began for began, ended in told] == [1.0] * 5
    # The first is begun alone. The last one is not full, and is begun when the one before it has ended.
    assert [answer.forward_s for answer in answers[::2]] == [1.0, 2.0, 2.0, 2.0, 1.0]


async def test_nothing_begins_early_while_another_checkpoint_waits() -> None:
    pipeline, slot = Pipeline(), DeviceSlot()

    def other(items: Sequence[int]) -> list[int]:
        pipeline.events.append(f"other {list(items)}")
        return tens(items)

    first, second = batcher(pipeline, slot, limit=2), batcher(other, slot, limit=2)
    tasks = [submit(first, item) for item in range(4)]
    await until(pipeline.begun)
    # The second batch is on the device by now, and a third one is full.
    tasks += [submit(second, 7), *(submit(first, item, FAR + 1) for item in range(4, 6))]
    await asyncio.sleep(0)
    pipeline.end()
    assert [(await task).output for task in tasks] == [0, 10, 20, 30, 70, 40, 50]
    assert pipeline.events[-3:] == ["other [7]", "begin [4, 5]", "end [4, 5]"]
    await first.close()
    await second.close()


async def test_nothing_begins_while_the_batcher_closes() -> None:
    pipeline = Pipeline()
    served = batcher(pipeline, limit=2)
    running = [submit(served, item) for item in range(2)]
    await until(pipeline.begun)
    waiting = [submit(served, item) for item in range(2, 4)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(served.close())
    await asyncio.sleep(0)
    pipeline.end()
    assert [(await task).output for task in running] == [0, 10]
    await closing
    await asyncio.gather(*waiting, return_exceptions=True)
    assert pipeline.events == ["begin [0, 1]", "end [0, 1]"]


@pytest.mark.parametrize("recovers", [True, False])
async def test_a_batch_that_fails_to_begin_is_run_again_without_looking_ahead(recovers: bool) -> None:
    """Only its own callers see the error, and only if it fails again."""
    pipeline = Pipeline()
    pipeline.recovers = recovers
    served = batcher(pipeline, limit=2)
    tasks = [submit(served, item) for item in (1, 2, 12, 13, 3, 4)]
    await until(pipeline.begun)
    pipeline.end()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [isinstance(answer, ArithmeticError) for answer in answers]
    assert failed == [False, False, not recovers, not recovers, False, False]
    assert pipeline.events.count("run [12, 13]") == 1
    await served.close()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_every_item_is_answered_with_its_own_output(items: list[int]) -> None:
    async def run() -> list[int]:
        pipeline = Pipeline()
        pipeline.end(10_000)
        served = batcher(pipeline, limit=2)
        answers = await asyncio.gather(*(submit(served, item) for item in items))
        await served.close()
        assert sum(event.startswith("begin") for event in pipeline.events) >= len(items) / 2
        return [answer.output for answer in answers]

    assert asyncio.run(run()) == tens(items)


class Moments:
    """The event loop's own clock, which timers go by, stopped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)

    async def turns(self) -> None:
        """Lets everything happen that needs no time."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def answers(self, *tasks: asyncio.Task[Batched[int]]) -> list[Batched[int]]:
        """Waits by the real clock."""
        for _ in range(500):
            if all(task.done() for task in tasks):
                return [task.result() for task in tasks]
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.01)
        raise TimeoutError("a batch still waits")


async def test_a_batch_with_room_waits_five_milliseconds_for_arriving_items_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What arrives may never be submitted: a picture may be broken, or its caller gone."""
    runner, moments = Runner(Gate()), Moments(monkeypatch)
    gate = runner._forward
    assert isinstance(gate, Gate)
    runner.arriving = 1
    served = batcher(runner)
    task = submit(served, 1)
    await moments.turns()
    moments.now += 0.0049
    await moments.turns()
    assert gate.batches == []
    moments.now += 0.0002
    await moments.turns()
    await until(gate.running)
    assert gate.batches == [[1]]
    gate.open()
    (answer,) = await moments.answers(task)
    assert answer.batch_size == 1
    await served.close()


async def test_a_batch_takes_along_what_arrives_within_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, moments = Runner(), Moments(monkeypatch)
    runner.arriving = 2
    served = batcher(runner)
    tasks = [submit(served, 1)]
    await moments.turns()
    runner.arriving = 1
    tasks.append(submit(served, 2))
    await moments.turns()
    assert not tasks[0].done()
    runner.arriving = 0
    tasks.append(submit(served, 3))
    assert [answer.batch_size for answer in await moments.answers(*tasks)] == [3, 3, 3]
    await served.close()


async def test_a_batch_that_waits_for_arriving_items_goes_as_soon_as_it_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner, moments = Runner(), Moments(monkeypatch)
    runner.arriving = 9
    served = batcher(runner, limit=2)
    tasks = [submit(served, 1)]
    await moments.turns()
    tasks.append(submit(served, 2))
    assert [answer.batch_size for answer in await moments.answers(*tasks)] == [2, 2]
    await served.close()


async def test_an_arriving_item_that_will_not_be_submitted_keeps_no_batch_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner, moments = Runner(), Moments(monkeypatch)
    runner.arriving = 1
    served = batcher(runner)
    task = submit(served, 1)
    await moments.turns()
    assert not task.done()
    runner.arriving = 0
    served.arriving_changed()
    (answer,) = await moments.answers(task)
    assert answer.batch_size == 1
    await served.close()


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_batch_waits_for_nothing_while_another_checkpoint_waits_for_the_slot(
    monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    moments, gate, slot, arriving = Moments(monkeypatch), Gate(), DeviceSlot(), Runner()
    arriving.arriving = 1
    holding, first, second = batcher(gate, slot), batcher(arriving, slot), batcher(tens, slot)
    tasks = []
    if when == "before":
        tasks.append(submit(holding, 0))
        await until(gate.running)
    tasks.append(submit(first, 1))
    await moments.turns()
    tasks.append(submit(second, 2))
    await moments.turns()
    gate.open()
    if when == "meanwhile":
        # The batch looks again when something arrives; until then it has its moment.
        tasks.append(submit(first, 3))
    outputs = [answer.output for answer in await moments.answers(*tasks)]
    assert outputs == {"before": [0, 10, 20], "meanwhile": [10, 20, 30]}[when]
    for served in (holding, first, second):
        await served.close()


async def test_requests_that_are_here_already_are_one_batch() -> None:
    served = batcher(limit=16)

    async def a_little_later(turns: int) -> Batched[int]:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await served.submit(turns, FAR)

    answers = await asyncio.gather(*(a_little_later(turns) for turns in range(6)))
    assert {answer.batch_size for answer in answers} == {6}
    await served.close()
