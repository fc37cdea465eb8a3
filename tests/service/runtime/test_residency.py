"""The ledger of device memory: who is loaded, who has to go, and who has to wait."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from service.domain.errors import MemoryLimitError, NotReadyError
from service.runtime.resident import Needs
from tests.device_memory import LONG, DeviceMemory, turns


@pytest.fixture
def memory() -> DeviceMemory:
    """Room for two checkpoints of 40."""
    return DeviceMemory(100)


async def test_however_many_ask_it_is_loaded_once(memory: DeviceMemory) -> None:
    a = memory.add("a", 40)
    await asyncio.gather(*(memory.use(a) for _ in range(8)))
    await memory.use(a)
    assert (memory.events, a.users, memory.residency.held_bytes) == (["load a"], 0, 40)


async def test_a_load_is_charged_its_peak_and_then_its_footprint(memory: DeviceMemory) -> None:
    a, b = memory.add("a", 40, peak=70), memory.add("b", 40)
    memory.open.clear()
    loading = asyncio.create_task(memory.use(a))
    await turns(LONG)
    assert memory.residency.held_bytes == 70
    memory.open.set()
    await loading
    assert memory.residency.held_bytes == 40
    assert memory.residency.has_room(b)
    await memory.use(b)
    assert memory.loaded() == ["a", "b"]


async def test_the_least_valuable_goes(memory: DeviceMemory) -> None:
    """Use by accuracy over bytes."""
    used, accurate, small = memory.add("used", 40), memory.add("accurate", 40, worth=0.9), memory.add("small", 20)
    for entry in (used, used, accurate, small):
        await memory.use(entry)
    new = memory.add("new", 40)
    await memory.use(new)
    assert memory.loaded() == ["new", "small", "used"]
    await memory.use(accurate)
    assert memory.loaded() == ["accurate", "small", "used"]


async def test_what_is_pinned_or_in_use_never_goes(memory: DeviceMemory) -> None:
    pinned, busy, idle = (
        memory.add("pinned", 40, worth=0.1, pinned=True),
        memory.add("busy", 30),
        memory.add("idle", 30),
    )
    await memory.use(pinned)
    async with memory.using(busy):
        for _ in range(9):
            await memory.use(idle)
        await memory.use(memory.add("new", 30))
        assert memory.loaded() == ["busy", "new", "pinned"]


async def test_a_busy_victim_takes_no_new_requests_until_the_load_had_its_turn(memory: DeviceMemory) -> None:
    victim, new = memory.add("victim", 60), memory.add("new", 60)
    done = asyncio.Event()
    running = memory.hold(victim, done)
    await turns(LONG)
    waiting = asyncio.create_task(memory.use(new))
    await turns(LONG)
    late = asyncio.create_task(memory.use(victim))
    await turns(LONG)
    assert (victim.users, victim.leaving, waiting.done(), late.done()) == (1, True, False, False)
    done.set()
    await asyncio.gather(running, waiting, late)
    assert memory.events == ["load victim", "unload victim", "load new", "unload new", "load victim"]


async def test_no_more_victims_than_are_needed(memory: DeviceMemory) -> None:
    entries = [memory.add(name, 50, worth=worth) for name, worth in (("bad", 0.5), ("good", 0.9))]
    done = asyncio.Event()
    running = [memory.hold(entry, done) for entry in entries]
    await turns(LONG)
    waiting = asyncio.create_task(memory.use(memory.add("new", 50)))
    await turns(LONG)
    assert [entry.leaving for entry in entries] == [True, False]
    await memory.use(entries[1])
    done.set()
    await asyncio.gather(*running, waiting)


async def test_the_chosen_victim_stays_chosen(memory: DeviceMemory) -> None:
    """Requests that wait for it make it look valuable; another must not be drained in its place each time."""
    chosen, other = memory.add("chosen", 50), memory.add("other", 50, worth=2.0)
    done = asyncio.Event()
    running = [memory.hold(entry, done) for entry in (chosen, other)]
    await turns(LONG)
    waiting = asyncio.create_task(memory.use(memory.add("new", 50)))
    await turns(LONG)
    late = [asyncio.create_task(memory.use(chosen)) for _ in range(5)]
    await turns(LONG)
    late.pop().cancel()  # makes it look again
    await turns(LONG)
    assert (chosen.leaving, other.leaving) == (True, False)
    done.set()
    await asyncio.gather(*running, waiting, *late)


async def test_a_load_that_nobody_waits_for_any_more_is_not_begun(memory: DeviceMemory) -> None:
    a, b = memory.add("a", 40), memory.add("b", 40)
    memory.open.clear()
    first, second = (asyncio.create_task(memory.use(entry)) for entry in (a, b))
    await turns(LONG)
    second.cancel()
    memory.open.set()
    await first
    await turns(LONG)
    assert memory.events == ["load a"]
    await memory.use(b)


async def test_nobody_is_evicted_for_those_who_are_gone(memory: DeviceMemory) -> None:
    victim, new = memory.add("victim", 60), memory.add("new", 60)
    async with memory.using(victim):
        waiting = asyncio.create_task(memory.use(new))
        await turns(LONG)
        assert victim.leaving
        waiting.cancel()
        await turns(LONG)
        await memory.use(victim)
    await turns(LONG)
    assert memory.events == ["load victim"]


async def test_a_failed_load_frees_its_bytes_and_tells_everybody_who_waits(memory: DeviceMemory) -> None:
    a = memory.add("a", 40)
    memory.broken.add("a")
    errors = await asyncio.gather(*(memory.use(a) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [OSError] * 3
    assert (memory.residency.held_bytes, a.loaded, a.users) == (0, False, 0)
    memory.broken.clear()
    await memory.use(a)


async def test_what_needs_no_room_comes_before_anything_is_unloaded(memory: DeviceMemory) -> None:
    victim, new = memory.add("victim", 60), memory.add("new", 60)
    await memory.use(victim)

    async def prepare() -> None:
        memory.events.append("prepare new")
        if "new" in memory.broken:
            raise OSError("new cannot be prepared")

    new.prepare = prepare
    memory.broken.add("new")
    with pytest.raises(OSError, match="cannot be prepared"):
        await memory.use(new)
    assert memory.loaded() == ["victim"]
    memory.broken.clear()
    await memory.use(new)
    assert memory.events == ["load victim", "prepare new", "prepare new", "unload victim", "load new"]


async def test_where_there_is_room_nothing_is_prepared(memory: DeviceMemory) -> None:
    a, huge = memory.add("a", 40), memory.add("huge", 101)

    async def prepare() -> None:
        raise AssertionError

    a.prepare = huge.prepare = prepare
    await memory.use(a)
    with pytest.raises(MemoryLimitError):
        await memory.use(huge)


async def test_what_leaves_anyway_makes_the_room_where_that_is_enough(memory: DeviceMemory) -> None:
    busy, idle, new = memory.add("busy", 50, worth=9.0), memory.add("idle", 50), memory.add("new", 50)
    done = asyncio.Event()
    await memory.use(idle)
    running = memory.hold(busy, done)
    await turns(LONG)
    leaving = asyncio.create_task(memory.residency.unload(busy, wait=True))
    await turns(LONG)
    waiting = asyncio.create_task(memory.use(new))
    await turns(LONG)
    assert memory.loaded() == ["busy", "idle"]
    done.set()
    await asyncio.gather(running, leaving, waiting)
    assert memory.loaded() == ["idle", "new"]


async def test_what_can_never_have_room_is_refused_and_nothing_is_unloaded_for_it(memory: DeviceMemory) -> None:
    pinned, a = memory.add("pinned", 40, pinned=True), memory.add("a", 40)
    await memory.use(pinned)
    await memory.use(a)
    huge = memory.add("huge", 10, peak=61)
    assert not memory.residency.fits(huge)
    with pytest.raises(MemoryLimitError, match="TOPFIVE_MEMORY_LIMIT_MB"):
        await memory.use(huge)
    assert memory.loaded() == ["a", "pinned"]


async def test_a_pinned_one_that_holds_more_than_it_needs_by_now_does_not_block_for_ever(memory: DeviceMemory) -> None:
    """Its profile was measured again; what it was charged stays charged."""
    pinned = memory.add("pinned", 70, pinned=True)
    await memory.use(pinned)
    pinned.needs = lambda: Needs(30, 0)
    with pytest.raises(MemoryLimitError):
        async with asyncio.timeout(5):
            await memory.use(memory.add("a", 60))
    await memory.use(memory.add("b", 30))


@pytest.mark.parametrize("after", range(LONG))
async def test_a_request_may_go_at_any_moment(memory: DeviceMemory, after: int) -> None:
    victim, a = memory.add("victim", 60), memory.add("a", 60)
    await memory.use(victim)
    goes, stays = asyncio.create_task(memory.use(a)), asyncio.create_task(memory.use(a))
    await turns(after)
    goes.cancel()
    await asyncio.gather(goes, stays, return_exceptions=True)
    assert (a.users, a.waiters, stays.exception()) == (0, [], None)
    await memory.residency.unload(a)
    assert memory.residency.held_bytes == 0


async def test_loads_that_are_waited_for_come_first_in_the_forecast(memory: DeviceMemory) -> None:
    entries = [memory.add(name, 40) for name in "abc"]
    for entry in entries:
        entry.load_s = lambda: 2.0
    memory.open.clear()
    waiting = [asyncio.create_task(memory.use(entry)) for entry in entries[:2]]
    await turns(LONG)
    assert [memory.residency.load_wait_s(entry) for entry in entries] == [2.0, 4.0, 6.0]
    memory.open.set()
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("after", range(LONG))
async def test_closing_ends_everything_at_whatever_moment(memory: DeviceMemory, after: int) -> None:
    entries = [memory.add("a", 60), memory.add("b", 60), memory.add("c", 30, pinned=True)]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(5))
        requests = [asyncio.create_task(memory.use(entry)) for entry in entries * 2]
        await turns(after)
        await memory.residency.close()
        answers = await asyncio.gather(*requests, return_exceptions=True)
    assert all(answer is None or isinstance(answer, NotReadyError) for answer in answers)
    assert memory.loaded() == []
    with pytest.raises(NotReadyError):
        await memory.use(entries[0])
