"""What tests of the batcher share: runners without a device, and limits that do not learn."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence

from service.batching.batcher import Batched, Batcher
from service.batching.limit import BatchLimit
from service.batching.queue import Batch
from service.batching.slot import DeviceSlot

#: A deadline that nothing misses.
FAR = 1e9


def tens(items: Sequence[int]) -> list[int]:
    """A forward pass whose outputs tell the items apart."""
    return [item * 10 for item in items]


class Runner:
    """Runs batches with a function, and knows nothing of how long they take.

    Args:
        forward: the forward pass.
    """

    overlaps = False

    def __init__(self, forward: Callable[[Sequence[int]], Sequence[int]] = tens) -> None:
        self._forward = forward
        self.arriving = 0
        self.at_once_up_to = 0
        """Batches up to this size run on the event loop."""
        self.forward_s: Sequence[float] = ()
        self.alone_s = math.inf
        self.learned: list[tuple[Batch[int, Batched[int]], float, float, Exception | None]] = []

    def expected_s(self, size: int) -> float:
        return self.forward_s[size] if self.forward_s else 0.0

    def at_once(self, size: int) -> bool:
        return size <= self.at_once_up_to

    def run(self, items: Sequence[int]) -> Sequence[int]:
        return self._forward(items)

    def begin(self, items: Sequence[int]) -> Callable[[], Sequence[int]]:
        raise AssertionError("this runner does not overlap batches")

    def learn(self, batch: Batch[int, Batched[int]], started: float, seconds: float, error: Exception | None) -> None:
        self.learned.append((batch, started, seconds, error))


class FixedLimit(BatchLimit):
    """A batch limit that learns nothing."""

    def __init__(self, size: int) -> None:
        super().__init__(size, lambda: size)

    def learn(self, size: int, device_s: float) -> None:
        pass


def batcher(
    runner: Runner | Callable[[Sequence[int]], Sequence[int]] = tens,
    slot: DeviceSlot | None = None,
    *,
    limit: int | BatchLimit = 4,
    max_queue: int = 100,
    max_queue_bytes: int = 1_000_000,
    clock: Callable[[], float] | None = None,
) -> Batcher[int, int]:
    """A batcher of numbers, on a slot of its own unless one is given."""
    options = {} if clock is None else {"clock": clock}
    return Batcher(
        runner if isinstance(runner, Runner) else Runner(runner),
        slot or DeviceSlot(**options),
        FixedLimit(limit) if isinstance(limit, int) else limit,
        max_queue=max_queue,
        max_queue_bytes=max_queue_bytes,
        **options,
    )


def submit(batcher: Batcher[int, int], item: int, deadline: float = FAR) -> asyncio.Task[Batched[int]]:
    """Submits an item in a task of its own."""
    return asyncio.create_task(batcher.submit(item, deadline))


async def until(condition: threading.Event) -> None:
    """Waits for an event of another thread, and lets the event loop turn meanwhile."""
    assert await asyncio.get_running_loop().run_in_executor(None, condition.wait, 5)


class Gate:
    """A forward pass that ends when the test lets it, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = threading.Event()
        self._permits = threading.Semaphore(0)

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.running.set()
        assert self._permits.acquire(timeout=5), "the test never opened the gate"
        return tens(items)

    def open(self, times: int = 1000) -> None:
        self._permits.release(times)
