"""Residency: which checkpoints are in device memory now, under a byte limit.

Each device of a process has a ledger of bytes. A load begins only when there is room for its measured peak; a loaded
checkpoint is charged its footprint, which is what it needs at its largest batch. Room is made by unloading the least
valuable checkpoints, after the part of the load that needs no room has succeeded: a load that is going to fail should
evict nobody. Checkpoints that are pinned or have requests in flight are never unloaded. Where all others are in use,
the least valuable of them take no new requests until they are idle, so that a waiting load is not overtaken for ever.
Loads take turns, a checkpoint is loaded once however many requests ask for it, and a load is not begun when nobody
waits for it any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from service.domain.errors import InUseError, MemoryLimitError, NotReadyError
from service.runtime.resident import Resident

log = logging.getLogger(__name__)


class Residency:
    """The ledger of one device. Not thread-safe: use it from one event loop.

    Args:
        limit_bytes: how many bytes loaded checkpoints, and the one being loaded, may need together.
        clock: seconds, monotonic.
    """

    def __init__(self, limit_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_bytes = limit_bytes
        self._clock = clock
        self._entries: list[Resident] = []
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._loads: dict[Resident, asyncio.Task[None]] = {}
        self._closed = False

    @property
    def held_bytes(self) -> int:
        """How many bytes the ledger charges in total."""
        return sum(entry.held for entry in self._entries)

    def add(self, entry: Resident) -> None:
        """Adds a checkpoint that is not loaded."""
        self._entries.append(entry)

    async def remove(self, entry: Resident) -> None:
        """Unloads a checkpoint once it is idle, and removes it from the ledger."""
        entry.pinned = False
        # Requests that wait for it load it again, and another checkpoint's load may be unloading it.
        while entry in self._loads or entry.held:
            if entry in self._loads:
                await asyncio.wait([self._loads[entry]])
            await self.unload(entry, wait=True)
            async with self._turn:
                pass
        if entry in self._entries:
            self._entries.remove(entry)

    def fits(self, entry: Resident) -> bool:
        """Whether the checkpoint would have room if everything that is not pinned were unloaded."""
        pinned = sum(e.needs().footprint for e in self._entries if e.pinned and e is not entry)
        return pinned + entry.needs().most <= self.limit_bytes

    def has_room(self, entry: Resident) -> bool:
        """Whether the checkpoint could be loaded without unloading anything."""
        return self.held_bytes + entry.needs().most <= self.limit_bytes

    def load_wait_s(self, entry: Resident) -> float:
        """Seconds until the checkpoint would be loaded if it were asked for now, including the loads before its own."""
        total = entry.load_s()
        for other in self._loads:
            if other is entry:
                break
            total += other.load_s()
        return total

    @asynccontextmanager
    async def using(self, entry: Resident) -> AsyncIterator[None]:
        """Keeps a checkpoint in memory while a request uses it, and loads it first if necessary.

        Raises:
            MemoryLimitError: the limit has no room for it, no matter which others are unloaded.
            NotReadyError: the ledger was closed.
            Exception: the error that its load raised.
        """
        await self.enter(entry)
        try:
            yield
        finally:
            self.leave(entry)

    async def enter(self, entry: Resident) -> None:
        """The same as entering ``using``. Always call ``leave`` afterwards, unless this raises."""
        if self._closed:
            raise _stopping()
        entry.use(self._clock())
        if entry.loaded and not entry.leaving:
            entry.users += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        entry.waiters.append(waiter)
        self._load_soon(entry)
        try:
            await waiter
        except asyncio.CancelledError:
            # The request may have been let in at the moment in which it was cancelled.
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.leave(entry)
            self._changed.set()
            raise
        finally:
            if waiter in entry.waiters:
                entry.waiters.remove(waiter)

    def leave(self, entry: Resident) -> None:
        """The counterpart of ``enter``."""
        entry.users -= 1
        if not entry.users:
            self._changed.set()

    async def unload(self, entry: Resident, *, wait: bool = False) -> None:
        """Unloads a checkpoint, if it is loaded.

        Args:
            entry: the checkpoint.
            wait: whether to wait for its requests in flight; it takes no new ones meanwhile.

        Raises:
            InUseError: it is pinned, or it is in use and ``wait`` is false.
        """
        if entry.pinned:
            raise InUseError(f"{entry.name} is pinned by the fleet and stays in memory")
        if entry.users and entry.loaded and not wait:
            raise InUseError(f"{entry.name} has {entry.users} requests in flight; wait=true waits for them")
        if not entry.loaded:
            return
        asked = object()
        entry.unloading.add(asked)
        try:
            while asked in entry.unloading:
                if entry.users:
                    await self._change()
                else:
                    # The caller may be cancelled, but an unload that has begun holds its bytes until it ends.
                    await asyncio.shield(self._unload_in_turn(entry))
        finally:
            entry.unloading.discard(asked)
            self._changed.set()

    async def close(self) -> None:
        """Refuses waiting and new requests, and unloads each checkpoint once it is idle. A load that has begun is
        finished first."""
        self._closed = True
        for entry in self._entries:
            entry.refuse(_stopping())
        self._changed.set()
        for entry in tuple(self._entries):
            await self.remove(entry)

    def _load_soon(self, entry: Resident) -> None:
        if entry not in self._loads:
            self._loads[entry] = asyncio.get_running_loop().create_task(self._load(entry))

    async def _load(self, entry: Resident) -> None:
        """Waits for this load's turn, loads the checkpoint, and lets in the requests that wait for it."""
        try:
            async with self._turn:
                # The requests that asked may have gone by now, and may go while there is no room yet.
                while entry.waiters and entry.loaded and entry.leaving:
                    if entry.users:
                        await self._change()
                    else:
                        await self._unload(entry)
                if not entry.loaded and entry.waiters and self.fits(entry) and not self.has_room(entry):
                    await entry.prepare()
                if not entry.loaded and await self._make_room(entry):
                    try:
                        await entry.load()
                    except BaseException:
                        entry.held = 0
                        raise
                    entry.held, entry.loaded = entry.needs().footprint, True
                entry.let_in()
        except asyncio.CancelledError:
            entry.refuse(_stopping())
            raise
        except Exception as error:
            entry.refuse(error)
        finally:
            del self._loads[entry]

    async def _make_room(self, entry: Resident) -> bool:
        """Unloads the least valuable checkpoints until there is room for a load at its peak, and charges the peak. Runs
        in the load's turn. Returns False if nobody waits for the load any more."""
        try:
            while entry.waiters:
                most, now = entry.needs().most, self._clock()
                lacking = self.held_bytes + most - self.limit_bytes
                others = [e for e in self._entries if e.loaded and not e.pinned]
                if not self.fits(entry) or (lacking > 0 and not others):
                    raise MemoryLimitError(
                        f"loading {entry.name} takes {most / 1e6:.0f} MB, more than the memory limit of "
                        f"{self.limit_bytes / 1e6:.0f} MB has room for beside what is pinned: "
                        "raise TOPFIVE_MEMORY_LIMIT_MB"
                    )
                if lacking <= 0:
                    entry.held = most
                    return True
                # Checkpoints that are leaving anyway go first. One that was chosen stays chosen, even if another has
                # become less valuable meanwhile.
                others.sort(key=lambda e: (not e.leaving, e.value(now)))
                idle = next((e for e in others if not e.users), None)
                # If the requested unloads free enough, no others are unloaded.
                if idle is not None and (idle.leaving or lacking > sum(e.held for e in others if e.unloading)):
                    await self._unload(idle)
                    continue
                for other in others:
                    other.evicting = lacking > 0
                    lacking -= other.held
                await self._change()
            return False
        finally:
            for other in self._entries:
                other.evicting = False

    async def _change(self) -> None:
        """Waits until a checkpoint becomes idle or stays after all, or until a request that waits for a load goes."""
        self._changed.clear()
        await self._changed.wait()

    async def _unload_in_turn(self, entry: Resident) -> None:
        async with self._turn:
            # The callers may have gone, and new requests may have come.
            if entry.unloading and not entry.users:
                await self._unload(entry)

    async def _unload(self, entry: Resident) -> None:
        """Unloads a checkpoint, and then stops charging it. Runs in a turn, so that the ledger never charges less than
        is held."""
        entry.loaded = False
        log.info("%s leaves memory", entry.name)
        try:
            await entry.unload()
        finally:
            entry.evicted("asked" if entry.unloading else "room")
            entry.held, entry.evicting = 0, False
            entry.unloading.clear()


def _stopping() -> NotReadyError:
    return NotReadyError("the service is stopping")
