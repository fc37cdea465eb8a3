"""The batcher: what goes into a batch and in which order, and what its callers get."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.batcher import Batched, Batcher
from service.batching.queue import Batch
from service.batching.slot import DeviceSlot
from service.domain.errors import DeadlineMissedError, NotReadyError, OverloadedError
from tests.batching import FAR, FixedLimit, Gate, Runner, batcher, submit, tens, until
from tests.clock import Clock


async def test_a_lone_request_is_a_batch_of_one() -> None:
    served = batcher()
    answer = await served.submit(4, FAR)
    assert (answer.output, answer.batch_size) == (40, 1)
    await served.close()


async def test_items_that_queue_while_the_device_is_busy_are_the_next_batch() -> None:
    gate = Gate()
    served = batcher(gate, limit=4)
    first = submit(served, 0)
    await until(gate.running)
    rest = [submit(served, item) for item in range(1, 7)]
    await asyncio.sleep(0)
    gate.open()
    answers = [await task for task in (first, *rest)]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert [answer.output for answer in answers] == [0, 10, 20, 30, 40, 50, 60]
    assert [answer.batch_size for answer in answers] == [1, 4, 4, 4, 4, 2, 2]
    await served.close()


@pytest.mark.parametrize("size", [1, 4])
async def test_no_batch_is_larger_than_the_limit(size: int) -> None:
    served = batcher(limit=size)
    answers = await asyncio.gather(*(served.submit(item, FAR) for item in range(8)))
    assert {answer.batch_size for answer in answers} == {size}
    await served.close()


async def test_short_batches_run_on_the_event_loop_and_longer_ones_on_the_slots_thread() -> None:
    threads: dict[int, int] = {}

    def forward(items: Sequence[int]) -> Sequence[int]:
        threads[len(items)] = threading.get_ident()
        return tens(items)

    runner = Runner(forward)
    runner.at_once_up_to = 2
    served = Batcher(runner, DeviceSlot(), FixedLimit(4), max_queue=99)
    for size in (2, 3):
        answers = await asyncio.gather(*(served.submit(item, FAR) for item in range(size)))
        assert [answer.output for answer in answers] == [10 * item for item in range(size)]
    await served.close()
    assert threads[2] == threading.get_ident() != threads[3]


async def test_the_earliest_deadline_goes_first() -> None:
    gate = Gate()
    served = batcher(gate, limit=2)
    first = submit(served, 0)
    await until(gate.running)
    rest = [submit(served, item, FAR + deadline) for item, deadline in ((1, 40), (2, 10), (3, 30), (4, 20))]
    await asyncio.sleep(0)
    assert [served.ahead_of(FAR + deadline) for deadline in (9, 10, 20, 50)] == [0, 1, 2, 4]
    gate.open()
    await asyncio.gather(first, *rest)
    assert gate.batches == [[0], [2, 4], [3, 1]]
    await served.close()


async def test_a_cancelled_request_is_never_run() -> None:
    gate = Gate()
    served = batcher(gate)
    first = submit(served, 0)
    await until(gate.running)
    cancelled, stays = submit(served, 1), submit(served, 2)
    await asyncio.sleep(0)
    cancelled.cancel()
    gate.open()
    await asyncio.gather(first, stays)
    assert gate.batches == [[0], [2]]
    await served.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_caller_who_goes_while_the_batch_runs_disturbs_nobody(fails: bool) -> None:
    gate = Gate()

    def run(items: Sequence[int]) -> list[int]:
        outputs = gate(items)
        if fails and 1 in items:
            raise ArithmeticError("bad luck")
        return outputs

    served = batcher(run)
    gone, stays = submit(served, 1), submit(served, 2)
    await until(gate.running)
    gone.cancel()
    await asyncio.sleep(0)
    gate.open()
    async with asyncio.timeout(5):
        answer, *_ = await asyncio.gather(stays, return_exceptions=True)
        assert isinstance(answer, ArithmeticError if fails else Batched)
        assert (await served.submit(3, FAR)).output == 30
    await served.close()


async def test_a_hopeless_request_is_dropped_before_the_forward_pass() -> None:
    clock, gate = Clock(100.0), Gate()
    served = batcher(gate, clock=clock)
    first = submit(served, 0)
    await until(gate.running)
    late, in_time = submit(served, 1, deadline=150.0), submit(served, 2, deadline=350.0)
    await asyncio.sleep(0)
    assert served.oldest_s == 0
    clock.now = 200.0
    assert served.oldest_s == 100
    gate.open()
    await asyncio.gather(first, in_time)
    with pytest.raises(DeadlineMissedError, match="100000 ms in the queue"):
        await late
    assert gate.batches == [[0], [2]]
    await served.close()


@pytest.mark.parametrize(
    ("alone_s", "later_s", "answered"), [(30.0, 2, True), (60.0, 2, False), (math.inf, 2, False), (30.0, 0.9, False)]
)
async def test_passes_that_were_all_slow_do_not_make_a_request_hopeless_for_long(
    alone_s: float, later_s: float, answered: bool
) -> None:
    """The first pass takes 100 s while others use the machine; 50 are left for the next."""
    clock, gate = Clock(100.0), Gate()
    served = batcher(gate, clock=clock)
    served._runner.alone_s = alone_s  # type: ignore[misc]
    first = submit(served, 0)
    await until(gate.running)
    clock.now = 200.0
    gate.open()
    await first
    clock.now += later_s
    second = submit(served, 1, deadline=clock.now + 50)
    if answered:
        assert (await second).output == 10
    else:
        with pytest.raises(DeadlineMissedError):
            await second
    await served.close()


class Timed:
    """Forward passes that take as long as the test says, by the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.takes_s = 0.0

    def __call__(self, items: Sequence[int]) -> list[int]:
        self._clock.now += self.takes_s
        return tens(items)


