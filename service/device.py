"""The device slot: one batch at a time on a device within a process, whichever checkpoint it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


class DeviceSlot:
    """A fair lock around a device and the one thread that drives it.

    Batches of different checkpoints take turns in the order in which they asked. The thread is the slot's own, so
    that a forward pass never waits behind decoding, and thread-local state of the engine (OpenMP's pool, CUDA's
    current stream) stays in one place.
    """

    def __init__(self, name: str = "device") -> None:
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.busy_until = 0.0
        """When the batch that is being computed should be through, on ``time.monotonic()``; 0 if there is none."""

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Holds the slot; inside it, ``run`` may be called."""
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._lock.release()

    @property
    def contended(self) -> bool:
        """Whether somebody waits for the slot."""
        return self._waiting > 0

    async def run(self, work: Callable[[], T]) -> T:
        """Runs blocking work on the slot's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Ends the thread after what it is doing now."""
        self._thread.shutdown(wait=False, cancel_futures=True)
