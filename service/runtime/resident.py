"""One checkpoint in the ledger of device memory: the bytes it needs, the requests that use it, and its value."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

#: A use counts half after this many seconds.
_HALF_LIFE_S = 60.0


class Needs(NamedTuple):
    """The bytes that a checkpoint needs on the device."""

    footprint: int
    """At its largest batch."""
    load_peak: int
    """While it is loaded."""

    @property
    def most(self) -> int:
        """The larger of the two."""
        return max(self)


async def _nothing() -> None:
    pass


@dataclass(slots=True, eq=False)
class Resident:
    """A checkpoint in the ledger, whether it is loaded or not."""

    name: str
    load: Callable[[], Awaitable[None]]
    unload: Callable[[], Awaitable[None]]
    needs: Callable[[], Needs]
    prepare: Callable[[], Awaitable[None]] = _nothing
    """Does the part of a load that needs no device memory, and is awaited before others are unloaded for this load."""
    load_s: Callable[[], float] = lambda: 0.0
    """How many seconds a load takes."""
    worth: float = 1.0
    """How much a use counts: the checkpoint's accuracy as a fraction."""
    pinned: bool = False
    evicted: Callable[[str], None] = lambda _reason: None
    """Called after each unload with its reason: "room" for another load, or "asked" by a caller."""
    loaded: bool = False
    users: int = 0
    """How many requests use it now."""
    held: int = 0
    """How many bytes the ledger charges it."""
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    """The requests that wait for its load."""
    evicting: bool = False
    """Whether a load that waits for room has chosen it to be unloaded."""
    unloading: set[object] = field(default_factory=set)
    """A token for each caller who waits for its unload."""
    _uses: float = 0.0
    _used_at: float = 0.0

    @property
    def leaving(self) -> bool:
        """Whether it takes no new requests until it has been unloaded."""
        return self.evicting or bool(self.unloading)

    def let_in(self) -> None:
        """Lets all who wait for its load use it."""
        for waiter in self._waiting():
            self.users += 1
            waiter.set_result(None)

    def refuse(self, error: Exception) -> None:
        """Raises an error to all who wait for its load."""
        for waiter in self._waiting():
            waiter.set_exception(error)

    def _waiting(self) -> list[asyncio.Future[None]]:
        waiting, self.waiters = self.waiters, []
        return [waiter for waiter in waiting if not waiter.done()]

    def use(self, now: float) -> None:
        """Counts a use.

        Args:
            now: seconds, on the ledger's clock.
        """
        self._uses = self._faded(now) + 1.0
        self._used_at = now

    def value(self, now: float) -> float:
        """Recent use, weighted by accuracy, for each byte that it is charged."""
        return self.merit(now) / max(1, self.held)

    def merit(self, now: float) -> float:
        """Recent use, weighted by accuracy."""
        # Never 0, so that among unused checkpoints the large and the inaccurate ones go first.
        return self.worth * (self._faded(now) + 1e-3)

    def _faded(self, now: float) -> float:
        return self._uses * math.exp2(max(-20.0, (self._used_at - now) / _HALF_LIFE_S))
