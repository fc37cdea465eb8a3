"""How often one thing may be done: so often at once, and then once more for each pause."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable


class Cooldown:
    """Counts how often each of some things was done lately. Not thread-safe.

    Args:
        times: how often a thing may be done within ``within_s``.
        within_s: seconds.
        clock: seconds, monotonic.
    """

    def __init__(self, times: int, within_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._times = times
        self._within_s = within_s
        self._clock = clock
        self._done: dict[Hashable, list[float]] = {}

    def take(self, thing: Hashable) -> float:
        """Counts that a thing is done now, if it may be. Returns 0, or the seconds until it may be done again."""
        now = self._clock()
        done = [at for at in self._done.get(thing, ()) if now - at < self._within_s]
        if len(done) >= self._times:
            return done[0] + self._within_s - now
        self._done[thing] = [*done, now]
        return 0.0
