"""The ledger of device memory, with many clients whose requests come, end and unload at random."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.errors import InUseError, MemoryLimitError
from service.runtime.resident import Resident
from tests.device_memory import DeviceMemory, turns


class Clients:
    """Clients of a device memory of random size, with checkpoints of random sizes."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.memory = DeviceMemory(random.randint(50, 200), lambda: random.randint(0, 4))
        self.entries = [
            self.memory.add(
                str(number), random.randint(1, 80), random.randint(0, 120), worth=random.random(), pinned=number == 0
            )
            for number in range(random.randint(1, 6))
        ]
        self.memory.broken = {entry.name for entry in self.entries if random.random() < 0.1}

    async def run(self, clients: int) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._client()) for _ in range(clients)]
            group.create_task(self._look(tasks))

    async def _look(self, tasks: list[asyncio.Task[None]]) -> None:
        while not all(task.done() for task in tasks):
            self.memory.check()
            await asyncio.sleep(0)

    async def _client(self) -> None:
        """Makes several requests or unloads one after another, and cancels some of them at a random moment."""
        for _ in range(self._random.randint(1, 8)):
            entry = self._random.choice(self.entries)
            work = asyncio.create_task(self._unload(entry) if self._random.random() < 0.2 else self._use(entry))
            await turns(self._random.randint(0, 12))
            if self._random.random() < 0.4:
                work.cancel()
            with suppress(asyncio.CancelledError, MemoryLimitError, InUseError, OSError):
                await work

    async def _use(self, entry: Resident) -> None:
        async with self.memory.using(entry):
            await turns(self._random.randint(0, 6))

    async def _unload(self, entry: Resident) -> None:
        await self.memory.residency.unload(entry, wait=self._random.random() < 0.5)


@given(st.integers(0, 2**32), st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_every_request_ends_and_the_limit_holds(seed: int, count: int) -> None:
    async def run() -> None:
        clients = Clients(Random(seed))
        async with asyncio.timeout(10):
            await clients.run(count)
            assert [(entry.users, entry.waiters, entry.leaving) for entry in clients.entries] == [
                (0, [], False) for _ in clients.entries
            ]
            await clients.memory.residency.close()
        assert clients.memory.loaded() == []

    asyncio.run(run())
