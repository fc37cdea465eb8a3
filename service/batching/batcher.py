"""Dynamic batching, not by the clock.

A timer cuts batches by the clock: a lone request waits for company that never comes, and under load the batch is
frozen while the one before it still runs. Here the batcher first waits for the device slot and then takes what is
queued, up to the largest batch: a lone request never waits, and batches grow by themselves while the device is busy.
Only for requests that are here already and being decoded does a batch with room wait, and that no more than a moment.
The earliest deadline goes first, and no batch grows so large that it would break the deadline of the first in it.
Requests that were cancelled, or can no longer meet their deadline, are dropped before the forward pass, never inside
it. A batch that fails is run again in halves, until the error has found the picture that it belongs to.

A device that copies and computes at once is given the next batch while it computes, but only when that batch is full
already: a batch that could still grow is not frozen.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, NoReturn, TypeAlias, TypeVar

from service.batching.limit import BatchLimit
from service.batching.queue import Batch, DeadlineQueue, Ticket, Trace, cut
from service.batching.slot import DeviceSlot
from service.domain.errors import NotReadyError

Item = TypeVar("Item")
Output = TypeVar("Output")


#: How long a batch with room waits for pictures that are being decoded: a few of the small ones, for which a forward
#: pass of their own would be a waste.
_MOMENT_S = 0.005

_Ticket: TypeAlias = Ticket[Item, "Batched[Output]"]
Begin: TypeAlias = Callable[[Sequence[Item]], Callable[[], Sequence[Output]]]
Learn: TypeAlias = Callable[[Batch[Item, "Batched[Output]"], float, float, Exception | None], None]


@dataclass(frozen=True, slots=True)
class Batched(Generic[Output]):
    """What a batch gave for one item of it."""

    output: Output
    batch_size: int
    queue_s: float
    forward_s: float


class Batcher(Generic[Item, Output]):
    """Queues items of one checkpoint and runs them in batches on a device slot. Lives on one event loop.

    Args:
        run: the blocking forward pass, one output for each item; called on the slot's thread.
        begin: begins a forward pass and gives what waits for its outputs, where a device can be given two batches; both
            are called on the slot's thread. None where it cannot.
        slot: the device, shared with other batchers.
        max_batch_size: items in one batch at most; fewer where ``forward_s`` ends before. Not used where there is a
            ``limit``.
        max_queue: items waiting at most; more are refused at once.
        max_queue_bytes: what they may weigh together.
        arriving: how many items are about to be queued; a batch with room waits for them.
        forward_s: how long a forward pass takes as good as always, by batch size, [0] unused; empty where that is not
            known.
        expected_s: how long a forward pass of so many takes on average; 0 where that is not known.
        learn: told of each forward pass that is over: its batch, since when it had the device, for how many seconds,
            the error if it failed.
        limit: how many items a batch may hold, which is found out while serving.
        clock: seconds, monotonic; deadlines are on it.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Output]],
        slot: DeviceSlot,
        *,
        max_batch_size: int = 1,
        max_queue: int,
        max_queue_bytes: int = 256_000_000,
        begin: Callable[[], Begin[Item, Output] | None] = lambda: None,
        arriving: Callable[[], int] = lambda: 0,
        forward_s: Callable[[], Sequence[float]] = tuple,
        expected_s: Callable[[int], float] = lambda _size: 0.0,
        learn: Learn[Item, Output] = lambda _batch, _started, _seconds, _error: None,
        limit: BatchLimit | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._begin = begin
        self._arriving = arriving
        self._slot = slot
        self._max_batch_size = max_batch_size
        self._limit = limit
        self._forward_s = forward_s
        self._expected_s = expected_s
        self._tell = learn
        self._clock = clock
        self._queue: DeadlineQueue[Item, Batched[Output]] = DeadlineQueue(max_queue, max_queue_bytes)
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self._fastest_s = 0.0
        self._ended = -math.inf
        self._seconds_per_item = 0.0

    @property
    def queue_length(self) -> int:
        """Items waiting."""
        return len(self._queue)

    @property
    def oldest_s(self) -> float:
        """How long the first that came has been waiting; 0 if none is."""
        queued_at = self._queue.oldest_at()
        return 0.0 if queued_at is None else self._clock() - queued_at

    @property
    def _largest(self) -> int:
        if self._limit is not None:
            return self._limit.size
        forward_s = self._forward_s()
        return min(self._max_batch_size, len(forward_s) - 1) if forward_s else self._max_batch_size

    def ahead_of(self, deadline: float) -> int:
        """How many items would go before one with that deadline that comes now."""
        return self._queue.ahead_of(deadline)

    def check_room(self, arriving: int = 1, size: int = 0) -> None:
        """Raises OverloadedError if that many more items, of so many bytes, have no room, with the time until they
        should."""
        self._queue.check_room(arriving, size, self._seconds_per_item)

    async def submit(self, item: Item, deadline: float, size: int = 0, trace: Trace | None = None) -> Batched[Output]:
        """Queues an item of ``size`` bytes and waits for its output. Cancelling the caller takes the item out of the
        queue.

        Raises:
            OverloadedError: the queue is full.
            DeadlineMissedError: the deadline (on ``clock``) cannot be met any more.
            NotReadyError: the batcher was closed.
            Exception: whatever ``run`` raised.
        """
        if self._closed:
            raise NotReadyError("the service is stopping")
        self.check_room(1, size)
        ticket = self._queue.push(item, deadline, size, self._clock(), trace)
        if trace is not None:
            trace.queued(ticket.queued_at)
        self._arrived.set()
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._serve())
        try:
            return await ticket.answer
        except asyncio.CancelledError:
            self._queue.leave(ticket)
            raise

    def look(self) -> None:
        """Says that fewer items are arriving than before, without one of them having come."""
        self._arrived.set()

    async def close(self) -> None:
        """Lets the running batch finish, answers what is queued with NotReadyError, and ends the worker."""
        self._closed = True
        for ticket in self._queue.clear():
            if not ticket.answer.done():
                ticket.answer.set_exception(NotReadyError("the service is stopping"))
        self._arrived.set()
        if self._worker is not None:
            await self._worker

    def _earliest(self) -> float:
        first = self._queue.first()
        return math.inf if first is None else first.deadline

    def _next_s(self) -> float:
        return self._expected_s(min(len(self._queue), self._largest))

    async def _serve(self) -> None:
        while not self._closed:
            await self._arrived.wait()
            async with self._slot.taken(self._earliest, self._next_s):
                await self._let_in()
                batch = self._take()
                begin = self._begin()
                if batch.tickets and begin is not None:
                    await self._forward_ahead(batch, begin)
                elif batch.tickets:
                    await self._forward(batch, partial(self._run, batch.items), self._clock())

    async def _let_in(self) -> None:
        """Gives what has arrived already its turn to queue up, while there is room in the batch: requests that lie in
        sockets, and for a moment pictures that are being decoded. It waits for nothing that is not here yet."""
        before = -1
        while before < len(self._queue) < self._largest:
            before = len(self._queue)
            await asyncio.sleep(0)
        if not self._arriving() or self._slot.contended:
            return
        try:
            async with asyncio.timeout(_MOMENT_S):
                while self._arriving() and len(self._queue) < self._largest and not self._closed:
                    self._arrived.clear()
                    await self._arrived.wait()
                    if self._slot.contended:
                        break
        except TimeoutError:
            pass
        finally:
            self._arrived.set()

    def _take(self) -> Batch[Item, Batched[Output]]:
        """Empties the queue into a batch, as far as it goes. Runs with the slot in hand."""
        waiting = len(self._queue)
        largest = self._largest if self._limit is None else self._limit.next(waiting)
        batch = cut(self._queue, largest, self._forward_s(), self._fastest_s, self._clock())
        batch = batch._replace(pressed=waiting >= max(2, largest))
        if not self._queue:
            self._arrived.clear()
        return batch

    async def _forward_ahead(self, batch: Batch[Item, Batched[Output]], begin: Begin[Item, Output]) -> None:
        """Forward passes of which the next begins before the one before it has ended, as long as full batches wait and
        no other checkpoint does."""
        following: Batch[Item, Batched[Output]] | None = batch
        started, finishing = self._clock(), await self._started(batch, begin)
        while following is not None:
            batch, finish, since = following, finishing, started
            following = None
            if len(self._queue) >= self._largest and not self._slot.contended and not self._closed:
                # Some of the queue may have gone or be late, so that this is not always a full batch.
                taken, started = self._take(), self._clock()
                if taken.tickets:
                    following, finishing = taken, await self._started(taken, begin)
            await self._forward(batch, finish, since)

    async def _started(
        self, batch: Batch[Item, Batched[Output]], begin: Begin[Item, Output]
    ) -> Callable[[], Sequence[Output]]:
        """Begins a forward pass; an error is kept for whoever waits for its outputs."""
        items = batch.items
        try:
            return await self._slot.run(lambda: begin(items))
        except Exception as error:
            return partial(_raise, error)

    async def _forward(
        self, batch: Batch[Item, Batched[Output]], finish: Callable[[], Sequence[Output]], started: float
    ) -> None:
        size = len(batch.tickets)
        self._slot.busy_until = started + self._expected_s(size)
        for ticket in batch.tickets:
            if ticket.trace is not None:
                ticket.trace.taken(started)
        try:
            outputs = await self._slot.run(finish)
            if len(outputs) != size:
                raise RuntimeError(f"{len(outputs)} outputs came of {size} items")
        except Exception as error:
            self._tell(batch, *self._held(started), error)
            await self._find_guilty(batch.tickets, error)
            return
        # From when the device was free and an item waited: what passes between two batches is a part of what they cost.
        due = max(self._slot.freed_at, self._ended, min(ticket.queued_at for ticket in batch.tickets))
        began, held_s = self._held(started)
        took_s = began + held_s - started
        if self._limit is not None and batch.pressed and batch.cut == "full":
            self._limit.learn(size, self._ended - due)
        self._learn(held_s, size)
        self._tell(batch, began, held_s, None)
        for ticket, output in zip(batch.tickets, outputs, strict=True):
            if not ticket.answer.done():
                ticket.answer.set_result(
                    Batched(output, size, started - ticket.queued_at, took_s),
                )

    async def _find_guilty(self, batch: list[_Ticket[Item, Output]], error: Exception) -> None:
        """Runs a batch that failed again in halves, so that nobody suffers from another's picture."""
        if len(batch) == 1:
            if not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            bisected = Batch(half, "bisected")
            await self._forward(bisected, partial(self._run, bisected.items), self._clock())

    def _held(self, started: float) -> tuple[float, float]:
        """Since when the pass that is just over had the device, and for how long: one that was begun ahead shared it
        with the pass before, whose time that was."""
        began, self._ended = max(started, self._ended), self._clock()
        return began, self._ended - began

    def _learn(self, forward_s: float, size: int) -> None:
        self._fastest_s = min(self._fastest_s or forward_s, forward_s)
        per_item = forward_s / size
        previous = self._seconds_per_item or per_item
        self._seconds_per_item = 0.8 * previous + 0.2 * per_item


def _raise(error: Exception) -> NoReturn:
    raise error
