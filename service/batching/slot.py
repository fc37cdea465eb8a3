"""The device slot: one batch at a time on a device within a process, whichever checkpoint it belongs to."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

#: A batch that should be through already is taken to need so much longer.
_OVERDUE_S = 0.001


@dataclass(slots=True, eq=False)
class _Waiter:
    deadline: Callable[[], float]
    expected_s: Callable[[], float]
    turn: asyncio.Future[None]


class DeviceSlot:
    """A lock around a device and the one thread that drives it.

    Of those who wait the one with the earliest deadline is next, and of equals the one who asked first: a picture that
    is needed soon does not wait behind all of another checkpoint's that are not. The thread is the slot's own, so that
    a forward pass never waits behind decoding, and thread-local state of the engine (OpenMP's pool, CUDA's current
    stream) stays in one place.
    """

    def __init__(self, name: str = "device") -> None:
        self._taken = False
        self._waiters: list[_Waiter] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.busy_until = 0.0
        """When the batch that is being computed should be through, on ``time.monotonic()``; 0 if there is none."""
        self.freed_at = -math.inf
        """When the slot was given back last."""

    @asynccontextmanager
    async def taken(
        self, deadline: Callable[[], float] = lambda: -math.inf, expected_s: Callable[[], float] = lambda: 0.0
    ) -> AsyncIterator[None]:
        """Holds the slot; inside it, ``run`` may be called.

        Args:
            deadline: the earliest of those whom it is taken for, at any moment of the wait; by default it goes first.
            expected_s: how long it will be held, for ``busy_until``.
        """
        if self._taken:
            waiter = _Waiter(deadline, expected_s, asyncio.get_running_loop().create_future())
            self._waiters.append(waiter)
            try:
                await waiter.turn
            except asyncio.CancelledError:
                # It may have been its turn at the moment in which it was cancelled.
                if waiter.turn.done() and not waiter.turn.cancelled():
                    self._pass_on()
                raise
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        else:
            self._taken, self.busy_until = True, time.monotonic() + expected_s()
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        waiting = [waiter for waiter in self._waiters if not waiter.turn.done()]
        self.freed_at = time.monotonic()
        # It stays taken while it passes from one to the next, so that nobody who comes meanwhile slips in.
        self._taken, self.busy_until = bool(waiting), 0.0
        if waiting:
            following = min(waiting, key=lambda waiter: waiter.deadline())
            self.busy_until = self.freed_at + following.expected_s()
            self._waiters.remove(following)
            following.turn.set_result(None)

    @property
    def busy_s(self) -> float:
        """Seconds until the batch that is being computed should be through; 0 if there is none."""
        return max(_OVERDUE_S, self.busy_until - time.monotonic()) if self._taken else 0.0

    @property
    def contended(self) -> bool:
        """Whether somebody waits for the slot."""
        return bool(self._waiters)

    async def run(self, work: Callable[[], T]) -> T:
        """Runs blocking work on the slot's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Ends the thread after what it is doing now."""
        self._thread.shutdown(wait=False, cancel_futures=True)
