"""The device slot: one batch at a time runs on a device within a process, whichever checkpoint it belongs to."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from service.batching.turns import Turns, Urgency

T = TypeVar("T")

#: A batch that runs longer than expected is assumed to need this many seconds more.
_OVERDUE_S = 0.001
#: Before all pictures.
_FIRST: Urgency = (-math.inf, -math.inf)


@dataclass(slots=True, eq=False)
class _Waiter:
    urgency: Callable[[], Urgency]
    expected_s: Callable[[], float]
    turn: asyncio.Future[None]


class DeviceSlot:
    """A lock around a device, and the one thread that drives the device.

    The most urgent waiter is next, and among equals the one who asked first: an urgent picture does not wait behind all
    of another checkpoint's that are not. The thread belongs to the slot, so that a forward pass never
    waits behind decoding, and thread-local state of an engine (OpenMP's pool, CUDA's current stream) stays in one
    place.

    Args:
        name: the name of the thread.
        clock: seconds, monotonic; ``busy_until`` and ``freed_at`` are on it.
    """

    def __init__(self, name: str = "device", clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken = False
        self._taken_at = self._used_s = 0.0
        self._waiters: list[_Waiter] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.busy_until = 0.0
        """When the running batch should end; 0 if none is running."""
        self.turns = Turns(clock)
        """Of the callers who wait for the device."""
        self.freed_at = -math.inf
        """When the slot was last released."""

    @asynccontextmanager
    async def taken(
        self, urgency: Callable[[], Urgency] = lambda: _FIRST, expected_s: Callable[[], float] = lambda: 0.0
    ) -> AsyncIterator[None]:
        """Holds the slot. ``run`` may be called while it is held.

        Args:
            urgency: of the most urgent of those who wait for the slot here. It is asked when the slot is released. By
                default this waiter goes first.
            expected_s: how long the slot will be held, for ``busy_until``.
        """
        if self._taken:
            waiter = _Waiter(urgency, expected_s, asyncio.get_running_loop().create_future())
            self._waiters.append(waiter)
            try:
                await waiter.turn
            except asyncio.CancelledError:
                # The slot may have been passed to this waiter in the moment in which it was cancelled.
                if waiter.turn.done() and not waiter.turn.cancelled():
                    self._pass_on()
                raise
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        else:
            self._taken, self._taken_at = True, self._clock()
            self.busy_until = self._taken_at + expected_s()
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        self.freed_at = self._clock()
        self._used_s += self.freed_at - self._taken_at
        self._taken_at = self.freed_at
        # The slot stays taken while it passes to the next waiter, so that no newcomer gets in between.
        self._taken, self.busy_until = self.contended, 0.0
        if self._taken:
            # Whoever has just released it may wait for it again by then: else two would take turns, whatever is urgent.
            asyncio.get_running_loop().call_soon(self._grant)

    def _grant(self) -> None:
        waiting = [waiter for waiter in self._waiters if not waiter.turn.done()]
        self._taken = bool(waiting)
        if waiting:
            following = min(waiting, key=lambda waiter: waiter.urgency())
            self.busy_until = self.freed_at + following.expected_s()
            self._waiters.remove(following)
            following.turn.set_result(None)

    @property
    def busy_s(self) -> float:
        """Seconds until the running batch should end; 0 if none is running."""
        return max(_OVERDUE_S, self.busy_until - self._clock()) if self._taken else 0.0

    @property
    def used_s(self) -> float:
        """For how many seconds the slot has been held since it exists."""
        return self._used_s + (self._clock() - self._taken_at if self._taken else 0.0)

    @property
    def contended(self) -> bool:
        """Whether any task waits for the slot."""
        return bool(self._waiters)

    async def run(self, work: Callable[[], T]) -> T:
        """Runs blocking work on the slot's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Ends the thread once its current work is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)
