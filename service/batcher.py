"""Dynamic batching, not by the clock.

A timer cuts batches by the clock: a lone request waits for company that never comes, and under load the batch is
frozen while the one before it still runs. Here the batcher first waits for the device slot and then takes what is
queued, up to the largest batch: a lone request never waits, and batches grow by themselves while the device is busy.
Only for requests that are here already and being decoded does a batch with room wait, and that no more than a moment.
The earliest deadline goes first. Requests that were cancelled, or can no longer meet their deadline, are dropped
before the forward pass, never inside it.

A device that copies and computes at once is given the next batch while it computes, but only when that batch is full
already: a batch that could still grow is not frozen.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, NoReturn, TypeAlias, TypeVar

from service.device import DeviceSlot
from service.errors import DeadlineMissedError, NotReadyError, OverloadedError

Item = TypeVar("Item")
Output = TypeVar("Output")


#: How long a batch with room waits for pictures that are being decoded: a few of the small ones, for which a forward
#: pass of their own would be a waste.
_MOMENT_S = 0.005

Begin: TypeAlias = Callable[[Sequence[Item]], Callable[[], Sequence[Output]]]


@dataclass(frozen=True, slots=True)
class Batched(Generic[Output]):
    """What a batch gave for one item of it."""

    output: Output
    batch_size: int
    queue_s: float
    forward_s: float


@dataclass(slots=True, order=True)
class _Ticket(Generic[Item, Output]):
    deadline: float
    number: int
    item: Item = field(compare=False)
    queued_at: float = field(compare=False)
    answer: asyncio.Future[Batched[Output]] = field(compare=False)


class Batcher(Generic[Item, Output]):
    """Queues items of one checkpoint and runs them in batches on a device slot. Lives on one event loop.

    Args:
        run: the blocking forward pass, one output for each item; called on the slot's thread.
        begin: begins a forward pass and gives what waits for its outputs, where a device can be given two batches; both
            are called on the slot's thread. None where it cannot.
        slot: the device, shared with other batchers.
        max_batch_size: items in one batch at most.
        max_queue: items waiting at most; more are refused at once.
        arriving: how many items are about to be queued; a batch with room waits for them.
        clock: seconds, monotonic; deadlines are on it.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Output]],
        slot: DeviceSlot,
        *,
        max_batch_size: int,
        max_queue: int,
        begin: Callable[[], Begin[Item, Output] | None] = lambda: None,
        arriving: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._begin = begin
        self._arriving = arriving
        self._slot = slot
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._clock = clock
        self._queue: list[_Ticket[Item, Output]] = []
        self._numbers = itertools.count()
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self._fastest_s = 0.0
        self._seconds_per_item = 0.0

    @property
    def queue_length(self) -> int:
        """Items waiting, the cancelled ones among them not yet swept out."""
        return len(self._queue)

    def check_room(self, arriving: int = 1) -> None:
        """Raises OverloadedError if that many more items have no room, with the time until they should."""
        excess = len(self._queue) + arriving - self._max_queue
        if excess > 0:
            raise OverloadedError(
                f"{len(self._queue)} pictures are waiting, the most that are let in is {self._max_queue}",
                # Before the first batch nothing is known of the rate; a second is HTTP's smallest advice anyway.
                retry_after_s=excess * self._seconds_per_item or 1.0,
            )

    async def submit(self, item: Item, deadline: float) -> Batched[Output]:
        """Queues an item and waits for its output. Cancelling the caller takes the item out of the queue.

        Raises:
            OverloadedError: the queue is full.
            DeadlineMissedError: the deadline (on ``clock``) cannot be met any more.
            NotReadyError: the batcher was closed.
            Exception: whatever ``run`` raised.
        """
        if self._closed:
            raise NotReadyError("the service is stopping")
        self.check_room()
        loop = asyncio.get_running_loop()
        ticket = _Ticket(deadline, next(self._numbers), item, self._clock(), loop.create_future())
        heapq.heappush(self._queue, ticket)
        self._arrived.set()
        if self._worker is None:
            self._worker = loop.create_task(self._serve())
        return await ticket.answer

    def look(self) -> None:
        """Says that fewer items are arriving than before, without one of them having come."""
        self._arrived.set()

    async def close(self) -> None:
        """Lets the running batch finish, answers what is queued with NotReadyError, and ends the worker."""
        self._closed = True
        for ticket in self._queue:
            if not ticket.answer.done():
                ticket.answer.set_exception(NotReadyError("the service is stopping"))
        self._queue.clear()
        self._arrived.set()
        if self._worker is not None:
            await self._worker

    async def _serve(self) -> None:
        while not self._closed:
            await self._arrived.wait()
            async with self._slot.taken():
                await self._let_in()
                batch = self._take()
                begin = self._begin()
                if batch and begin is not None:
                    await self._forward_ahead(batch, begin)
                elif batch:
                    await self._forward(batch, partial(self._run, _items(batch)), self._clock())

    async def _let_in(self) -> None:
        """Gives what has arrived already its turn to queue up, while there is room in the batch: requests that lie in
        sockets, and for a moment pictures that are being decoded. It waits for nothing that is not here yet."""
        before = -1
        while before < len(self._queue) < self._max_batch_size:
            before = len(self._queue)
            await asyncio.sleep(0)
        if not self._arriving() or self._slot.contended:
            return
        try:
            async with asyncio.timeout(_MOMENT_S):
                while self._arriving() and len(self._queue) < self._max_batch_size and not self._closed:
                    self._arrived.clear()
                    await self._arrived.wait()
                    if self._slot.contended:
                        break
        except TimeoutError:
            pass
        finally:
            self._arrived.set()

    def _take(self) -> list[_Ticket[Item, Output]]:
        """Empties the queue into a batch, as far as it goes. Runs with the slot in hand."""
        batch: list[_Ticket[Item, Output]] = []
        now = self._clock()
        while self._queue and len(batch) < self._max_batch_size:
            ticket = heapq.heappop(self._queue)
            if ticket.answer.done():  # its caller has gone
                continue
            # No forward pass was ever faster than the fastest, so that this drops only what is lost for certain.
            if now + self._fastest_s > ticket.deadline:
                late_ms = (now - ticket.queued_at) * 1000
                ticket.answer.set_exception(
                    DeadlineMissedError(f"the deadline cannot be met any more, after {late_ms:.0f} ms in the queue")
                )
                continue
            batch.append(ticket)
        if not self._queue:
            self._arrived.clear()
        return batch

    async def _forward_ahead(self, batch: list[_Ticket[Item, Output]], begin: Begin[Item, Output]) -> None:
        """Forward passes of which the next begins before the one before it has ended, as long as full batches wait and
        no other checkpoint does."""
        following, started = batch, self._clock()
        finishing = await self._started(batch, begin)
        while following:
            batch, finish, since = following, finishing, started
            following = []
            if len(self._queue) >= self._max_batch_size and not self._slot.contended and not self._closed:
                # Some of the queue may have gone or be late, so that this is not always a full batch.
                following, started = self._take(), self._clock()
                if following:
                    finishing = await self._started(following, begin)
            await self._forward(batch, finish, since)

    async def _started(
        self, batch: list[_Ticket[Item, Output]], begin: Begin[Item, Output]
    ) -> Callable[[], Sequence[Output]]:
        """Begins a forward pass; an error is kept for whoever waits for its outputs."""
        items = _items(batch)
        try:
            return await self._slot.run(lambda: begin(items))
        except Exception as error:
            return partial(_raise, error)

    async def _forward(
        self, batch: list[_Ticket[Item, Output]], finish: Callable[[], Sequence[Output]], started: float
    ) -> None:
        try:
            outputs = await self._slot.run(finish)
            if len(outputs) != len(batch):
                raise RuntimeError(f"{len(outputs)} outputs came of {len(batch)} items")
        except Exception as error:
            for ticket in batch:
                if not ticket.answer.done():
                    ticket.answer.set_exception(error)
            return
        forward_s = self._clock() - started
        self._learn(forward_s, len(batch))
        for ticket, output in zip(batch, outputs, strict=True):
            if not ticket.answer.done():
                ticket.answer.set_result(
                    Batched(output, len(batch), started - ticket.queued_at, forward_s),
                )

    def _learn(self, forward_s: float, size: int) -> None:
        self._fastest_s = min(self._fastest_s or forward_s, forward_s)
        per_item = forward_s / size
        previous = self._seconds_per_item or per_item
        self._seconds_per_item = 0.8 * previous + 0.2 * per_item


def _items(batch: Sequence[_Ticket[Item, Output]]) -> list[Item]:
    return [ticket.item for ticket in batch]


def _raise(error: Exception) -> NoReturn:
    raise error
