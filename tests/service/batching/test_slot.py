"""The device slot: who is next."""

from __future__ import annotations

import asyncio
import math

import pytest

from service.batching.slot import DeviceSlot


class Hall:
    """Those who want the slot, and the order in which they had it."""

    def __init__(self) -> None:
        self.slot = DeviceSlot()
        self.order: list[str] = []

    async def take(self, name: str, deadline: float, expected_s: float = 0.0) -> None:
        async with self.slot.taken(lambda: deadline, lambda: expected_s):
            self.order.append(name)
            await asyncio.sleep(0)

    async def waiting(self, **deadlines: float) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self.take(name, deadline)) for name, deadline in deadlines.items()]
        await asyncio.sleep(0)
        return tasks


async def test_the_earliest_deadline_is_next_and_of_equals_the_first() -> None:
    hall = Hall()
    async with hall.slot.taken():
        tasks = await hall.waiting(late=9.0, soon=1.0, later=math.inf, too=1.0)
        assert hall.slot.contended
    await asyncio.gather(*tasks)
    assert hall.order == ["soon", "too", "late", "later"]
    assert not hall.slot.contended


async def test_whoever_says_nothing_goes_first() -> None:
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


@pytest.mark.parametrize("at_its_turn", [False, True])
async def test_one_who_gives_up_holds_up_nobody(at_its_turn: bool) -> None:
    hall = Hall()
    async with hall.slot.taken():
        goes, stays = await hall.waiting(goes=1.0, stays=2.0)
        if not at_its_turn:
            goes.cancel()
            await asyncio.sleep(0)
    goes.cancel()  # where it is its turn: given, and not yet taken
    await asyncio.wait_for(stays, 5)
    assert hall.order == ["stays"]
    await asyncio.wait_for(hall.take("free again", 0.0), 5)


async def test_the_slot_tells_how_long_it_will_be_held() -> None:
    hall = Hall()
    assert hall.slot.busy_until == 0.0
    async with hall.slot.taken(expected_s=lambda: 60.0):
        first = hall.slot.busy_until
        assert first > 0
        tasks = [asyncio.create_task(hall.take("next", 0.0, expected_s=600.0))]
        await asyncio.sleep(0)
    assert hall.slot.busy_until > first + 300
    await asyncio.gather(*tasks)
    assert hall.slot.busy_until == 0.0
