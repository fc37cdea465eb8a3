"""Parking: the weights of checkpoints that had to leave device memory, kept in host memory under a byte limit.

A load reads a file, builds the network and converts it; parked weights are only copied back. The ledger of host memory
works as that of device memory (``residency.py``): where there is no room for more, the least valuable parked checkpoint
goes first, and one that is worth less than those that are parked is not parked at all. A checkpoint is parked while it
is not loaded; its weights are given up once it has been woken, or once another file has replaced it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from service.engines import Engine, Parked, ParkingEngine
from service.runtime.resident import Resident

log = logging.getLogger(__name__)


class Parking:
    """The ledger of the host memory of this process. Not thread-safe: use it from one event loop.

    Args:
        limit_bytes: how many bytes all parked weights may take together; with 0 nothing is parked.
        clock: seconds, monotonic.
    """

    def __init__(self, limit_bytes: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_bytes = limit_bytes
        self._clock = clock
        self._places: list[Place] = []

    @property
    def held_bytes(self) -> int:
        """How many bytes the ledger charges in total."""
        return sum(place.held for place in self._places)

    def place(self, resident: Resident, thread: Executor) -> Place:
        """Where the weights of a checkpoint will be parked.

        Args:
            resident: the checkpoint's entry in the ledger of device memory, which knows its value.
            thread: where weights are copied.
        """
        found = Place(self, resident, thread)
        self._places.append(found)
        return found

    def leave(self, place: Place) -> None:
        """Removes a place that holds nothing."""
        self._places.remove(place)

    def giving_way(self, place: Place, size: int) -> list[Place] | None:
        """The places that must be cleared so that another one has room for its weights; None if it must do without,
        since these are worth more, or since there is too little to clear. A checkpoint that will be woken keeps its
        place: often it is the one for which the other one leaves the device."""
        lacking, now = self.held_bytes + size - self.limit_bytes, self._clock()
        clearing: list[Place] = []
        parked = (p for p in self._places if p.parked and not p.wanted)
        for other in sorted(parked, key=lambda p: p.value(p.held, now)):
            if lacking <= 0 or other.value(other.held, now) >= place.value(size, now):
                break
            clearing.append(other)
            lacking -= other.held
        return clearing if lacking <= 0 else None


class Place:
    """Where the weights of one checkpoint are parked. ``Parking.place`` makes it."""

    def __init__(self, parking: Parking, resident: Resident, thread: Executor) -> None:
        self.held = 0
        """How many bytes the ledger charges it."""
        self._parking = parking
        self._resident = resident
        self._thread = thread
        self._weights: Parked | None = None
        self._changing = asyncio.Lock()
        self._shut = self._closed = False

    @property
    def parked(self) -> bool:
        """Whether the next load only has to wake the checkpoint."""
        return self._weights is not None

    @property
    def wanted(self) -> bool:
        """Whether requests wait for the checkpoint."""
        return bool(self._resident.waiters)

    def value(self, size: int, now: float) -> float:
        """Recent use, weighted by accuracy, for each of so many bytes."""
        return self._resident.merit(now) / max(1, size)

    async def park(self, engine: Engine) -> None:
        """Parks the weights of an engine that will be closed, if it can and if they have room. Raises nothing: an
        engine must be closed whether its weights are kept or not."""
        async with self._changing:
            if self._shut or not isinstance(engine, ParkingEngine):
                return
            size = engine.parked_bytes
            clearing = self._parking.giving_way(self, size)
            if clearing is None:
                return
            gone = [(place, place.take()) for place in clearing]
            # Charged before the memory is taken; what is cleared is charged until it is free.
            self.held = size
            try:
                await self._run(lambda: _free(gone))
                self._weights = await self._run(engine.park)
            except Exception as error:
                log.warning("the weights of %s are not kept in host memory: %s", self._resident.name, error)
            finally:
                if self._weights is None:
                    self.held = 0

    def take(self) -> Parked | None:
        """Hands over the parked weights, if there are any. Whoever takes them has to call ``free``, then ``freed``."""
        weights, self._weights = self._weights, None
        return weights

    def freed(self) -> None:
        """Ends the charge for weights that were taken and are freed. May be called from another thread."""
        self.held = 0

    def waking(self) -> Callable[[], Engine] | None:
        """A function that loads the checkpoint from its parked weights, and blocks; None if there are none. It gives
        the weights up even if it fails, so that the next load is from the file."""
        weights = self.take()
        if weights is None:
            return None

        def wake() -> Engine:
            try:
                return weights.wake()
            finally:
                _free([(self, weights)])

        return wake

    def shut(self) -> None:
        """Parks nothing any more; ``close`` must follow."""
        self._shut = True

    async def close(self) -> None:
        """Gives up the parked weights, and parks none any more."""
        if self._closed:
            return
        self._shut = self._closed = True
        # What is being parked is parked first, and given up then.
        async with self._changing:
            gone = [(self, self.take())]
            await self._run(lambda: _free(gone))
        self._parking.leave(self)

    async def _run(self, work: Callable[[], Parked | None]) -> Parked | None:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _free(gone: Sequence[tuple[Place, Parked | None]]) -> None:
    for place, weights in gone:
        if weights is not None:
            weights.free()
            place.freed()
