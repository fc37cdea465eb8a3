"""Retry-After: each refused caller is told a time of its own to come back.

If all callers that are refused in one second came back in the next, most of them would be refused again. So the device
time of refused pictures is added up, and a refused caller is told to come back when the sum before it will have been
computed, at the rate that the pictures arriving meanwhile leave. The sum falls at that rate whether callers come back
or not. It returns to 0 when a wave of refusals is over: its callers come back so spread out that they hardly meet those
of the next wave, and many never come back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

#: Demand is measured over this many seconds. It is short: otherwise the first callers that are refused in a wave would
#: be sent back into it.
_DEMAND_S = 0.5
#: The minimum share of a device that is assumed to be left. An overload leaves nothing, and callers come back after it.
#: (In simulated waves of two to three times the capacity, 2 to 5 s long, nine in ten callers who come back are
#: admitted; with twice the share, eight.)
_LEAST_LEFT = 0.1
#: The longest Retry-After. Callers who would get a longer one are spread over its second half.
_LONGEST_S = 300.0
#: A wave is over when no caller has been refused for this long.
_CALM_S = 2.0
#: The weight of the newest picture in the mean device time of admitted pictures.
_NEWEST = 0.05


class RetryQueue:
    """The refused pictures of one device that may come back. Not thread-safe: use it from one event loop.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._away_s = 0.0
        """The device time of refused pictures that may come back."""
        self._refused_at = clock()
        self._demand = 0.0
        """Device seconds per second that arriving pictures ask for, at ``_seen_at``."""
        self._usual_s = 0.0
        """The mean device time of admitted pictures."""
        self._seen_at = clock()

    def arrived(self, device_s: float) -> None:
        """Counts a picture that would take ``device_s`` on the device, regardless of its outcome."""
        now = self._clock()
        self._away_s = max(0.0, self._away_s - self._left(now) * (now - self._seen_at))
        self._demand = self._faded(now) + device_s / _DEMAND_S
        self._seen_at = now

    def admitted(self, device_s: float) -> None:
        """Counts a picture that arrived and was admitted. A caller who comes back is assumed to need what admitted
        pictures need: by then there may be room in a better network than the cheapest."""
        self.arrived(device_s)
        self._usual_s += _NEWEST * (device_s - self._usual_s)

    def book(self, room_in_s: float, device_s: float) -> float:
        """Returns the seconds after which a picture that is refused now should be sent again.

        Args:
            room_in_s: until there would be room if nothing else arrived.
            device_s: the minimum device time that the picture would take.
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
        """The demand, as far as it has not faded since the last picture."""
        return self._demand * math.exp((self._seen_at - now) / _DEMAND_S)
