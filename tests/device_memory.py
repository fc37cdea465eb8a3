"""Checkpoints that are only bytes, and a device memory that knows which of them it really holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from service.runtime.residency import Residency
from service.runtime.resident import Needs, Resident
from tests.clock import Clock

#: More turns of the event loop than anything here takes that does not wait for the test.
LONG = 30


async def turns(count: int) -> None:
    """Lets the event loop turn that many times."""
    for _ in range(count):
        await asyncio.sleep(0)


class DeviceMemory:
    """A ledger, and the bytes that its loads and unloads really hold.

    Args:
        limit: bytes.
        pause: how many turns of the event loop the next load or unload takes.
    """

    def __init__(self, limit: int, pause: Callable[[], int] = lambda: 1) -> None:
        self.clock = Clock()
        self.residency = Residency(limit, self.clock)
        self.events: list[str] = []
        self.broken: set[str] = set()
        """Names of checkpoints whose loads fail."""
        self.open = asyncio.Event()
        """Loads and unloads end only while it is set."""
        self.open.set()
        self._pause = pause
        self._really: dict[Resident, int] = {}

    def add(self, name: str, footprint: int, peak: int = 0, *, worth: float = 1.0, pinned: bool = False) -> Resident:
        needs = Needs(footprint, peak)

        async def load() -> None:
            self.events.append(f"load {name}")
            self._really[entry] = needs.most
            self.check()
            try:
                await self._take_long()
                if name in self.broken:
                    raise OSError(f"{name} is broken")
            except BaseException:
                del self._really[entry]
                raise
            self._really[entry] = needs.footprint

        async def unload() -> None:
            self.events.append(f"unload {name}")
            assert not entry.users
            await self._take_long()
            del self._really[entry]

        entry = Resident(name, load, unload, lambda: needs, worth=worth, pinned=pinned)
        self.residency.add(entry)
        return entry

    async def _take_long(self) -> None:
        await turns(self._pause())
        await self.open.wait()

    @asynccontextmanager
    async def using(self, entry: Resident) -> AsyncIterator[None]:
        """Uses a checkpoint as the ledger's ``using`` does, and checks that it is really there."""
        async with self.residency.using(entry):
            self.check(entry)
            yield
            self.check(entry)

    async def use(self, entry: Resident) -> None:
        async with self.using(entry):
            pass

    def hold(self, entry: Resident, until: asyncio.Event) -> asyncio.Task[None]:
        """A request that ends when ``until`` is set."""

        async def run() -> None:
            async with self.using(entry):
                await until.wait()

        return asyncio.create_task(run())

    def check(self, running: Resident | None = None) -> None:
        """The ledger never charges less than is held, nor more than the limit; what a request runs on is there."""
        assert sum(self._really.values()) <= self.residency.held_bytes <= self.residency.limit_bytes
        assert running is None or self._really[running] == running.needs().footprint

    def loaded(self) -> list[str]:
        return sorted(entry.name for entry in self._really)
