"""A checkpoint as the ledger of device memory sees it: what it needs, who runs on it, and what its place is worth."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

#: A use counts half after so long.
_HALF_LIFE_S = 60.0


class Needs(NamedTuple):
    """Bytes of a checkpoint on the device."""

    footprint: int
    load_peak: int

    @property
    def most(self) -> int:
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
    """Does what of a load can fail without device memory. It comes before anything is unloaded for the load."""
    load_s: Callable[[], float] = lambda: 0.0
    """How long a load takes."""
    worth: float = 1.0
    """What a use of it counts: its accuracy as a fraction."""
    pinned: bool = False
    evicted: Callable[[str], None] = lambda _reason: None
    """Told when it has left memory: another load needed the "room", or somebody "asked"."""
    loaded: bool = False
    users: int = 0
    """Requests that run on it."""
    held: int = 0
    """Bytes that it is charged."""
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    """Requests that wait until it is loaded."""
    evicting: bool = False
    unloading: set[object] = field(default_factory=set)
    """Who asked that it be unloaded, and waits for that."""
    _uses: float = 0.0
    _used_at: float = 0.0

    @property
    def leaving(self) -> bool:
        """It takes no new requests until it has been unloaded: another load needs the room, or somebody asked."""
        return self.evicting or bool(self.unloading)

    def let_in(self) -> None:
        """Everybody who waits for it runs on it now."""
        for waiter in self._waiting():
            self.users += 1
            waiter.set_result(None)

    def refuse(self, error: Exception) -> None:
        """Tells everybody who waits for it why it is not loaded."""
        for waiter in self._waiting():
            waiter.set_exception(error)

    def _waiting(self) -> list[asyncio.Future[None]]:
        waiting, self.waiters = self.waiters, []
        return [waiter for waiter in waiting if not waiter.done()]

    def use(self, now: float) -> None:
        """Counts a use."""
        self._uses = self._faded(now) + 1.0
        self._used_at = now

    def value(self, now: float) -> float:
        """Accuracy-weighted recent use over bytes: what its place in memory is worth."""
        return self.worth * (self._faded(now) + 1e-3) / max(1, self.held)

    def _faded(self, now: float) -> float:
        return self._uses * math.exp2(max(-20.0, (self._used_at - now) / _HALF_LIFE_S))
