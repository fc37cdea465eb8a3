"""Pictures on their way to the queue: they wait for a load, or are being decoded."""

from __future__ import annotations

from typing import NamedTuple


class Arrival(NamedTuple):
    """One of them."""

    deadline: float
    since: float
    size: int
    """Bytes, as the client sent them."""


class Arriving:
    """All of one checkpoint's."""

    def __init__(self) -> None:
        self._arrivals: list[Arrival] = []
        self.size = 0
        """Bytes of all of them."""

    def __len__(self) -> int:
        return len(self._arrivals)

    def come(self, deadline: float, since: float, size: int) -> Arrival:
        """A picture begins; it must ``end``, whatever becomes of it."""
        arrival = Arrival(deadline, since, size)
        self._arrivals.append(arrival)
        self.size += size
        return arrival

    def end(self, arrival: Arrival) -> None:
        """It will be queued now, or never."""
        self._arrivals.remove(arrival)
        self.size -= arrival.size

    def ahead_of(self, deadline: float) -> int:
        """How many will go before one with that deadline."""
        return sum(arrival.deadline <= deadline for arrival in self._arrivals)

    def oldest_s(self, now: float) -> float:
        """How long the first has been on its way; 0 if there is none. Another thread may ask."""
        return max((now - arrival.since for arrival in list(self._arrivals)), default=0.0)
