"""Retry-After: each refused caller is told a time of its own to come back.

If all callers that are refused in one second came back in the next, most of them would be refused again. So a refused
picture is booked on its caller, and the caller is told to come back when those before it will have been computed.

Bookings are shared out as the device is: in turns, one picture of each caller after the other (generalised processor
sharing, Parekh and Gallager, 1993). So a caller with B seconds of bookings comes after at most B seconds of anybody
else's: somebody who sends a thousand pictures a second, whatever it is told, is sent further and further back, and
nobody else is. Bookings fall by the time that the device has left, and by what is admitted of their callers.

Two things are known only later. How long will more arrive than the device computes? As long as it has done already,
or some seconds (``_lasts_s``): callers who come back before that are refused again. How much will the device have left
then? What it had left before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

#: The shares of a device that are assumed to be left for callers who come back: at least and at most.
_LEAST_LEFT, _MOST_LEFT = 0.1, 0.85
#: The longest Retry-After. Callers who would get a longer one are spread over its second half.
_LONGEST_S = 300.0
#: A wave is over when nobody has been refused for this long. Its bookings are void then: its callers come back so
#: spread out that they hardly meet those of the next wave, and many never come back.
_CALM_S = 2.0
#: A wave is assumed to last at most this many times as long again as it has lasted, and at least as long again; and
#: between the two as long as waves of people and scripts mostly do.
_MOST_TIMES_AGAIN, _MOSTLY_S = 10.0, 5.0
#: Nor is it assumed to last longer than this: a place is free now and then in the longest of them.
_LASTS_AT_MOST_S = 30.0
#: The weight of the newest picture in the mean device time of admitted pictures.
_NEWEST = 0.05
#: A caller who comes back so much later than it was told has rounded, or waited for its connection.
_GRACE_S = 2.0
#: Multiples of the golden section's fraction are spread evenly, however many there are.
_GOLDEN = 0.6180339887498949
#: How many callers have bookings of their own.
_MOST_CALLERS = 128
#: Time that the device has left is taken off the bookings in pieces of at least this.
_LEAST_S = 0.005


@dataclass(slots=True)
class _Booked:
    """What is booked on a caller."""

    until_s: float
    """When it will be computed, on the virtual clock: device seconds that each caller with bookings has got."""
    since: float
    """When it was refused first, in this wave."""
    refused_at: float
    due: float
    """When it was told to come back."""


class RetryQueue:
    """The refused pictures of one device that may come back. Not thread-safe: use it from one event loop.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._booked: dict[str, _Booked] = {}
        """By caller, the one who was refused last at the end."""
        self._rest_s = 0.0
        """Bookings of callers beyond ``_MOST_CALLERS``, and when the last of them was told to come back."""
        self._rest_due = 0.0
        self._virtual_s = 0.0
        self._idle_s = 0.0
        """What the device had left and is not taken off the bookings yet."""
        self._usual_s = 0.0
        """The mean device time of admitted pictures."""
        self._admitted_s = 0.0
        """The device time of all of them."""
        self._seen_at = self._calm_since = clock()
        self._used_s = self._used_then_s = 0.0
        """What the device had computed at ``_seen_at`` and at ``_calm_since``, in seconds."""
        self._refused_at = -_CALM_S
        """When a caller was refused last who had kept the time that it was told."""
        self._wave_since = 0.0
        self._left = _MOST_LEFT
        """The share of the device that was left before the wave."""
        self._spread = 0.0

    def admitted(self, device_s: float, caller: str = "", used_s: float | None = None) -> None:
        """Counts a picture that was admitted. A caller who comes back is assumed to need what admitted pictures need:
        by then there may be room in a better network than the cheapest.

        Args:
            device_s: what the picture takes on the device.
            caller: whose it is.
            used_s: the seconds that the device has computed so far; None where only admitted pictures are known of.
        """
        self._admitted_s += device_s
        self._usual_s += _NEWEST * (device_s - self._usual_s)
        booked = self._booked.get(caller)
        # Before its time it is another picture of the same caller.
        if booked is not None and self._clock() >= booked.due:
            self._advance(self._clock(), used_s)
            booked.until_s -= device_s

    def book(self, room_in_s: float, device_s: float, caller: str = "", used_s: float | None = None) -> float:
        """Returns the seconds after which a picture that is refused now should be sent again.

        Args:
            room_in_s: until there would be room if nothing else arrived.
            device_s: the minimum device time that the picture would take.
            caller: whose it is.
            used_s: as for ``admitted``.
        """
        now = self._clock()
        self._advance(now, used_s)
        known = self._booked.pop(caller, None)
        if known is None or now >= known.due:
            # Whoever does not keep its time makes no wave of others.
            self._refused(now)
        booked = self._again(known, now)
        booked.until_s = min(booked.until_s + max(device_s, self._usual_s), self._virtual_s + _LONGEST_S)
        booked.due = now
        self._booked[caller] = booked
        self._limit(device_s)
        lasted_s = now - min(self._wave_since, booked.since)
        ahead_s = self._ahead_s(booked.until_s, now) / self._left
        # Clients round to whole seconds. Those who are refused together are told several, or they would come back
        # together.
        self._spread = (self._spread + _GOLDEN) % 1.0
        turn_s = _lasts_s(lasted_s) + ahead_s + self._spread * ahead_s / max(1.0, lasted_s)
        if turn_s > _LONGEST_S:
            turn_s = _LONGEST_S - turn_s % (_LONGEST_S / 2)
        wait_s = min(max(room_in_s, turn_s), _LONGEST_S)
        booked.refused_at, booked.due = now, now + wait_s
        return wait_s

    def _again(self, known: _Booked | None, now: float) -> _Booked:
        """A caller's bookings, without the one that it came back for if it kept its time."""
        if known is None:
            return _Booked(self._virtual_s, now, now, now)
        kept = now >= known.due
        known.until_s = self._virtual_s if kept else max(known.until_s, self._virtual_s)
        if now - known.refused_at > _CALM_S:
            known.since = now
        return known

    def _refused(self, now: float) -> None:
        """Notes a refusal that belongs to a wave."""
        if now - self._refused_at > _CALM_S:
            calm_s = now - self._calm_since
            if calm_s > _CALM_S:
                used = (self._used_s - self._used_then_s) / calm_s
                self._left = min(_MOST_LEFT, max(_LEAST_LEFT, 1.0 - used))
            self._wave_since = now
            self._rest_s = 0.0
            self._booked = {c: b for c, b in self._booked.items() if now - b.refused_at <= _CALM_S}
        self._refused_at = self._calm_since = now
        self._used_then_s = self._used_s

    def _ahead_s(self, until_s: float, now: float) -> float:
        """Device seconds of bookings that come before one, and its own. Whoever has not come back in time does not
        count: it will not come any more."""
        virtual_s, since = self._virtual_s, now - _GRACE_S
        if self._rest_due < since:
            self._rest_s = 0.0
        return self._rest_s + sum(
            min(booked.until_s, until_s) - virtual_s
            for booked in self._booked.values()
            if booked.until_s > virtual_s and booked.due >= since
        )

    def _advance(self, now: float, used_s: float | None) -> None:
        """Takes off the bookings what the device had left since it was looked at last."""
        used_s = self._admitted_s if used_s is None else used_s
        self._idle_s += max(0.0, now - self._seen_at - max(0.0, used_s - self._used_s))
        self._seen_at, self._used_s = now, used_s
        if self._idle_s < _LEAST_S:
            return
        left_s, self._idle_s = self._idle_s, 0.0
        rest_s = min(self._rest_s, left_s)
        self._rest_s -= rest_s
        left_s -= rest_s
        # Each caller with bookings gets the same of it.
        waiting = sorted(booked.until_s for booked in self._booked.values() if booked.until_s > self._virtual_s)
        for over, until_s in enumerate(waiting):
            sharing = len(waiting) - over
            step_s = (until_s - self._virtual_s) * sharing
            if step_s >= left_s:
                self._virtual_s += left_s / sharing
                return
            self._virtual_s, left_s = until_s, left_s - step_s

    def _limit(self, device_s: float) -> None:
        """Puts the caller who was refused first with the rest, if there are too many."""
        if len(self._booked) > _MOST_CALLERS:
            oldest = self._booked.pop(next(iter(self._booked)))
            # A picture each: more would be of somebody who does not wait.
            self._rest_s += max(0.0, min(oldest.until_s - self._virtual_s, device_s))
            self._rest_due = max(self._rest_due, oldest.due)


def _lasts_s(lasted_s: float) -> float:
    """How long a wave will last that has lasted so long."""
    return min(_MOST_TIMES_AGAIN * lasted_s, max(_MOSTLY_S, lasted_s), _LASTS_AT_MOST_S)
