"""The queue of one checkpoint: bounded, earliest deadline first, and emptied batch by batch. While one of several
callers has many items, callers take turns (``turns.py``)."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import math
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from service.batching.turns import Turns, Urgency
from service.domain.errors import DeadlineMissedError, OverloadedError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: A batch is cut short for a deadline only where that costs at most a fifth of the throughput. A device that computes
#: sixteen items as fast as one would otherwise run single items under load.
_WORTHWHILE = 0.8


class Trace(Protocol):
    """Follows one item through the batcher. The ticket carries it."""

    def queued(self, at: float) -> None:
        """The item has been queued."""
        ...

    def taken(self, at: float) -> None:
        """The forward pass of the item's batch begins. Called again if that pass fails and the batch is run again."""
        ...


@dataclass(slots=True, order=True)
class Ticket(Generic[Item, Answer]):
    """An item's place in the queue. Tickets sort by deadline, and equal deadlines by arrival."""

    deadline: float
    number: int
    item: Item = field(compare=False)
    size: int = field(compare=False)
    """Bytes."""
    queued_at: float = field(compare=False)
    answer: asyncio.Future[Answer] = field(compare=False)
    trace: Trace | None = field(compare=False, default=None)
    caller: str = field(compare=False, default="")


class Batch(NamedTuple, Generic[Item, Answer]):
    """Tickets whose items go through the device together."""

    tickets: list[Ticket[Item, Answer]]
    cut: str
    """What ended the batch: it is "full", it has "drained" the queue, or one more item would have broken a "deadline"
    in it."""
    pressed: bool = False
    """Whether at least as many items waited as the batch may hold, and more than one."""

    @property
    def items(self) -> list[Item]:
        """What goes into the forward pass."""
        return [ticket.item for ticket in self.tickets]