async def test_a_deadline_that_even_the_fastest_pass_so_far_would_break_is_dropped() -> None:
    clock = Clock(0.0)
    forward = Timed(clock)
    served = batcher(forward, clock=clock)
    forward.takes_s = 10.0
    await served.submit(0, FAR)
    with pytest.raises(DeadlineMissedError):
        await served.submit(1, clock.now + 9.9)
    # Exactly on time is in time.
    assert (await served.submit(2, clock.now + 10.0)).output == 20
    await served.close()


@pytest.mark.parametrize("seconds", [(10.0, 1.0), (1.0, 10.0), (5.0, 1.0, 10.0)])
async def test_a_slow_pass_drops_nothing_that_a_faster_one_would_answer_in_time(seconds: Sequence[float]) -> None:
    clock = Clock(0.0)
    forward = Timed(clock)
    served = batcher(forward, clock=clock)
    for forward.takes_s in seconds:
        await served.submit(0, FAR)
    assert (await served.submit(1, clock.now + 5.0)).output == 10
    with pytest.raises(DeadlineMissedError):
        await served.submit(2, clock.now + 0.9)
    await served.close()


async def test_an_answer_tells_how_long_its_item_waited_and_ran() -> None:
    clock = Clock(0.0)
    forward, gate = Timed(clock), Gate()
    forward.takes_s = 10.0

    def run(items: Sequence[int]) -> list[int]:
        return forward(gate(items))

    served = batcher(run, clock=clock)
    first = submit(served, 0)
    await until(gate.running)
    clock.now = 3.0
    second = submit(served, 1)
    await asyncio.sleep(0)
    gate.open()
    assert await first == Batched(0, 1, queue_s=0.0, forward_s=13.0)
    assert await second == Batched(100, 1, queue_s=10.0, forward_s=10.0)
    await served.close()


async def test_a_full_queue_refuses_and_tells_when_there_is_room() -> None:
    """Items took a second each on average, and one more than fits wants in."""
    clock, gate = Clock(0.0), Gate()

    def run(items: Sequence[int]) -> list[int]:
        clock.now += 1.0
        return gate(items)

    served = batcher(run, limit=1, max_queue=2, clock=clock)
    gate.open(1)
    await served.submit(9, FAR)
    gate.running.clear()
    running = submit(served, 0)
    await until(gate.running)
    waiting = [submit(served, item) for item in (1, 2)]
    await asyncio.sleep(0)
    assert served.queue_length == 2
    with pytest.raises(OverloadedError) as refused:
        await served.submit(3, FAR)
    assert refused.value.retry_after_s == pytest.approx(1.0)
    with pytest.raises(OverloadedError) as refused:
        served.check_room(3)
    assert refused.value.retry_after_s == pytest.approx(3.0)
    gate.open()
    await asyncio.gather(running, *waiting)
    assert (await served.submit(4, FAR)).output == 40
    await served.close()


async def test_the_bytes_of_waiting_items_are_bounded() -> None:
    gate = Gate()
    served = batcher(gate, limit=1, max_queue_bytes=100)
    tasks = [asyncio.create_task(served.submit(0, FAR, 90))]
    await until(gate.running)
    # The item on the device does not wait any more.
    tasks.append(asyncio.create_task(served.submit(1, FAR, 60)))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await served.submit(2, FAR, 41)
    with pytest.raises(OverloadedError):
        served.check_room(1, 41)
    tasks.append(asyncio.create_task(served.submit(3, FAR, 40)))
    await asyncio.sleep(0)
    gate.open()
    assert [(await task).output for task in tasks] == [0, 10, 30]
    await served.close()


