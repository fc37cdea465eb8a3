"""How soon one thing may be done again."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable


class Cooldown:
    """Knows when each of some things was done last. There must be few of them: they are not forgotten.

    Args:
        within_s: seconds after which a thing may be done again.
        clock: seconds, monotonic.
    """

    def __init__(self, within_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._within_s = within_s
        self._clock = clock
        self._done: dict[Hashable, float] = {}

    def wait_s(self, thing: Hashable) -> float:
        """Seconds until a thing may be done again; 0 if it may be done now."""
        at = self._done.get(thing)
        return 0.0 if at is None else max(0.0, at + self._within_s - self._clock())

    def done(self, thing: Hashable) -> None:
        """Notes that a thing was done now."""
        self._done[thing] = self._clock()
