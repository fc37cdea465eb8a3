"""Dynamic batching without a timer.

A timer makes a lone request wait for company that may never come, and under load it fixes a batch while the one before
it still runs. This batcher first waits for the device slot and then takes what is queued, up to the batch limit: a lone
request never waits, and batches grow by themselves while the device is busy. Only items that have arrived and are being
prepared make a batch with room wait, and only for a moment. The earliest deadline goes first, and no batch grows so
large that it would break the deadline of the first item in it. Cancelled requests, and those that can no longer meet
their deadline, are dropped before the forward pass. A batch that fails is run once more, and if it fails again, its
callers get the error.

A device that copies and computes at once is given the next batch while it computes, but only a full one: a batch that
could still grow stays in the queue.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, NoReturn, Protocol, TypeVar

from service.batching.limit import BatchLimit
from service.batching.queue import Batch, DeadlineQueue, Trace
from service.batching.slot import DeviceSlot
from service.domain.errors import NotReadyError

Item = TypeVar("Item")
Output = TypeVar("Output")

#: For so many seconds after a pass, the fastest so far says which requests are hopeless. Then the profile does too.
_TRUSTED_S = 1.0
#: How long a batch with room waits for arriving items. Small pictures are decoded within it, whose forward pass is so
#: short that a pass for each would be a waste; whoever is already in the batch hardly notices it.
_MOMENT_S = 0.005
#: The device time of an item, before one was measured.
_GUESSED_S = 0.01


@dataclass(frozen=True, slots=True)
class Batched(Generic[Output]):
    """An item's output, and what happened to its batch."""

    output: Output
    batch_size: int
    queue_s: float
    forward_s: float


class BatchRunner(Protocol[Item, Output]):
    """Runs the batches of one checkpoint, and knows how long they take."""

    @property
    def forward_s(self) -> Sequence[float]:
        """Seconds that nearly every forward pass stays below, by batch size, [0] unused; empty where that is
        unknown."""
        ...

    @property
    def overlaps(self) -> bool:
        """Whether the device takes a batch while it computes another, so that ``begin`` may be called."""
        ...

    @property
    def arriving(self) -> int:
        """How many items are about to be submitted."""
        ...

    def expected_s(self, size: int) -> float:
        """Mean seconds of a forward pass of this number of items; 0 if unknown."""
        ...

    @property
    def alone_s(self) -> float:
        """Mean seconds of a forward pass of one item while nothing else uses the machine; infinite if unknown."""
        ...

    def at_once(self, size: int) -> bool:
        """Whether a forward pass of this number of items may run on the event loop: it is over before a thread would
        have begun."""
        ...

    def run(self, items: Sequence[Item]) -> Sequence[Output]:
        """Runs a forward pass and returns one output for each item. Blocks; called on the slot's thread, unless
        ``at_once`` says otherwise."""
        ...

    def begin(self, items: Sequence[Item]) -> Callable[[], Sequence[Output]]:
        """Begins a forward pass and returns a function that waits for its outputs. Both are called on the slot's
        thread."""
        ...

    def learn(
        self, batch: Batch[Item, Batched[Output]], started: float, seconds: float, error: Exception | None
    ) -> None:
        """Notes a forward pass that is over.

        Args:
            batch: the batch that was run.
            started: when the pass got the device.
            seconds: how long it held the device.
            error: the exception, if it failed.
        """
        ...


