"""The ledger of device memory: unloading by hand, and leaving it."""

from __future__ import annotations

import asyncio

import pytest

from service.domain.errors import InUseError
from tests.device_memory import LONG, DeviceMemory, turns


@pytest.fixture
def memory() -> DeviceMemory:
    """Room for two checkpoints of 40."""
    return DeviceMemory(100)


async def test_unloading(memory: DeviceMemory) -> None:
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


async def test_unloading_with_patience_lets_nobody_in_and_new_requests_load_it_again(memory: DeviceMemory) -> None:
    a = memory.add("a", 40)
    done = asyncio.Event()
    running = memory.hold(a, done)
    await turns(LONG)
    unloads = [asyncio.create_task(memory.residency.unload(a, wait=True)) for _ in range(3)]
    await turns(LONG)
    late = asyncio.create_task(memory.use(a))
    await turns(LONG)
    assert not late.done()
    # One who does not want it any more takes nothing from the others.
    unloads.pop().cancel()
    await turns(LONG)
    assert not late.done()
    done.set()
    await asyncio.gather(running, late, *unloads)
    assert memory.events == ["load a", "unload a", "load a"]


async def test_an_unload_whose_last_caller_goes_is_off(memory: DeviceMemory) -> None:
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
    """Whoever asked may go, but the bytes are there."""
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


async def test_a_removed_one_leaves_memory_once_those_who_came_before_are_answered(memory: DeviceMemory) -> None:
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
