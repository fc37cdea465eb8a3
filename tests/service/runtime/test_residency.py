"""The ledger of device memory: what is loaded, what is evicted or unloaded, and which requests wait."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from service.domain.errors import InUseError, MemoryLimitError, NotReadyError
from service.runtime.resident import Needs
from tests.device_memory import LONG, DeviceMemory, turns


@pytest.fixture
def memory() -> DeviceMemory:
    """A device memory of 100 bytes: two checkpoints of 40 have room."""
    return DeviceMemory(100)


async def test_a_checkpoint_is_loaded_once_however_many_requests_ask(memory: DeviceMemory) -> None:
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


async def test_the_least_valuable_checkpoint_is_evicted(memory: DeviceMemory) -> None:
    """By value: use times accuracy over bytes."""
    used, accurate, small = memory.add("used", 40), memory.add("accurate", 40, worth=0.9), memory.add("small", 20)
    for entry in (used, used, accurate, small):
        await memory.use(entry)
    new = memory.add("new", 40)
    await memory.use(new)
    assert memory.loaded() == ["new", "small", "used"]
    await memory.use(accurate)
    assert memory.loaded() == ["accurate", "small", "used"]


@pytest.mark.parametrize(("half_lives", "gone"), [(0.5, "new"), (2, "old")])
async def test_uses_count_less_the_longer_ago_they_were(memory: DeviceMemory, half_lives: float, gone: str) -> None:
    """Two uses are worth more than one, until they are more than one half-life older. It is a minute."""
    old, new = memory.add("old", 50), memory.add("new", 50)
    await memory.use(old)
    await memory.use(old)
    memory.clock.now += 60 * half_lives
    await memory.use(new)
    await memory.use(memory.add("other", 50))
    assert gone not in memory.loaded()


async def test_a_checkpoint_that_is_pinned_or_in_use_is_never_evicted(memory: DeviceMemory) -> None:
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


async def test_no_more_checkpoints_are_evicted_than_necessary(memory: DeviceMemory) -> None:
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
    """Requests that wait for it raise its value; that must not move the choice to another each time."""
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


async def test_a_load_that_no_request_waits_for_any_more_is_not_begun(memory: DeviceMemory) -> None:
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


async def test_nothing_is_evicted_for_requests_that_are_gone(memory: DeviceMemory) -> None:
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


async def test_a_failed_load_frees_its_bytes_and_fails_all_waiting_requests(memory: DeviceMemory) -> None:
    a = memory.add("a", 40)
    memory.broken.add("a")
    errors = await asyncio.gather(*(memory.use(a) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [OSError] * 3
    assert (memory.residency.held_bytes, a.loaded, a.users) == (0, False, 0)
    memory.broken.clear()
    await memory.use(a)


async def test_the_part_of_a_load_that_needs_no_room_comes_before_anything_is_unloaded(memory: DeviceMemory) -> None:
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


async def test_checkpoints_that_leave_anyway_make_the_room_where_that_is_enough(memory: DeviceMemory) -> None:
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


async def test_a_load_that_can_never_have_room_is_refused_and_evicts_nothing(
    memory: DeviceMemory,
) -> None:
    pinned, a = memory.add("pinned", 40, pinned=True), memory.add("a", 40)
    await memory.use(pinned)
    await memory.use(a)
    huge = memory.add("huge", 10, peak=61)
    assert not memory.residency.fits(huge)
    with pytest.raises(MemoryLimitError, match="TOPFIVE_MEMORY_LIMIT_MB"):
        await memory.use(huge)
    assert memory.loaded() == ["a", "pinned"]


async def test_a_pinned_checkpoint_that_holds_more_than_it_needs_now_blocks_no_load(
    memory: DeviceMemory,
) -> None:
    """Its profile was measured again; the ledger still charges what it did at its load."""
    pinned = memory.add("pinned", 70, pinned=True)
    await memory.use(pinned)
    pinned.needs = lambda: Needs(30, 0)
    with pytest.raises(MemoryLimitError):
        async with asyncio.timeout(5):
            await memory.use(memory.add("a", 60))
    await memory.use(memory.add("b", 30))


@pytest.mark.parametrize("after", range(LONG))
async def test_a_request_may_be_cancelled_at_any_moment(memory: DeviceMemory, after: int) -> None:
    victim, a = memory.add("victim", 60), memory.add("a", 60)
    await memory.use(victim)
    goes, stays = asyncio.create_task(memory.use(a)), asyncio.create_task(memory.use(a))
    await turns(after)
    goes.cancel()
    await asyncio.gather(goes, stays, return_exceptions=True)
    assert (a.users, a.waiters, stays.exception()) == (0, [], None)
    await memory.residency.unload(a)
    assert memory.residency.held_bytes == 0


async def test_the_wait_for_a_load_includes_the_loads_before_it(memory: DeviceMemory) -> None:
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
async def test_closing_ends_everything_at_any_moment(memory: DeviceMemory, after: int) -> None:
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


async def test_only_an_idle_checkpoint_that_is_not_pinned_is_unloaded_by_hand(memory: DeviceMemory) -> None:
    a, pinned = memory.add("a", 40), memory.add("pinned", 40, pinned=True)
    await memory.residency.unload(a)
    await memory.use(pinned)
    with pytest.raises(InUseError, match="pinned"):
        await memory.residency.unload(pinned, wait=True)
    async with memory.using(a):
        with pytest.raises(InUseError, match="1 requests in flight"):
            await memory.residency.unload(a)
        await memory.use(a)
    await memory.residency.unload(a)
    assert (memory.loaded(), memory.residency.held_bytes) == (["pinned"], 40)
    await memory.use(a)
    assert memory.loaded() == ["a", "pinned"]


async def test_an_unload_that_waits_lets_no_request_in_and_new_requests_load_it_again(memory: DeviceMemory) -> None:
    a = memory.add("a", 40)
    done = asyncio.Event()
    running = memory.hold(a, done)
    await turns(LONG)
    unloads = [asyncio.create_task(memory.residency.unload(a, wait=True)) for _ in range(3)]
    await turns(LONG)
    late = asyncio.create_task(memory.use(a))
    await turns(LONG)
    assert not late.done()
    # A caller who is cancelled takes nothing from the others.
    unloads.pop().cancel()
    await turns(LONG)
    assert not late.done()
    done.set()
    await asyncio.gather(running, late, *unloads)
    assert memory.events == ["load a", "unload a", "load a"]


async def test_an_unload_whose_last_caller_is_cancelled_does_not_happen(memory: DeviceMemory) -> None:
    a = memory.add("a", 40)
    async with memory.using(a):
        unload = asyncio.create_task(memory.residency.unload(a, wait=True))
        await turns(LONG)
        late = asyncio.create_task(memory.use(a))
        await turns(LONG)
        unload.cancel()
        await late
    assert memory.events == ["load a"]


async def test_an_unload_that_has_begun_is_charged_until_it_has_ended(memory: DeviceMemory) -> None:
    """Its caller may be cancelled, but the bytes are there."""
    a, b = memory.add("a", 60), memory.add("b", 60)
    await memory.use(a)
    memory.open.clear()
    unload = asyncio.create_task(memory.residency.unload(a))
    await turns(LONG)
    unload.cancel()
    waiting = asyncio.create_task(memory.use(b))
    await turns(LONG)
    assert memory.residency.held_bytes == 60
    memory.open.set()
    await waiting
    assert memory.events == ["load a", "unload a", "load b"]


async def test_a_removed_checkpoint_leaves_memory_once_earlier_requests_are_answered(
    memory: DeviceMemory,
) -> None:
    a, done = memory.add("a", 40), asyncio.Event()
    running = memory.hold(a, done)
    await turns(LONG)
    removing = asyncio.create_task(memory.residency.remove(a))
    await turns(LONG)
    late = asyncio.create_task(memory.use(a))
    await turns(LONG)
    done.set()
    await asyncio.gather(running, late, removing)
    assert (memory.loaded(), memory.residency.held_bytes) == ([], 0)


async def test_an_eviction_tells_its_reason(memory: DeviceMemory) -> None:
    reasons: list[tuple[str, str]] = []
    a, b = memory.add("a", 60), memory.add("b", 60)
    for entry in (a, b):
        entry.evicted = lambda reason, name=entry.name: reasons.append((name, reason))  # type: ignore[misc]
    await memory.use(a)
    await memory.use(b)
    await memory.residency.unload(b)
    assert reasons == [("a", "room"), ("b", "asked")]


async def test_a_load_of_just_the_limit_has_room(memory: DeviceMemory) -> None:
    whole, more = memory.add("whole", 100), memory.add("more", 101)
    assert (memory.residency.fits(whole), memory.residency.has_room(whole)) == (True, True)
    assert (memory.residency.fits(more), memory.residency.has_room(more)) == (False, False)
    await memory.use(whole)
    assert not memory.residency.has_room(memory.add("byte", 1))
    assert memory.loaded() == ["whole"]


async def test_a_failed_unload_is_not_charged_for_ever(memory: DeviceMemory) -> None:
    a = memory.add("a", 60)
    await memory.use(a)

    async def broken() -> None:
        raise OSError("the device is gone")

    a.unload = broken
    with pytest.raises(OSError, match="gone"):
        await memory.residency.unload(a)
    assert (memory.residency.held_bytes, a.loaded, a.leaving) == (0, False, False)


async def test_closing_refuses_waiting_requests_at_once_and_lets_a_load_end(memory: DeviceMemory) -> None:
    a, b = memory.add("a", 40), memory.add("b", 40)
    memory.open.clear()
    requests = [asyncio.create_task(memory.use(entry)) for entry in (a, b)]
    await turns(LONG)
    closing = asyncio.create_task(memory.residency.close())
    await turns(LONG)
    assert [isinstance(request.exception(), NotReadyError) for request in requests] == [True, True]
    assert not closing.done()
    memory.open.set()
    await closing
    assert memory.events == ["load a", "unload a"]


async def test_nothing_is_prepared_for_a_load_that_no_request_waits_for_any_more(memory: DeviceMemory) -> None:
    held, victim, new = memory.add("held", 40), memory.add("victim", 40), memory.add("new", 60)
    await memory.use(victim)

    async def prepare() -> None:
        memory.events.append("prepare new")

    new.prepare = prepare
    memory.open.clear()
    loading = asyncio.create_task(memory.use(held))
    await turns(LONG)
    waiting = asyncio.create_task(memory.use(new))
    await turns(LONG)
    waiting.cancel()
    memory.open.set()
    await loading
    await turns(LONG)
    assert memory.events == ["load victim", "load held"]
