"""The pictures of a checkpoint that are not queued yet, because they wait for a load or are being decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from service.domain.shares import FEW


class Arrival(NamedTuple):
    """A picture that is not queued yet."""

    deadline: float
    since: float
    size: int
    """Encoded bytes."""
    far: bool = False
    """Whether it will be long in coming: it takes long to decode."""
    caller: str = ""


class Arriving:
    """The pictures of one checkpoint that are not queued yet.

    Args:
        changed: called when a batch need not wait for one of them any more.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._arrivals: list[Arrival] = []
        self.size = 0
        """Encoded bytes of all of them."""
        self.soon = 0
        """How many of them will be queued soon. Batches wait for these, and these alone count as ahead of others."""

    def __len__(self) -> int:
        return len(self._arrivals)

    def begin(self, deadline: float, since: float, size: int, caller: str = "", *, far: bool = False) -> Arrival:
        """Adds a picture. Always call ``end`` afterwards."""
        arrival = Arrival(deadline, since, size, far, caller)
        self._arrivals.append(arrival)
        self.size += size
        self.soon += not far
        return arrival

    def outran(self, arrival: Arrival) -> Arrival:
        """Notes that a picture takes far longer than expected. Returns what stands for it from now on."""
        late = arrival._replace(far=True)
        self._arrivals[self._arrivals.index(arrival)] = late
        self.soon -= not arrival.far
        self._changed()
        return late

    def end(self, arrival: Arrival) -> None:
        """Removes a picture: it is queued now, or never will be."""
        self._arrivals.remove(arrival)
        self.size -= arrival.size
        self.soon -= not arrival.far
        self._changed()

    def ahead_of(self, deadline: float, caller: str = "") -> int:
        """How many of them will go before a caller's picture with that deadline. Of another caller with many, as many
        do as this one has, or a few (``batching/turns.py``)."""
        before = [arrival.caller for arrival in self._arrivals if arrival.deadline <= deadline and not arrival.far]
        if len(before) <= FEW:
            return len(before)
        counts = Counter(before)
        most = max(FEW, counts[caller] + 1)
        return sum(count if other == caller else min(most, count) for other, count in counts.items())

    def oldest_s(self, now: float) -> float:
        """Seconds since the first of them arrived; 0 if there are none. May be read from another thread."""
        return max((now - arrival.since for arrival in list(self._arrivals)), default=0.0)