class DeadlineQueue(Generic[Item, Answer]):
    """Tickets in the order of their deadlines.

    Args:
        max_items: how many may wait.
        max_bytes: how many bytes the waiting items may have together.
        turns: of the device, which other queues may share.
    """

    def __init__(self, max_items: int, max_bytes: int, turns: Turns | None = None) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._tickets: list[Ticket[Item, Answer]] = []
        self.waiting: Sized = self._tickets
        """The same for whoever counts them at each decision: calling ``len`` of the queue takes three times as long."""
        self._numbers = itertools.count()
        self._bytes = 0
        self._turns = turns or Turns()

    def __len__(self) -> int:
        return len(self._tickets)

    def check_room(self, items: int, size: int, per_item_s: float) -> None:
        """Checks that more items fit into the queue.

        Args:
            items: how many more.
            size: how many bytes they have together.
            per_item_s: seconds of device time that an item takes, from which the time until there is room follows.

        Raises:
            OverloadedError: they do not fit.
        """
        excess = len(self) + items - self._max_items
        if excess > 0:
            raise OverloadedError(
                f"{len(self)} pictures are waiting, the most that are let in is {self._max_items}",
                # Before the first batch the rate is unknown; a second is the least that HTTP can advise anyway.
                retry_after_s=excess * per_item_s or 1.0,
            )
        # An empty queue takes one item of any size.
        if self._bytes + size > self._max_bytes and len(self) + items > 1:
            excess_bytes = self._bytes + size - self._max_bytes
            share = min(1.0, excess_bytes / max(1, self._bytes))
            raise OverloadedError(
                f"the waiting pictures take {self._bytes / 1e6:.0f} MB, the most is {self._max_bytes / 1e6:.0f} MB",
                retry_after_s=max(1, share * len(self)) * per_item_s or 1.0,
            )

    def push(
        self, item: Item, deadline: float, size: int, now: float, trace: Trace | None = None, caller: str = ""
    ) -> Ticket[Item, Answer]:
        """Queues an item. Callers check the room first."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        ticket = Ticket(deadline, next(self._numbers), item, size, now, answer, trace, caller)
        if not self._tickets or self._tickets[-1].deadline <= deadline:
            self._tickets.append(ticket)  # as nearly always
        else:
            bisect.insort(self._tickets, ticket)
        self._bytes += size
        self._turns.join(caller)
        return ticket

    def first(self) -> Ticket[Item, Answer] | None:
        """The ticket with the earliest deadline; None if the queue is empty. Drops tickets whose callers have gone."""
        while self._tickets and self._tickets[0].answer.done():
            self.pop()
        return self._tickets[0] if self._tickets else None

    def oldest_at(self) -> float | None:
        """When the longest-waiting ticket was queued. May be read from another thread."""
        return min((ticket.queued_at for ticket in list(self._tickets)), default=None)

    @property
    def bytes(self) -> int:
        """How many bytes the waiting items have."""
        return self._bytes

    def ahead_of(self, deadline: float, caller: str = "") -> int:
        """How many tickets would go before an item of that caller with that deadline that is queued now."""
        if self._turns.fair_to(caller):
            return self._ahead_in_turn(deadline, caller)
        return bisect.bisect_right(self._tickets, deadline, key=lambda ticket: ticket.deadline)

    def _ahead_in_turn(self, deadline: float, caller: str) -> int:
        """The same while callers take turns: of a heavy caller as many as this one has, and one."""
        own = lights = 0
        heavy: dict[str, int] = {}
        for ticket in self._tickets:
            other = ticket.caller
            if other == caller:
                own += ticket.deadline <= deadline
            elif not ticket.answer.done():
                if self._turns.light(other):
                    lights += ticket.deadline <= deadline
                else:
                    heavy[other] = heavy.get(other, 0) + 1
        return own + lights + sum(min(count, own + 1) for count in heavy.values())

    def urgency(self) -> Urgency:
        """The place in line of the ticket that goes first; the last place if the queue is empty."""
        first = self.first()
        if first is None:
            return math.inf, math.inf
        if not self._turns.fair:
            return 0.0, first.deadline
        owes_s, ticket = min(map(_place, self._lines()))
        return owes_s, ticket.deadline

    def pop(self) -> Ticket[Item, Answer]:
        """Takes out the ticket that ``first`` returns."""
        ticket = self._tickets[0]
        self._take_out(ticket)
        return ticket

    def _take_out(self, ticket: Ticket[Item, Answer]) -> None:
        if self._tickets[0] is ticket:
            self._tickets.pop(0)  # as nearly always
        else:
            self._tickets.remove(ticket)
        self._bytes -= ticket.size
        self._turns.leave(ticket.caller)

    def leave(self, ticket: Ticket[Item, Answer]) -> None:
        """Takes out a ticket whose caller has gone, if it is still in the queue."""
        if ticket in self._tickets:
            self._take_out(ticket)

    def clear(self) -> Sequence[Ticket[Item, Answer]]:
        """Takes out all tickets."""
        tickets = tuple(self._tickets)
        for ticket in tickets:
            self._take_out(ticket)
        return tickets

    def _in_turn(self) -> Iterator[Ticket[Item, Answer]]:
        """The tickets in the order in which they go, while they are taken out one by one."""
        if self._turns.fair:
            lines = self._lines()
            while lines:
                line = min(lines, key=_place)
                yield line.tickets.pop()
                if not line.tickets:
                    lines.remove(line)
        else:
            while (ticket := self.first()) is not None:
                yield ticket

    def _lines(self) -> list[_Line[Item, Answer]]:
        """The tickets of light callers in one line, and those of each heavy caller in one of its own, the earliest
        deadlines last. Those whose callers have gone are left out."""
        turns, lines = self._turns, dict[str | None, _Line[Item, Answer]]()
        for ticket in reversed(self._tickets):
            if not ticket.answer.done():
                caller = None if turns.light(ticket.caller) else ticket.caller
                line = lines.get(caller)
                if line is None:
                    line = lines[caller] = _Line(turns, caller, [])
                line.tickets.append(ticket)
        return list(lines.values())

    def next_batch(
        self, largest: int, forward_s: Sequence[float], fastest_s: float, now: float, each_s: float = 0.0
    ) -> Batch[Item, Answer]:
        """Takes the next batch out, and answers tickets that are certain to miss their deadlines with
        DeadlineMissedError.

        Args:
            largest: how many items the batch may hold.
            forward_s: seconds that a forward pass takes, by batch size, [0] unused; empty where that is unknown.
            fastest_s: seconds below which no forward pass is known to have been.
            now: seconds, on the deadlines' clock.
            each_s: seconds of device time that an item takes, which its caller has used then.
        """
        waiting = len(self)
        pressed = waiting >= max(2, largest)
        if self._turns.fair:
            largest, pressed = self._shared(largest, forward_s), False
        fullest = min(largest, waiting)
        batch: list[Ticket[Item, Answer]] = []
        bound: float | None = None  # the earliest deadline in the batch that can be met
        in_turn = self._in_turn()
        while len(batch) < largest:
            ticket = next(in_turn, None)
            if ticket is None:
                return Batch(batch, "drained", pressed)
            # No forward pass is faster than the fastest, so only hopeless tickets are dropped.
            if now + fastest_s > ticket.deadline:
                late_ms = (now - ticket.queued_at) * 1000
                self._take_out(ticket)
                ticket.answer.set_exception(
                    DeadlineMissedError(f"the deadline cannot be met any more, after {late_ms:.0f} ms in the queue")
                )
                continue
            if forward_s:
                ends_at = now + forward_s[len(batch) + 1]
                if bound is not None and ends_at > bound:
                    now_each_s, full_each_s = forward_s[len(batch)] / len(batch), forward_s[fullest] / fullest
                    if full_each_s >= _WORTHWHILE * now_each_s:
                        return Batch(batch, "deadline", pressed)
                    # That deadline is given up for the throughput; the next that can be met is the bound.
                    bound = None
                if bound is None and ends_at <= ticket.deadline:
                    bound = ticket.deadline
            self._turns.served(ticket.caller, each_s)
            self._take_out(ticket)
            batch.append(ticket)
        return Batch(batch, "full", pressed)

    def _shared(self, largest: int, forward_s: Sequence[float]) -> int:
        """How many items the next batch may hold while callers take turns."""
        lights = sum(len(line.tickets) for line in self._lines() if line.caller is None)
        return self._turns.largest(lights, largest, forward_s)


class _Line(NamedTuple, Generic[Item, Answer]):
    """Tickets that go in the order of their deadlines, the earliest last."""

    turns: Turns
    caller: str | None
    """The heavy caller whose they are; None for all light callers."""
    tickets: list[Ticket[Item, Answer]]


def _place(line: _Line[Item, Answer]) -> tuple[float, Ticket[Item, Answer]]:
    """The place of a line's first ticket among those of all lines."""
    owes_s = 0.0 if line.caller is None else line.turns.owes_s(line.caller)
    return owes_s, line.tickets[-1]
