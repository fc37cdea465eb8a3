"""Pressure: how dear a device's time is, so that callers are answered by smaller networks before others are refused.

The router wants to answer as many pictures as possible within their budgets, and these with the highest top-1 accuracy.
Each picture that takes long for a little accuracy may cost somebody else's budget. So device time has a price, in
points of top-1: of the networks that fit, the one with the highest top-1 less the price of its time answers. The price
is the multiplier of the constraint "hardly anybody is refused" (dual ascent: Boyd and Vandenberghe, *Convex
Optimization*, 2004, section 5.5): it rises with each refusal, and falls with each picture that is let in so that one
refusal in two hundred holds it where it is. It moves by factors, since networks differ by factors in what they take:
quickly up, slowly down, so that choices do not flap. It does not rise beyond the point where everybody has the smallest
network that will do: nobody is helped by it, and the way down would be longer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

#: The logarithm of the price rises by this with a refusal, and falls by ``_FALL`` with a picture that is let in.
_RISE, _FALL = 0.3, 0.0015
#: The price where it begins to count, and the highest, in points for the time of the largest network.
_LEAST, _MOST = 1.0, 3000.0
#: It falls to the e-th part in this many seconds too.
_CALM_S = 30.0
#: It does not rise if for so many seconds nobody was let in for whom a smaller network would do.
_SPARES_S = 1.0
#: A caller's refusals count at most once in this time: nobody raises the price alone by asking again and again.
_EACH_S = 0.1
#: How many callers are remembered.
_MOST_CALLERS = 1024


class Pressure:
    """The price of one device's time. Not thread-safe: use it from one event loop.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._log = 0.0
        self._at = clock()
        self._spares_at = -math.inf
        self._raised: dict[str, float] = {}

    @property
    def price(self) -> float:
        """Points of top-1 that the largest network's device time costs; 0 while there is room for all."""
        if not self._log:
            return 0.0
        self._fade()
        return _LEAST * math.exp(self._log) - _LEAST

    def refused(self, caller: str) -> None:
        """Somebody could not be let in."""
        now = self._clock()
        if now - self._raised.get(caller, -math.inf) < _EACH_S:
            return
        if not self._log:
            self._spares_at = now
        elif now - self._spares_at > _SPARES_S:
            return
        self._raised.pop(caller, None)
        self._raised[caller] = now
        if len(self._raised) > _MOST_CALLERS:
            del self._raised[next(iter(self._raised))]
        self._fade()
        self._log = min(math.log(_MOST / _LEAST), self._log + _RISE)

    def admitted(self, *, spares: bool = False) -> None:
        """Somebody was let in; ``spares``: a smaller network would do as well."""
        if self._log:
            self._log = max(0.0, self._log - _FALL)
            if spares:
                self._spares_at = self._clock()

    def _fade(self) -> None:
        now = self._clock()
        self._log = max(0.0, self._log - (now - self._at) / _CALM_S)
        self._at = now
