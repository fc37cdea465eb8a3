"""The queue of one checkpoint: bounded, earliest deadline first, and quit by those whose callers have gone."""

from __future__ import annotations

import asyncio
import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from service.domain.errors import DeadlineMissedError, OverloadedError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: A batch is cut short for a deadline only where that costs no more than a fifth of the throughput: a device that
#: computes sixteen pictures as fast as one would do nothing but single ones under load.
_WORTHWHILE = 0.8


class Trace(Protocol):
    """Follows one ticket. Whoever brought it finds it at the ticket again."""

    def queued(self, at: float) -> None:
        """It waits."""
        ...

    def taken(self, at: float) -> None:
        """Its forward pass begins, or begins again after one that failed."""
        ...


@dataclass(slots=True, order=True)
class Ticket(Generic[Item, Answer]):
    """An item's place in the queue."""

    deadline: float
    number: int
    item: Item = field(compare=False)
    size: int = field(compare=False)
    """Bytes."""
    queued_at: float = field(compare=False)
    answer: asyncio.Future[Answer] = field(compare=False)
    trace: Trace | None = field(compare=False, default=None)


class Batch(NamedTuple, Generic[Item, Answer]):
    """What goes through the device together, and what ended it."""

    tickets: list[Ticket[Item, Answer]]
    cut: str
    pressed: bool = False
    """Whether at least as many pictures waited as the batch may hold, and more than one."""

    @property
    def items(self) -> list[Item]:
        return [ticket.item for ticket in self.tickets]


class DeadlineQueue(Generic[Item, Answer]):
    """Tickets by their deadlines.

    Args:
        max_items: the most that may wait.
        max_bytes: the most that they may weigh together.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._tickets: list[Ticket[Item, Answer]] = []
        self._numbers = itertools.count()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def check_room(self, items: int, size: int, per_item_s: float) -> None:
        """Raises OverloadedError if so many more items of so many bytes have no room, with the time until they should,
        at ``per_item_s`` an item."""
        excess = len(self) + items - self._max_items
        if excess > 0:
            raise OverloadedError(
                f"{len(self)} pictures are waiting, the most that are let in is {self._max_items}",
                # Before the first batch nothing is known of the rate; a second is HTTP's smallest advice anyway.
                retry_after_s=excess * per_item_s or 1.0,
            )
        # One item has room in an empty queue, whatever it weighs.
        if self._bytes + size > self._max_bytes and len(self) + items > 1:
            excess_bytes = self._bytes + size - self._max_bytes
            share = min(1.0, excess_bytes / max(1, self._bytes))
            raise OverloadedError(
                f"the pictures that wait take {self._bytes / 1e6:.0f} MB, the most is {self._max_bytes / 1e6:.0f} MB",
                retry_after_s=max(1, share * len(self)) * per_item_s or 1.0,
            )

    def push(
        self, item: Item, deadline: float, size: int, now: float, trace: Trace | None = None
    ) -> Ticket[Item, Answer]:
        """Queues an item. ``check_room`` first."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        ticket = Ticket(deadline, next(self._numbers), item, size, now, answer, trace)
        bisect.insort(self._tickets, ticket)
        self._bytes += size
        return ticket

    def first(self) -> Ticket[Item, Answer] | None:
        """The earliest deadline; None if nobody waits."""
        while self._tickets and self._tickets[0].answer.done():
            self.pop()
        return self._tickets[0] if self._tickets else None

    def oldest_at(self) -> float | None:
        """When the one that has waited longest was queued. Another thread may ask."""
        return min((ticket.queued_at for ticket in list(self._tickets)), default=None)

    def ahead_of(self, deadline: float) -> int:
        """How many would go before an item with that deadline that comes now."""
        return bisect.bisect_right(self._tickets, deadline, key=lambda ticket: ticket.deadline)

    def pop(self) -> Ticket[Item, Answer]:
        """Takes ``first`` out."""
        ticket = self._tickets.pop(0)
        self._bytes -= ticket.size
        return ticket

    def leave(self, ticket: Ticket[Item, Answer]) -> None:
        """Frees the place of a ticket whose caller has gone while it waited."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
            self._bytes -= ticket.size

    def clear(self) -> Sequence[Ticket[Item, Answer]]:
        """Everybody."""
        tickets, self._tickets = self._tickets, []
        self._bytes = 0
        return tickets


def cut(
    queue: DeadlineQueue[Item, Answer], largest: int, forward_s: Sequence[float], fastest_s: float, now: float
) -> Batch[Item, Answer]:
    """Takes the next batch out of a queue, and drops what is late for certain.

    Args:
        queue: earliest deadline first.
        largest: pictures in a batch at most.
        forward_s: what a forward pass takes, by batch size, [0] unused; empty where that is not known.
        fastest_s: what the fastest of all took.
        now: seconds, on the deadlines' clock.
    """
    batch: list[Ticket[Item, Answer]] = []
    enough = min(largest, len(queue))
    bound: float | None = None
    while len(batch) < largest:
        ticket = queue.first()
        if ticket is None:
            return Batch(batch, "drained")
        # No forward pass was ever faster than the fastest, so that this drops only what is lost for certain.
        if now + fastest_s > ticket.deadline:
            late_ms = (now - ticket.queued_at) * 1000
            queue.pop().answer.set_exception(
                DeadlineMissedError(f"the deadline cannot be met any more, after {late_ms:.0f} ms in the queue")
            )
            continue
        if forward_s and bound is not None and now + forward_s[len(batch) + 1] > bound:
            alone, full = forward_s[len(batch)] / len(batch), forward_s[enough] / enough
            if full >= _WORTHWHILE * alone:
                return Batch(batch, "deadline")
            # It is lost for the others' sake; the next that can be met sets the bound.
            bound = None
        # The earliest deadline that can be met sets the bound.
        if forward_s and bound is None and now + forward_s[len(batch) + 1] <= ticket.deadline:
            bound = ticket.deadline
        batch.append(queue.pop())
    return Batch(batch, "full")