class Batcher(Generic[Item, Output]):
    """Queues the items of one checkpoint and runs them in batches on a device slot.

    Not thread-safe: use it from one event loop.

    Args:
        runner: runs the batches.
        slot: the device, shared with other batchers.
        limit: how many items a batch may hold.
        max_queue: how many items may wait; more are refused at once.
        max_queue_bytes: how many bytes the waiting items may have together.
        clock: seconds, monotonic; deadlines are on it, and so must be the slot's times.
    """

    def __init__(
        self,
        runner: BatchRunner[Item, Output],
        slot: DeviceSlot,
        limit: BatchLimit,
        *,
        max_queue: int,
        max_queue_bytes: int = 256_000_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._slot = slot
        self._limit = limit
        self._clock = clock
        self._queue: DeadlineQueue[Item, Batched[Output]] = DeadlineQueue(max_queue, max_queue_bytes, slot.turns)
        self.waiting = self._queue.waiting
        """What waits, to be counted."""
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self._fastest_s = 0.0
        self._ended = -math.inf
        """When the last forward pass ended."""
        self._seconds_per_item = 0.0

    @property
    def queue_length(self) -> int:
        """How many items wait."""
        return len(self._queue)

    @property
    def oldest_s(self) -> float:
        """How long the longest-waiting item has been in the queue; 0 if it is empty. May be read from another
        thread."""
        queued_at = self._queue.oldest_at()
        return 0.0 if queued_at is None else self._clock() - queued_at

    @property
    def queue_bytes(self) -> int:
        """How many bytes the waiting items have."""
        return self._queue.bytes

    @property
    def seconds_per_item(self) -> float:
        """The device time of an item; 0 if unknown."""
        return self._seconds_per_item

    def ahead_of(self, deadline: float, caller: str = "") -> int:
        """How many items would go before one of that caller with that deadline that is submitted now."""
        return self._queue.ahead_of(deadline, caller)

    def check_room(self, items: int = 1, size: int = 0) -> None:
        """Raises OverloadedError if that many more items, of ``size`` bytes together, do not fit into the queue."""
        self._queue.check_room(items, size, self._seconds_per_item)

    async def submit(
        self, item: Item, deadline: float, size: int = 0, trace: Trace | None = None, caller: str = ""
    ) -> Batched[Output]:
        """Queues a caller's item of ``size`` bytes and waits for its output. Cancelling takes it out of the queue.

        Raises:
            OverloadedError: the queue is full.
            DeadlineMissedError: the deadline (on ``clock``) cannot be met any more.
            NotReadyError: the batcher was closed.
            Exception: the error that ``runner`` raised, both times that the batch was run.
        """
        if self._closed:
            raise NotReadyError("the service is stopping")
        self.check_room(1, size)
        ticket = self._queue.push(item, deadline, size, self._clock(), trace, caller)
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

    def arriving_changed(self) -> None:
        """Lets a batch that waits for arriving items look again at how many there are. Call it when an item that was
        arriving will not be submitted."""
        self._arrived.set()

    async def close(self) -> None:
        """Lets the running batch finish, answers waiting items with NotReadyError, and ends the worker."""
        self._closed = True
        for ticket in self._queue.clear():
            if not ticket.answer.done():
                ticket.answer.set_exception(NotReadyError("the service is stopping"))
        self._arrived.set()
        if self._worker is not None:
            await self._worker

    def _next_s(self) -> float:
        return self._runner.expected_s(min(len(self._queue), self._limit.size))

    async def _serve(self) -> None:
        while not self._closed:
            await self._arrived.wait()
            async with self._slot.taken(self._queue.urgency, self._next_s):
                await self._let_in()
                batch = self._take()
                if not batch.tickets:
                    continue
                if self._runner.overlaps:
                    await self._forward_ahead(batch)
                else:
                    await self._forward(batch, partial(self._runner.run, batch.items), self._clock())
                # The next one may be long in coming, and the items may lie in the memory of a process that has gone.
                del batch

    async def _let_in(self) -> None:
        """Lets items that have arrived join the queue while the next batch has room: first requests that are readable
        in their sockets, then for a moment those that the runner says are arriving."""
        before = -1
        while before < len(self._queue) < self._limit.size:
            before = len(self._queue)
            await asyncio.sleep(0)
        if not self._runner.arriving or self._slot.contended:
            return
        try:
            async with asyncio.timeout(_MOMENT_S):
                while self._runner.arriving and len(self._queue) < self._limit.size and not self._closed:
                    self._arrived.clear()
                    await self._arrived.wait()
                    if self._slot.contended:
                        break
        except TimeoutError:
            pass
        finally:
            self._arrived.set()

    def _take(self) -> Batch[Item, Batched[Output]]:
        """Takes the next batch from the queue. The slot is held meanwhile."""
        largest = self._limit.next(len(self._queue))
        each_s = self._seconds_per_item or _GUESSED_S
        fastest_s = self._fastest_s
        if self._clock() - self._ended > _TRUSTED_S:
            # Passes that were all slow do not say how fast one is once the machine is free.
            fastest_s = min(fastest_s, self._runner.alone_s)
        batch = self._queue.next_batch(largest, self._runner.forward_s, fastest_s, self._clock(), each_s)
        if not self._queue:
            self._arrived.clear()
        return batch

    async def _forward_ahead(self, batch: Batch[Item, Batched[Output]]) -> None:
        """Runs batches one after the other, and begins each before the one before it has ended, as long as full batches
        wait and no other checkpoint does."""
        following: Batch[Item, Batched[Output]] | None = batch
        started, finishing = self._clock(), await self._begun(batch)
        while following is not None:
            batch, finish, since = following, finishing, started
            following = None
            if len(self._queue) >= self._limit.size and not self._slot.contended:
                # This batch is not always full: some of the queue may have gone or be late.
                taken, started = self._take(), self._clock()
                if taken.tickets:
                    following, finishing = taken, await self._begun(taken)
            await self._forward(batch, finish, since)

    async def _begun(self, batch: Batch[Item, Batched[Output]]) -> Callable[[], Sequence[Output]]:
        """Begins a forward pass. An error is kept, and raised to whoever waits for the outputs."""
        try:
            return await self._slot.run(partial(self._runner.begin, batch.items))
        except Exception as error:
            return partial(_raise, error)

    async def _forward(
        self,
        batch: Batch[Item, Batched[Output]],
        finish: Callable[[], Sequence[Output]],
        started: float,
        *,
        again: bool = True,
    ) -> None:
        """Waits for a forward pass and answers its batch.

        Args:
            batch: the batch to run.
            finish: waits for the outputs; called on the slot's thread.
            started: when the pass was begun.
            again: whether a batch that fails is run once more.
        """
        size = len(batch.tickets)
        self._slot.busy_until = started + self._runner.expected_s(size)
        for ticket in batch.tickets:
            if ticket.trace is not None:
                ticket.trace.taken(started)
        try:
            outputs = finish() if self._runner.at_once(size) else await self._slot.run(finish)
            if len(outputs) != size:
                raise RuntimeError(f"a forward pass of {size} items gave {len(outputs)} outputs")
        except Exception as error:
            self._runner.learn(batch, *self._held(started), error)
            if not again:
                for ticket in batch.tickets:
                    if not ticket.answer.done():
                        ticket.answer.set_exception(error)
                return
        else:
            self._answer(batch, outputs, started)
            return
        # The whole batch again: no item is to blame, since all are 8-bit arrays of one shape. Not inside the except
        # clause, where the error's frames would still hold on to the memory of the pass.
        await self._forward(batch, partial(self._runner.run, batch.items), self._clock(), again=False)

    def _answer(self, batch: Batch[Item, Batched[Output]], outputs: Sequence[Output], started: float) -> None:
        """Learns from a forward pass that has just ended, and answers its batch."""
        size = len(outputs)
        # The device was free and an item waited from then on: the time between two batches is part of what they cost.
        due = max(self._slot.freed_at, self._ended, min(ticket.queued_at for ticket in batch.tickets))
        began, held_s = self._held(started)
        took_s = self._ended - started
        if batch.pressed and batch.cut == "full":
            self._limit.learn(size, self._ended - due)
        self._fastest_s = min(self._fastest_s or held_s, held_s)
        per_item_s = held_s / size
        self._seconds_per_item = 0.8 * (self._seconds_per_item or per_item_s) + 0.2 * per_item_s
        self._runner.learn(batch, began, held_s, None)
        for ticket, output in zip(batch.tickets, outputs, strict=True):
            if not ticket.answer.done():
                ticket.answer.set_result(Batched(output, size, started - ticket.queued_at, took_s))

    def _held(self, started: float) -> tuple[float, float]:
        """When the forward pass that has just ended got the device, and for how many seconds it held it. A pass that
        was begun ahead gets the device when the pass before it ends."""
        began, self._ended = max(started, self._ended), self._clock()
        return began, self._ended - began


def _raise(error: Exception) -> NoReturn:
    raise error
