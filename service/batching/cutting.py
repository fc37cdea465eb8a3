"""Where a batch ends: full, with the queue drained, or where another picture would break a deadline in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from service.batching.queue import DeadlineQueue, Ticket
from service.domain.errors import DeadlineMissedError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: A batch is cut short for a deadline only where that costs no more than a fifth of the throughput: a device that
#: computes sixteen pictures as fast as one would do nothing but single ones under load.
_WORTHWHILE = 0.8


class Batch(NamedTuple, Generic[Item, Answer]):
    """What goes through the device together, and what ended it."""

    tickets: list[Ticket[Item, Answer]]
    cut: str
    pressed: bool = False
    """Whether at least as many pictures waited as the batch may hold, and more than one."""

    @property
    def items(self) -> list[Item]:
        return [ticket.item for ticket in self.tickets]


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
