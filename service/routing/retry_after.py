"""Retry-After: each refused caller gets a time of its own to come back.

If all callers who are refused in a second came back in the next one, most would be refused again. So the device time
of refused pictures is added up, and the next refused caller is told to come when the sum before it will have been
computed, at the rate that is left beside the pictures that arrive anyway. The sum falls at that rate whether they come
back or not. It begins at 0 again when a wave is over: its callers come back so thinly that they hardly meet those of
the next wave, and many never do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

#: Seconds of demand that tell how much of the device is left. Short, since the first callers who are refused in a wave
#: would otherwise be sent back into it.
_DEMAND_S = 0.5
#: The least share that is taken to be left. Under an overload nothing is left, and callers come back after it. (In
#: simulations of waves of two to three times the capacity, 2 to 5 s long, nine in ten callers who come back are let
#: in; with twice the share, eight.)
_LEAST_LEFT = 0.1
#: The longest Retry-After. Callers who would get a longer one are spread over its second half.
_LONGEST_S = 300.0
#: A wave is over when nobody has been refused for this long.
_CALM_S = 2.0


class RetryAfter:
    """The pictures of one device that were refused and may come back. Lives on one event loop.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._away_s = 0.0
        """Device time of refused pictures that may come back."""
        self._refused_at = clock()
        self._demand = 0.0
        self._usual_s = 0.0
        self._seen_at = clock()

    def arrived(self, device_s: float) -> None:
        """Counts a picture that would take so long on the device, whatever becomes of it."""
        now = self._clock()
        self._away_s = max(0.0, self._away_s - self._left(now) * (now - self._seen_at))
        # Device seconds per second, of late.
        self._demand = self._faded(now) + device_s / _DEMAND_S
        self._seen_at = now

    def let_in(self, device_s: float) -> None:
        """Counts a picture that arrived and is answered. Callers who come back are taken to need what such pictures
        need, since by then there may be room in a better network than the cheapest."""
        self.arrived(device_s)
        self._usual_s += 0.05 * (device_s - self._usual_s)

    def book(self, room_in_s: float, device_s: float) -> float:
        """Seconds after which a picture that is refused now should be sent again.

        Args:
            room_in_s: until there would be room if nothing else came.
            device_s: what it would take on the device at least.
        """
        now = self._clock()
        if now - self._refused_at > _CALM_S:
            self._away_s = 0.0
        self._refused_at = now
        self._away_s += max(device_s, self._usual_s)
        turn_s = self._away_s / self._left(now)
        if turn_s > _LONGEST_S:
            turn_s = _LONGEST_S - turn_s % (_LONGEST_S / 2)
        return min(max(room_in_s, turn_s), _LONGEST_S)

    def _left(self, now: float) -> float:
        """The share of the device that is left for callers who come back."""
        return max(_LEAST_LEFT, 1.0 - self._faded(now))

    def _faded(self, now: float) -> float:
        return self._demand * math.exp((self._seen_at - now) / _DEMAND_S)
