"""Turns: callers share a device, however many pictures each of them has sent.

Queues run earliest deadline first. By that rule alone a caller who sends 64 pictures at once makes everybody who comes
after wait for all of them; and one whose deadlines are near, and who sends the next picture as soon as one is answered,
makes those wait for ever who left the service more time. So callers are told apart by how many pictures they have
waiting on the device, and by how much of it they have had in the last second. One with a few is *light*; one with more,
or with most of the device, is *heavy*. The pictures of light callers go by their deadlines, as those of a lone caller
do. A heavy caller's go by their deadlines among themselves, but behind those of light callers while the heavy one has
used more of the device than its share: start-time fair queuing (Goyal, Vin and Cheng, 1996), in which each caller has a
virtual time that grows by the device time of its pictures, and begins at that of the device.

While light callers are about, a heavy caller's batches are kept short too, since a light one's picture that arrives
while a batch is computed waits for its end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from service.domain.shares import FEW

#: Light callers count as being about for this long after their last picture.
_ABOUT_S = 1.0
#: A caller with more than this share of the device is heavy, until it has less than the second, however few of its
#: pictures wait: unless another one has many waiting, beside whom nobody has too much of the device. The last second
#: counts most (an exponential mean).
_MOST_OF_IT, _LESS_OF_IT, _MEAN_S = 0.5, 0.35, 1.0
#: By how much a heavy caller's pictures may lengthen a batch, while light callers are about; and how long a batch may
#: take anyway, so that a device on which larger batches pay is not kept at small ones for nothing that people notice.
_LONGER, _SHORT_S = 1.25, 0.005
#: How many callers who have gone are remembered.
_MOST_GONE = 1024

Urgency: TypeAlias = tuple[float, float]
"""How many device seconds the caller has used beyond its share (0 for light callers), and the deadline. The smallest
goes first."""


class Turns:
    """Who waits for one device, and what each caller has used of it. Not thread-safe: use it from one event loop.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[str, int] = {}
        """Pictures by caller; nobody is here without one."""
        self._used_s: dict[str, float] = {}
        """Virtual times, of callers who wait and of some who have gone."""
        self._now_s = 0.0
        """The device's virtual time: that of the caller who was served last, before the picture."""
        self._heavy = 0
        """How many callers have many pictures waiting."""
        self._had_s: dict[str, tuple[float, float]] = {}
        """Device seconds that callers have had lately, and when that was noted."""
        self._dominant: str | None = None
        """The caller who has most of the device. There is one at most."""
        self._light: tuple[str, float] = "", -_ABOUT_S
        """The light caller who was served last, and when; and the last one before who is not the same."""
        self._light_before = self._light

    @property
    def fair(self) -> bool:
        """Whether turns differ from the order of deadlines: a heavy caller waits, and others do or did a moment ago."""
        heavy = self._heavy > 0 or self._dominant in self._waiting
        return heavy and (len(self._waiting) > 1 or self._light_about())

    def fair_to(self, caller: str) -> bool:
        """Whether turns differ from the order of deadlines once a picture of that caller waits."""
        return self.fair or (self._heavy > 0 and caller not in self._waiting)

    def join(self, caller: str) -> None:
        """A caller's picture begins to wait. ``leave`` must follow."""
        waiting = self._waiting.get(caller, 0) + 1
        self._waiting[caller] = waiting
        if waiting == 1:
            self._used_s[caller] = max(self._used_s.get(caller, 0.0), self._now_s)
            if caller == self._dominant:
                self._dominate(caller, 0.0)
        elif waiting == FEW + 1:
            self._heavy += 1

    def leave(self, caller: str) -> None:
        """A caller's picture does not wait any more: it is computed, or was given up."""
        waiting = self._waiting[caller] - 1
        if waiting:
            self._waiting[caller] = waiting
            if waiting == FEW:
                self._heavy -= 1
        else:
            del self._waiting[caller]
            if len(self._used_s) > _MOST_GONE + len(self._waiting):
                self._forget()

    def served(self, caller: str, device_s: float) -> None:
        """A caller's picture is about to be computed, which takes that much device time. Call ``leave`` afterwards."""
        used_s = self._used_s[caller]
        self._now_s = max(self._now_s, used_s)
        self._used_s[caller] = used_s + device_s
        now = self._dominate(caller, device_s)
        if self.light(caller):
            if caller != self._light[0]:
                self._light_before = self._light
            self._light = caller, now

    def _dominate(self, caller: str, device_s: float) -> float:
        """Adds to what a caller has had lately, and notes whether that is most of the device. Returns the time."""
        now = self._clock()
        had_s, at = self._had_s.get(caller, (0.0, now))
        had_s = had_s * math.exp((at - now) / _MEAN_S) + device_s
        self._had_s[caller] = had_s, now
        if had_s > _MOST_OF_IT * _MEAN_S:
            self._dominant = caller
        elif caller == self._dominant and had_s < _LESS_OF_IT * _MEAN_S:
            self._dominant = None
        return now

    def light(self, caller: str) -> bool:
        """Whether a caller is light."""
        return self._waiting.get(caller, 0) <= FEW and (caller != self._dominant or self._heavy > 0)

    def owes_s(self, caller: str) -> float:
        """How many device seconds a caller who waits has used beyond its share."""
        return max(0.0, self._used_s[caller] - self._now_s)

    def largest(self, lights: int, limit: int, forward_s: Sequence[float]) -> int:
        """How many pictures a batch may hold while turns are fair, if so many of light callers are in the queue.

        Args:
            lights: pictures of light callers.
            limit: the batch limit.
            forward_s: seconds of a forward pass by batch size, [0] unused; empty where that is unknown.
        """
        if not forward_s or not (lights or self._light_about()):
            return limit
        size = min(max(1, lights), limit)
        within_s = max(forward_s[min(size, len(forward_s) - 1)] * _LONGER, _SHORT_S)
        while size < min(limit, len(forward_s) - 1) and forward_s[size + 1] <= within_s:
            size += 1
        return size

    def _light_about(self) -> bool:
        """Whether a light caller was served a moment ago who is not a heavy one by now."""
        since = self._clock() - _ABOUT_S
        return any(at > since and self.light(caller) for caller, at in (self._light, self._light_before))

    def _forget(self) -> None:
        """Forgets callers who have gone: first those who owe nothing, and all if that does not help."""
        owing = {c: used_s for c, used_s in self._used_s.items() if c in self._waiting or used_s > self._now_s}
        if len(owing) > _MOST_GONE // 2 + len(self._waiting):
            owing = {caller: self._used_s[caller] for caller in self._waiting}
        self._used_s = owing
        self._had_s = {caller: had for caller, had in self._had_s.items() if caller in owing}
