"""Work on shared cores: it takes its time while there are enough, and all of it longer beyond."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from service.twin.cores import SharedCores
from service.twin.loop import VirtualLoop

#: When some work begins, what it takes alone, and on how many threads.
Work = tuple[float, float, int]


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    yield made
    made.close()


def ends(loop: VirtualLoop, cores: int, *works: Work) -> list[float]:
    """When each piece of work is over, in seconds after the beginning."""

    async def main() -> list[float]:
        began, shared = loop.time(), SharedCores(loop, cores)

        async def one(at: float, seconds: float, threads: int) -> float:
            over: asyncio.Future[None] = loop.create_future()
            if at:
                await asyncio.sleep(at)
            shared.run(seconds, threads, lambda: over.set_result(None))
            await over
            return loop.time() - began

        return await asyncio.gather(*(one(*work) for work in works))

    return loop.run_until_complete(main())


@pytest.mark.parametrize("threads", [1, 2])
def test_alone_work_takes_its_time(loop: VirtualLoop, threads: int) -> None:
    assert ends(loop, 2, (0, 2.0, threads), (5, 1.0, threads)) == pytest.approx([2, 6])


def test_as_many_threads_as_cores_do_not_slow_each_other_down(loop: VirtualLoop) -> None:
    assert ends(loop, 2, (0, 2.0, 1), (0.5, 3.0, 1)) == pytest.approx([2, 3.5])


def test_three_threads_on_two_cores_have_two_thirds_of_a_core_each(loop: VirtualLoop) -> None:
    """The decode takes 1.5 s. By then the pass has done one of its two seconds, and the other one takes a second: the
    five seconds of cores are two and a half of both."""
    assert ends(loop, 2, (0, 2.0, 2), (0, 1.0, 1)) == pytest.approx([2.5, 1.5])


def test_work_that_begins_later_slows_down_what_is_left(loop: VirtualLoop) -> None:
    """The pass has a second left when the decode comes, which is over 0.75 s later, and then half a second."""
    assert ends(loop, 2, (0, 2.0, 2), (1, 0.5, 1)) == pytest.approx([2.25, 1.75])


def test_the_shortest_of_many_ends_first_and_all_when_their_cores_have_done_everything(loop: VirtualLoop) -> None:
    """Three threads on a core: each has a third of it, then two a half."""
    assert ends(loop, 1, (0, 1.0, 1), (0, 2.0, 1), (0, 3.0, 1)) == pytest.approx([3, 5, 6])


def test_equal_work_ends_at_once_in_the_order_in_which_it_began(loop: VirtualLoop) -> None:
    order: list[int] = []

    async def main() -> float:
        began, shared = loop.time(), SharedCores(loop, 1)
        for number in range(5):
            shared.run(0.1, 1, lambda number=number: order.append(number))  # type: ignore[misc]
        await asyncio.sleep(0.49)
        assert order == []
        await asyncio.sleep(0.02)
        return loop.time() - began

    assert loop.run_until_complete(main()) == pytest.approx(0.51)
    assert order == [0, 1, 2, 3, 4]


def test_thousands_of_pieces_do_not_lose_time(loop: VirtualLoop) -> None:
    """Always more threads than cores: the last one is over when all seconds of cores have been worked."""
    works = [(0.0, 0.001 * (1 + number % 7), 1 + number % 2) for number in range(2000)]
    whole = sum(seconds * threads for _, seconds, threads in works)
    assert max(ends(loop, 1, *works)) == pytest.approx(whole, rel=1e-9)
