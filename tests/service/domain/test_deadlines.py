"""Deadlines: what they end and what they let pass, near and far, on an event loop whose time the tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeAlias

import pytest

from service.domain.deadlines import Deadlines
from tests.loops import QuickLoop, run_quickly

Test: TypeAlias = Callable[[QuickLoop, Deadlines], Coroutine[object, object, None]]


@pytest.fixture
def run() -> Callable[[Test], None]:
    """Runs a coroutine function with a quick loop and the deadlines of that loop."""
    return lambda test: run_quickly(lambda loop: test(loop, Deadlines(loop.time)))


#: From the past and the present over near ones to far ones; a second is the border between near and far.
WITHIN_S = [-5.0, 0.0, 0.01, 0.4, 0.999, 1.0, 1.001, 1.25, 1.5, 2.0, 7.3, 30.0, 3600.0]


@pytest.mark.parametrize("within_s", WITHIN_S)
def test_work_ends_with_a_timeout_at_its_deadline(run: Callable[[Test], None], within_s: float) -> None:
    async def test(loop: QuickLoop, deadlines: Deadlines) -> None:
        began = loop.now
        with pytest.raises(TimeoutError) as timeout, deadlines.until(began + within_s):
            await asyncio.Event().wait()
        assert loop.now - began == pytest.approx(max(0.0, within_s))
        assert isinstance(timeout.value.__cause__, asyncio.CancelledError)
        # The task goes on as if nobody had cancelled it.
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        await asyncio.sleep(1)

    run(test)


@pytest.mark.parametrize("within_s", WITHIN_S[2:])
def test_work_that_is_over_before_its_deadline_is_left_alone(run: Callable[[Test], None], within_s: float) -> None:
    async def test(loop: QuickLoop, deadlines: Deadlines) -> None:
        began = loop.now
        with deadlines.until(began + within_s):
            await asyncio.sleep(within_s * 0.99)
        assert loop.now - began == pytest.approx(within_s * 0.99)
        # Nothing comes after it.
        await asyncio.sleep(2 * within_s)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    run(test)


@pytest.mark.parametrize("within_s", [0.5, 1.1, 30.0])
@pytest.mark.parametrize("error", [None, KeyError("a defect"), TimeoutError("the work's own")])
def test_no_timer_is_left_when_the_work_is_over(
    run: Callable[[Test], None], within_s: float, error: Exception | None
) -> None:
    async def test(loop: QuickLoop, deadlines: Deadlines) -> None:
        raised = None
        try:
            with deadlines.until(loop.now + within_s):
                # A far deadline has become near by now, except the last.
                await asyncio.sleep(0.9 * min(within_s, 1.1))
                if error is not None:
                    raise error
        except Exception as passed:
            raised = passed
        # An error passes as it is.
        assert raised is error
        # A deadline of its own has a timer no longer. The one that looks at far deadlines looks once more.
        assert loop.left <= (within_s > 2.0)
        set_before = loop.timers
        await asyncio.sleep(0.6)
        assert (loop.left, loop.timers - set_before) == (0, 1)

    run(test)


@pytest.mark.parametrize("within_s", [0.5, 1.1, 30.0])
def test_a_cancellation_by_somebody_else_passes(run: Callable[[Test], None], within_s: float) -> None:
    async def test(loop: QuickLoop, deadlines: Deadlines) -> None:
        began = loop.now

        async def work() -> None:
            with deadlines.until(loop.now + within_s):
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await asyncio.sleep(0.4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (task.cancelled(), task.cancelling()) == (True, 1)
        assert loop.now - began == pytest.approx(0.4)

    run(test)


def test_an_error_of_work_that_is_ended_passes_as_it_is(run: Callable[[Test], None]) -> None:
    async def test(loop: QuickLoop, deadlines: Deadlines) -> None:
        defect = KeyError("in the cleaning up")

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise defect

        with pytest.raises(KeyError) as raised, deadlines.until(loop.now + 0.5):
            await work()
        assert raised.value is defect
        # The deadline's cancellation is over nevertheless.
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    run(test)


@pytest.mark.parametrize("within_s", [0.5, 30.0])
@pytest.mark.parametrize("deadline_first", [True, False])
def test_a_cancellation_in_the_moment_of_the_deadline_passes_too(
    run: Callable[[Test], None], within_s: float, deadline_first: bool
) -> None:
    """Both cancel the task before it runs again. The deadline ends its own cancellation alone."""

    async def test(loop: QuickLoop, deadlines: Deadlines) -> None:
        async def work() -> None:
            with deadlines.until(at):
                await asyncio.Event().wait()

        at = loop.now + within_s
        task = loop.create_task(work())
        await asyncio.sleep(within_s - 0.25)  # the deadline is near, and has its timer
        loop.call_at(at + 1e-9 if deadline_first else at - 1e-9, task.cancel)
        # One turn of the loop runs both timers.
        loop.call_at(at - 1e-6, lambda: setattr(loop, "now", at + 1e-6))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1

    run(test)


def test_a_task_that_was_cancelled_before_its_deadline_is_told_of_the_deadline(run: Callable[[Test], None]) -> None:
    """A task that cleans up after a cancellation may do work with a deadline."""

    async def test(loop: QuickLoop, deadlines: Deadlines) -> None:
        told: list[str] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                try:
                    with deadlines.until(loop.now + 0.1):
                        await asyncio.Event().wait()
                except TimeoutError:
                    told.append("timeout")
                raise

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (told, task.cancelling()) == (["timeout"], 1)

    run(test)


@pytest.mark.parametrize(("inner_s", "outer_s"), [(0.2, 0.3), (0.3, 0.2), (3.0, 9.0), (9.0, 3.0), (0.2, 9.0)])
def test_of_two_deadlines_the_earlier_one_ends_its_own_block(
    run: Callable[[Test], None], inner_s: float, outer_s: float
) -> None:
    async def test(loop: QuickLoop, deadlines: Deadlines) -> None:
        began, ended = loop.now, []
        try:
            with deadlines.until(began + outer_s):
                try:
                    with deadlines.until(began + inner_s):
                        await asyncio.Event().wait()
                except TimeoutError:
                    ended.append("inner")
        except TimeoutError:
            ended.append("outer")
        assert ended == ["inner" if inner_s < outer_s else "outer"]
        assert loop.now - began == pytest.approx(min(inner_s, outer_s))

    run(test)


def test_many_far_deadlines_share_one_timer(run: Callable[[Test], None]) -> None:
    async def test(loop: QuickLoop, deadlines: Deadlines) -> None:
        release = asyncio.Event()

        async def work(within_s: float) -> str:
            with deadlines.until(loop.now + within_s):
                await release.wait()
                return "done"

        tasks = [asyncio.create_task(work(10.0 + n)) for n in range(100)]
        await asyncio.sleep(0)
        assert (loop.left, loop.timers) == (1, 1)
        await asyncio.sleep(3.1)
        # It has looked six times, and this test has slept once.
        assert (loop.left, loop.timers) == (1, 1 + 6 + 1)
        release.set()
        assert await asyncio.gather(*tasks) == ["done"] * 100
        await asyncio.sleep(5)
        # The next look finds nothing, and is the last.
        assert loop.left == 0
        assert loop.timers == 1 + 6 + 1 + 1

    run(test)


def test_looking_begins_again_after_a_pause(run: Callable[[Test], None]) -> None:
    async def test(loop: QuickLoop, deadlines: Deadlines) -> None:
        for _ in range(2):
            began = loop.now
            with pytest.raises(TimeoutError), deadlines.until(began + 4.0):
                await asyncio.Event().wait()
            assert loop.now - began == pytest.approx(4.0)
            await asyncio.sleep(10)

    run(test)


def test_far_deadlines_come_in_any_order(run: Callable[[Test], None]) -> None:
    async def test(loop: QuickLoop, deadlines: Deadlines) -> None:
        began, ended = loop.now, {}

        async def work(within_s: float) -> None:
            try:
                with deadlines.until(began + within_s):
                    await asyncio.Event().wait()
            except TimeoutError:
                ended[within_s] = loop.now - began

        await asyncio.gather(*map(work, WITHIN_S[2:][::-1]))
        assert ended == {within_s: pytest.approx(within_s) for within_s in WITHIN_S[2:]}
        assert list(ended) == WITHIN_S[2:]

    run(test)


def test_a_loop_that_was_held_up_ends_the_work_when_it_goes_on(run: Callable[[Test], None]) -> None:
    """A deadline that was far at the last look may have passed at the next."""

    async def test(loop: QuickLoop, deadlines: Deadlines) -> None:
        began = loop.now
        loop.call_later(0.2, lambda: setattr(loop, "now", began + 60))
        with pytest.raises(TimeoutError), deadlines.until(began + 5):
            await asyncio.Event().wait()
        assert loop.now - began == pytest.approx(60)

    run(test)


def test_work_whose_result_comes_in_the_moment_of_its_deadline_is_late(run: Callable[[Test], None]) -> None:
    """As with ``asyncio.timeout``. The task goes on all the same."""

    async def test(loop: QuickLoop, deadlines: Deadlines) -> None:
        at, answer = loop.now + 0.5, loop.create_future()
        # The result comes first, but the task does not run before the deadline's timer does, in the same turn.
        loop.call_at(at - 1e-9, answer.set_result, "done")
        loop.call_at(at - 1e-6, lambda: setattr(loop, "now", at + 1e-6))
        with pytest.raises(TimeoutError), deadlines.until(at):
            await answer
        await asyncio.sleep(1)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    run(test)
