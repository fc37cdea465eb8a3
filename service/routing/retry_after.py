"""When the refused may come back: each gets a turn of its own.

If all who are refused in a second came back in the next, they would be refused again. So the work that was sent away is
added up: the next one is told to come when what was sent away before it will have been done, at the rate that is left
beside what arrives anyway. At that rate the sum goes down too, whether they come or not, and when a wave is over it
begins anew: those of the last one come so thinly that the next one's hardly meet them, and many never come.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

#: The demand of so many seconds tells what is left for those who come back. Short, since the first to be refused in a
#: wave would otherwise be sent back into it.
_DEMAND_S = 0.5
#: What is left at least. Under an overload nothing is; they come back after it. (In simulations of waves of two to
#: three times the capacity, 2 to 5 s long, nine in ten who come back are let in; with twice as much left, eight.)
_LEAST_LEFT = 0.1
#: Nobody is sent away for longer. Who would be comes back somewhere in the second half of it.
_LONGEST_S = 300.0
#: A wave is over when nobody was refused for so long.
_CALM_S = 2.0


class Comeback:
    """The bookings of one device. Lives on one event loop.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._away_s = 0.0
        """Device time of those who were sent away and may come back."""
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
        """Counts one that arrived and is answered. What these take is what those who come back will take, for whom
        there will be better networks than the one that was asked for too much now."""
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
        """The share of the device for those who come back."""
        return max(_LEAST_LEFT, 1.0 - self._faded(now))

    def _faded(self, now: float) -> float:
        return self._demand * math.exp((self._seen_at - now) / _DEMAND_S)
