"""The device slot: who is next, and how long the device is busy."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest

from service.batching.slot import DeviceSlot
from tests.clock import Clock


class Hall:
    """Waiters for a slot, and the order in which they had it."""

    def __init__(self) -> None:
        self.clock = Clock(100.0)
        self.slot = DeviceSlot(clock=self.clock)
        self.order: list[str] = []

    async def take(self, name: str, deadline: float, expected_s: float = 0.0) -> None:
        async with self.slot.taken(lambda: (0.0, deadline), lambda: expected_s):
            self.order.append(name)
            await asyncio.sleep(0)

    async def waiting(self, **deadlines: float) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self.take(name, deadline)) for name, deadline in deadlines.items()]
        await asyncio.sleep(0)
        return tasks


async def test_the_earliest_deadline_is_next_and_of_equals_the_first() -> None:
    hall = Hall()
    async with hall.slot.taken():
        assert not hall.slot.contended
        tasks = await hall.waiting(late=9.0, soon=1.0, later=math.inf, too=1.0)
        assert hall.slot.contended
    await asyncio.gather(*tasks)
    assert hall.order == ["soon", "too", "late", "later"]
    assert not hall.slot.contended


async def test_deadlines_count_as_they_are_when_the_slot_is_released() -> None:
    """A batcher's earliest deadline changes while it waits."""
    hall = Hall()
    deadlines = {"first": 1.0, "second": 2.0}

    async def take(name: str) -> None:
        async with hall.slot.taken(lambda: (0.0, deadlines[name])):
            hall.order.append(name)

    async with hall.slot.taken():
        tasks = [asyncio.create_task(take(name)) for name in deadlines]
        await asyncio.sleep(0)
        deadlines["first"] = 3.0
    await asyncio.gather(*tasks)
    assert hall.order == ["second", "first"]


async def test_without_a_deadline_a_waiter_goes_first() -> None:
    """A network that has been loaded warms up before pictures go on."""
    hall = Hall()
    async with hall.slot.taken():
        tasks = await hall.waiting(soon=1.0)

        async def warm_up() -> None:
            async with hall.slot.taken():
                hall.order.append("warm-up")

        tasks.append(asyncio.create_task(warm_up()))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert hall.order == ["warm-up", "soon"]


@pytest.mark.parametrize("granted", [True, False])
async def test_nobody_gets_in_between_once_the_slot_was_passed_on(granted: bool) -> None:
    hall = Hall()
    async with hall.slot.taken():
        tasks = await hall.waiting(waits=math.inf)
    if granted:
        await asyncio.sleep(0)
        # The slot has been passed on, but the waiter has not run yet.
        assert hall.order == []
    await hall.take("comes", 0.0)
    await asyncio.gather(*tasks)
    assert hall.order == (["waits", "comes"] if granted else ["comes", "waits"])


async def test_whoever_has_just_released_the_slot_and_waits_again_may_be_the_most_urgent() -> None:
    """Two batchers whose batches are small: the device's order is that of the deadlines, not one of each in turn."""
    hall = Hall()
    deadlines = {"near": [1.0, 2.0, 3.0, 9.0], "far": [4.0, 5.0]}

    async def serve(name: str) -> None:
        for deadline in deadlines[name]:
            await hall.take(f"{name} {deadline:g}", deadline)

    async with hall.slot.taken():
        tasks = [asyncio.create_task(serve(name)) for name in ("far", "near")]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert hall.order == ["near 1", "near 2", "near 3", "far 4", "far 5", "near 9"]


async def test_if_all_who_waited_have_gone_when_the_slot_is_passed_on_it_is_free() -> None:
    hall = Hall()
    async with hall.slot.taken():
        (gone,) = await hall.waiting(gone=1.0)
    gone.cancel()
    await asyncio.sleep(0)
    await asyncio.wait_for(hall.take("free again", 0.0), 5)
    assert hall.order == ["free again"]
    assert hall.slot.busy_s == 0


@pytest.mark.parametrize("at_its_turn", [False, True])
async def test_a_cancelled_waiter_holds_up_nobody(at_its_turn: bool) -> None:
    hall = Hall()
    async with hall.slot.taken():
        cancelled, stays = await hall.waiting(cancelled=1.0, stays=2.0)
        if not at_its_turn:
            cancelled.cancel()
            await asyncio.sleep(0)
            assert hall.slot.contended
    if at_its_turn:
        await asyncio.sleep(0)  # the slot is passed to it, and it has not run yet
    cancelled.cancel()
    await asyncio.wait_for(stays, 5)
    assert hall.order == ["stays"]
    assert not hall.slot.contended
    await asyncio.wait_for(hall.take("free again", 0.0), 5)


async def test_an_error_inside_releases_the_slot() -> None:
    hall = Hall()
    with pytest.raises(ArithmeticError):
        async with hall.slot.taken():
            raise ArithmeticError
    await asyncio.wait_for(hall.take("free again", 0.0), 5)


async def test_the_slot_tells_how_long_it_will_be_held() -> None:
    hall = Hall()
    assert (hall.slot.busy_until, hall.slot.busy_s) == (0.0, 0.0)
    async with hall.slot.taken(expected_s=lambda: 60.0):
        assert (hall.slot.busy_until, hall.slot.busy_s) == (160.0, 60.0)
        hall.clock.now = 130.0
        assert hall.slot.busy_s == 30.0
        task = asyncio.create_task(hall.take("next", 0.0, expected_s=600.0))
        await asyncio.sleep(0)
        assert hall.slot.busy_until == 160.0
    assert hall.slot.busy_s > 0
    await asyncio.sleep(0)
    assert hall.slot.busy_until == 730.0
    await task
    assert (hall.slot.busy_until, hall.slot.busy_s) == (0.0, 0.0)


async def test_a_batch_that_is_overdue_still_makes_the_device_busy() -> None:
    hall = Hall()
    async with hall.slot.taken(expected_s=lambda: 60.0):
        hall.clock.now = 160.0
        assert hall.slot.busy_s > 0
        hall.clock.now = 9000.0
        assert 0 < hall.slot.busy_s < 1


async def test_the_slot_remembers_when_it_was_released() -> None:
    hall = Hall()
    assert hall.slot.freed_at == -math.inf
    async with hall.slot.taken():
        assert hall.slot.freed_at == -math.inf
        hall.clock.now = 105.0
    assert hall.slot.freed_at == 105.0


async def test_work_runs_on_one_thread_of_the_slots_own() -> None:
    slot = DeviceSlot("gpu")
    threads = [await slot.run(threading.current_thread) for _ in range(3)]
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()
    assert threads[0].name.startswith("gpu")
    slot.close()
    with pytest.raises(RuntimeError):
        await slot.run(threading.current_thread)


async def test_the_time_for_which_the_slot_was_held_adds_up() -> None:
    clock = Clock()
    slot = DeviceSlot(clock=clock)
    for held_s in (1.0, 2.0):
        clock.now += 10.0
        async with slot.taken():
            clock.now += held_s
    assert slot.used_s == 3.0
    async with slot.taken():
        next_one = asyncio.create_task(_hold(slot, clock, 4.0))
        clock.now += 0.5
        assert slot.used_s == 3.5
        await asyncio.sleep(0)
    await next_one
    assert slot.used_s == 7.5
    slot.close()


async def _hold(slot: DeviceSlot, clock: Clock, seconds: float) -> None:
    async with slot.taken():
        clock.now += seconds
