"""Virtual time: it jumps from timer to timer, and what blocks takes what it spends."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.twin.cores import SharedCores
from service.twin.loop import StuckError, VirtualLoop, VirtualThreads


@pytest.fixture
def loop() -> Any:
    made = VirtualLoop()
    yield made
    made.close()


def test_a_day_passes_at_once(loop: VirtualLoop) -> None:
    began, real = loop.time(), time.monotonic()
    loop.run_until_complete(asyncio.sleep(86_400))
    assert loop.time() - began == pytest.approx(86_400)
    assert time.monotonic() - real < 5


def test_timers_go_by_their_times_and_equal_ones_as_they_were_set(loop: VirtualLoop) -> None:
    order: list[str] = []

    async def main() -> None:
        now = loop.time()
        loop.call_at(now + 2, order.append, "later")
        for name in "abc":
            loop.call_at(now + 1, order.append, name)
        loop.call_at(now + 1, order.append, "never").cancel()
        await asyncio.sleep(3)

    loop.run_until_complete(main())
    assert order == ["a", "b", "c", "later"]


def test_work_that_waits_for_nothing_takes_no_time(loop: VirtualLoop) -> None:
    async def main() -> float:
        began = loop.time()
        for _ in range(100):
            await asyncio.sleep(0)
        return loop.time() - began

    assert loop.run_until_complete(main()) == 0


def test_a_cancelled_timer_does_not_move_the_clock(loop: VirtualLoop) -> None:
    async def main() -> float:
        began = loop.time()
        loop.call_later(5, print).cancel()
        await asyncio.sleep(1)
        return loop.time() - began

    assert loop.run_until_complete(main()) == pytest.approx(1)


def test_blocking_work_takes_what_it_spends_beside_other_work(loop: VirtualLoop) -> None:
    """Within the work the clock shows what it has spent, as a thread's would."""
    seen: list[float] = []

    def work() -> str:
        loop.spend(2)
        seen.append(loop.time())
        loop.spend(1)
        return "done"

    async def main() -> tuple[str, float, float]:
        began = loop.time()
        answer = loop.run_in_executor(ThreadPoolExecutor(1), work)
        await asyncio.sleep(1)
        beside = loop.time() - began
        return await answer, beside, loop.time() - began

    began = loop.time()
    result, beside, whole = loop.run_until_complete(main())
    assert (result, beside, whole) == ("done", pytest.approx(1), pytest.approx(3))
    assert seen == [pytest.approx(began + 2)]


def test_an_executor_is_one_thread_and_two_are_two(loop: VirtualLoop) -> None:
    one, other = ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    async def main() -> list[float]:
        began, ends = loop.time(), []

        async def do(executor: ThreadPoolExecutor) -> None:
            await loop.run_in_executor(executor, loop.spend, 2.0)
            ends.append(loop.time() - began)

        await asyncio.gather(do(one), do(one), do(other))
        return sorted(ends)

    assert loop.run_until_complete(main()) == [pytest.approx(2), pytest.approx(2), pytest.approx(4)]


def test_errors_come_when_the_work_is_over(loop: VirtualLoop) -> None:
    def work() -> None:
        loop.spend(4)
        raise ValueError("no")

    async def main() -> float:
        began = loop.time()
        with pytest.raises(ValueError, match="no"):
            await loop.run_in_executor(None, work)
        return loop.time() - began

    assert loop.run_until_complete(main()) == pytest.approx(4)


def test_outside_of_threads_spending_blocks_the_loop(loop: VirtualLoop) -> None:
    async def main() -> float:
        began, woke = loop.time(), []
        loop.call_later(1, lambda: woke.append(loop.time() - began))
        loop.spend(3)
        await asyncio.sleep(0.5)
        return woke[0]

    assert loop.run_until_complete(main()) == pytest.approx(3)


def test_waiting_for_nothing_is_an_error(loop: VirtualLoop) -> None:
    async def main() -> None:
        await loop.create_future()

    with pytest.raises(StuckError):
        loop.run_until_complete(main())


def test_threads_serve_as_many_at_once_as_there_are_first_come_first_served(loop: VirtualLoop) -> None:
    threads = VirtualThreads(loop, 2)

    async def main() -> list[tuple[int, float]]:
        began, ends = loop.time(), []

        async def do(number: int) -> None:
            await asyncio.wrap_future(threads.submit(loop.spend, 1.0))
            ends.append((number, loop.time() - began))

        await asyncio.gather(*map(do, range(5)))
        return ends

    ends = loop.run_until_complete(main())
    assert [number for number, _ in ends] == [0, 1, 2, 3, 4]
    assert [seconds for _, seconds in ends] == pytest.approx([1, 1, 2, 2, 3])


def test_who_has_gone_is_passed_over(loop: VirtualLoop) -> None:
    """Work that has begun goes on; work that waits is dropped with whoever wanted it."""
    threads, done = VirtualThreads(loop, 1), []

    async def main() -> float:
        began = loop.time()
        begun, waiting, last = (threads.submit(lambda n=n: (loop.spend(1), done.append(n))) for n in range(3))
        assert begun.cancel()
        assert waiting.cancel()
        await asyncio.wrap_future(last)
        return loop.time() - began

    assert loop.run_until_complete(main()) == pytest.approx(2)
    assert done == [0, 2]


def test_shutting_down_drops_what_waits(loop: VirtualLoop) -> None:
    threads = VirtualThreads(loop, 1)
    threads.submit(loop.spend, 1.0)
    waiting = threads.submit(loop.spend, 1.0)
    threads.shutdown(cancel_futures=True)
    assert waiting.cancelled()


def test_on_shared_cores_what_computes_there_slows_down_and_nothing_else(loop: VirtualLoop) -> None:
    """Four seconds of two threads and one of one are 4.5 s of two cores; a GPU does not mind."""
    loop.cores = SharedCores(loop, 2)

    async def main() -> list[float]:
        began = loop.time()

        async def do(seconds: float, threads: int) -> float:
            await loop.run_in_executor(ThreadPoolExecutor(1), loop.spend, seconds, threads)
            return loop.time() - began

        return await asyncio.gather(do(4.0, 2), do(1.0, 1), do(4.0, 0))

    assert loop.run_until_complete(main()) == pytest.approx([4.5, 1.5, 4.0])


def test_errors_come_late_on_shared_cores_too(loop: VirtualLoop) -> None:
    loop.cores = SharedCores(loop, 1)

    def work() -> None:
        loop.spend(4, 2)
        raise ValueError("no")

    async def main() -> float:
        began = loop.time()
        with pytest.raises(ValueError, match="no"):
            await loop.run_in_executor(None, work)
        return loop.time() - began

    assert loop.run_until_complete(main()) == pytest.approx(8)