async def test_the_time_of_an_item_follows_the_last_batches_without_haste() -> None:
    clock = Clock(0.0)
    forward = Timed(clock)
    served = batcher(forward, max_queue=4, clock=clock)
    advice = []
    for forward.takes_s in (10.0, *[40.0] * 20):
        await asyncio.gather(*(served.submit(item, FAR) for item in range(4)))
        with pytest.raises(OverloadedError) as refused:
            served.check_room(5)
        advice.append(refused.value.retry_after_s)
    # A quarter of a batch of four.
    assert advice[0] == pytest.approx(2.5)
    assert advice == sorted(advice)
    assert advice[1] < 6.0
    assert advice[-1] == pytest.approx(10.0, rel=0.05)
    await served.close()


class Failing(Runner):
    """Passes that fail as often as the test says."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        super().__init__()
        self.batches: list[list[int]] = []
        self.failures = failures
        self.error = error or ArithmeticError("bad luck")

    def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        if len(self.batches) <= self.failures:
            raise self.error
        return tens(items)


async def test_a_batch_that_fails_is_run_again_and_answered() -> None:
    runner = Failing(1)
    served = batcher(runner)
    answers = await asyncio.gather(*(served.submit(item, FAR) for item in range(3)))
    assert [answer.output for answer in answers] == [0, 10, 20]
    assert runner.batches == [[0, 1, 2], [0, 1, 2]]
    assert [error for *_, error in runner.learned] == [runner.error, None]
    await served.close()


async def test_a_batch_that_fails_twice_fails_its_callers_and_no_later_one() -> None:
    runner = Failing(2)
    served = batcher(runner)
    answers = await asyncio.gather(*(served.submit(item, FAR) for item in range(3)), return_exceptions=True)
    assert answers == [runner.error] * 3
    assert runner.batches == [[0, 1, 2]] * 2
    assert [error for *_, error in runner.learned] == [runner.error] * 2
    assert (await served.submit(1, FAR)).output == 10
    await served.close()


async def test_the_time_of_a_pass_that_failed_is_not_that_of_the_next() -> None:
    clock = Clock(0.0)

    class Slow(Failing):
        def run(self, items: Sequence[int]) -> list[int]:
            clock.now += 5.0
            return super().run(items)

    runner = Slow(1)
    served = batcher(runner, clock=clock)
    assert await served.submit(1, FAR) == Batched(10, 1, queue_s=5.0, forward_s=5.0)
    assert [(started, seconds) for _, started, seconds, _ in runner.learned] == [(0.0, 5.0), (5.0, 5.0)]
    await served.close()


@pytest.mark.parametrize(
    "wrong", [lambda items: [*tens(items), 0], lambda items: tens(items)[:-1]], ids=["one", "less"]
)
async def test_a_pass_with_a_wrong_number_of_outputs_is_an_error_and_the_next_request_is_served(wrong: object) -> None:
    runner = Runner(wrong)  # type: ignore[arg-type]
    served = batcher(runner)
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(served.submit(item, FAR) for item in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [RuntimeError] * 3
        runner._forward = tens
        assert (await served.submit(1, FAR)).output == 10
    await served.close()


async def test_the_runner_is_told_of_each_batch() -> None:
    runner, clock = Runner(), Clock(7.0)
    served = batcher(runner, limit=2, clock=clock)
    await asyncio.gather(*(served.submit(item, FAR) for item in range(3)))
    assert [(batch.items, batch.cut, started, s, error) for batch, started, s, error in runner.learned] == [
        ([0, 1], "full", 7.0, 0.0, None),
        ([2], "drained", 7.0, 0.0, None),
    ]
    await served.close()


async def test_a_trace_follows_its_item() -> None:
    clock, events = Clock(1.0), list[tuple[str, float]]()

    class Trace:
        def queued(self, at: float) -> None:
            events.append(("queued", at))

        def taken(self, at: float) -> None:
            events.append(("taken", at))

    trace = Trace()
    runner = Failing(1)
    served = batcher(runner, clock=clock)
    waiting = asyncio.create_task(served.submit(1, FAR, trace=trace))
    await asyncio.sleep(0)
    clock.now = 2.0
    await waiting
    assert events == [("queued", 1.0), ("taken", 2.0), ("taken", 2.0)]
    batch: Batch[int, Batched[int]] = runner.learned[0][0]
    assert [ticket.trace for ticket in batch.tickets] == [trace]
    await served.close()


async def test_batchers_on_one_slot_take_turns() -> None:
    """A checkpoint under load does not starve another on the same device."""
    order: list[str] = []
    slot = DeviceSlot()

    def recorded(name: str) -> Batcher[int, int]:
        def run(items: Sequence[int]) -> list[int]:
            order.append(name)
            return tens(items)

        return batcher(run, slot, limit=1)

    busy, quiet = recorded("busy"), recorded("quiet")
    tasks = [submit(busy, item) for item in range(6)] + [submit(quiet, item) for item in range(3)]
    await asyncio.gather(*tasks)
    assert order == ["busy", "quiet", "busy", "quiet", "busy", "quiet", "busy", "busy", "busy"]
    await busy.close()
    await quiet.close()


async def test_an_urgent_item_of_another_checkpoint_goes_before_those_that_wait_already() -> None:
    gate, slot, order = Gate(), DeviceSlot(), list[int]()

    def run(items: Sequence[int]) -> list[int]:
        order.extend(items)
        return tens(items)

    holding, patient, urgent = batcher(gate, slot), batcher(run, slot), batcher(run, slot)
    tasks = [submit(holding, 0)]
    await until(gate.running)
    tasks.append(submit(patient, 1, FAR + 2))
    await asyncio.sleep(0)
    tasks.append(submit(urgent, 2, FAR + 1))
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(*tasks)
    assert order == [2, 1]
    for served in (holding, patient, urgent):
        await served.close()


async def test_the_slot_knows_how_long_the_running_and_the_next_batch_take() -> None:
    clock, gate = Clock(0.0), Gate()
    slot = DeviceSlot(clock=clock)
    runner = Runner(gate)
    runner.forward_s = (0.0, 10.0, 12.0, 14.0, 16.0)
    served = batcher(runner, slot, limit=2, clock=clock)
    tasks = [submit(served, item) for item in range(4)]
    await until(gate.running)
    assert slot.busy_until == 12.0
    gate.running.clear()
    clock.now = 5.0
    gate.open(1)
    await until(gate.running)
    assert slot.busy_until == 17.0
    gate.open()
    await asyncio.gather(*tasks)
    await served.close()


async def test_the_slot_is_told_the_time_of_the_next_batch_when_it_passes_to_it() -> None:
    clock = Clock(0.0)
    slot = DeviceSlot(clock=clock)
    runner = Runner()
    runner.forward_s = (0.0, 10.0, 12.0, 14.0, 16.0)
    served = batcher(runner, slot, limit=2, clock=clock)
    async with slot.taken():
        tasks = [submit(served, item) for item in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        clock.now = 5.0
    await asyncio.sleep(0)
    assert slot.busy_until == 17.0
    await asyncio.gather(*tasks)
    await served.close()


async def test_closing_answers_everybody() -> None:
    gate = Gate()
    served = batcher(gate, limit=1)
    running = submit(served, 0)
    await until(gate.running)
    waiting = submit(served, 1)
    await asyncio.sleep(0)
    closing = asyncio.create_task(served.close())
    with pytest.raises(NotReadyError):
        async with asyncio.timeout(5):
            await waiting
    gate.open()
    assert (await running).output == 0
    await closing
    with pytest.raises(NotReadyError):
        await served.submit(2, FAR)


async def test_an_idle_batcher_closes_at_once() -> None:
    served = batcher()
    await served.close()
    served = batcher()
    await served.submit(1, FAR)
    async with asyncio.timeout(5):
        await served.close()


async def test_a_request_that_comes_when_the_queue_was_empty_wakes_the_batcher() -> None:
    served = batcher()
    for item in range(3):
        async with asyncio.timeout(5):
            assert (await served.submit(item, time.monotonic() + 60)).output == item * 10
        await asyncio.sleep(0.001)
    await served.close()


@given(
    deadlines=st.lists(st.integers(0, 50), min_size=1, max_size=40),
    limit=st.integers(1, 9),
)
def test_batches_are_the_sorted_queue_cut_into_pieces(deadlines: list[int], limit: int) -> None:
    """Against brute force: sort by deadline, then by arrival, and cut."""

    async def batches() -> list[list[int]]:
        gate = Gate()
        served = batcher(gate, limit=limit, max_queue=1000)
        first = submit(served, -1)
        await until(gate.running)
        rest = [submit(served, item, FAR + deadline) for item, deadline in enumerate(deadlines)]
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(first, *rest)
        await served.close()
        return gate.batches[1:]

    expected = sorted(range(len(deadlines)), key=lambda item: (deadlines[item], item))
    cut = [expected[i : i + limit] for i in range(0, len(expected), limit)]
    assert asyncio.run(batches()) == cut
