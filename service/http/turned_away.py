"""Callers who are refused over and over: they are refused at once, so that their requests cost the others little.

A caller who ignores ``Retry-After`` and sends a thousand requests a second is refused nearly every time. But each
refusal would need the whole body, and a decision by the process that owns the device. So whoever was refused far more
often than answered is refused by the headers alone, and told the rest of the time that it was told before; one request
every quarter of a second is decided on, to see whether there is room by now, and if so the next (a half-open circuit
breaker). That happens only beside other callers: a lone caller in an overload is decided on each time, as nobody else
is kept waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from service.domain.errors import DEADLINE_MISSED, OVERLOADED, Failure, OverloadedError

#: A caller is turned away after so many refusals, for so many seconds, until one request is decided on.
_REFUSALS, _FOR_S = 16, 0.25
#: A request that was not refused makes up for so many refusals: many people may share an address, and those of them who
#: allow more time are answered. No more refusals than ``_MOST_REFUSALS`` are held against anybody.
_MAKES_UP_FOR, _MOST_REFUSALS = 4, 20
#: Another caller counts as being about for this long.
_ABOUT_S = 1.0
#: How many callers who were refused are remembered.
_MOST = 10_000


class _Refused:
    """One caller's refusals."""

    __slots__ = ("count", "detail", "due_at", "until")

    def __init__(self) -> None:
        self.count = 0
        self.until = 0.0
        self.due_at = 0.0
        """When it was told to come back."""
        self.detail = ""


class TurnedAway:
    """Which callers are refused over and over. Not thread-safe: use it from one event loop.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: str | None = None
        self._changed_at = -_ABOUT_S
        """When a request came from another caller than the one before it."""
        self._refused: dict[str, _Refused] = {}

    def check(self, caller: str, now: float) -> None:
        """Checks a request by its caller, before its body is read.

        Raises:
            OverloadedError: the caller was refused many times a moment ago.
        """
        if caller != self._last:
            if self._last is not None:
                self._changed_at = now
            self._last = caller
        if self._refused:
            found = self._refused.get(caller)
            if found is None or found.count < _REFUSALS or now - self._changed_at >= _ABOUT_S:
                return
            if now < found.until:
                raise OverloadedError(found.detail, max(found.due_at, found.until) - now)
            # This one is decided on; those that come before it is answered are not.
            found.until = now + _FOR_S

    def answered(self, caller: str, results: Sequence[object]) -> None:
        """Notes what became of a caller's request: ``results`` of its pictures, a ``Failure`` each that was refused."""
        failures = [result for result in results if isinstance(result, Failure)]
        refused = [failure for failure in failures if failure.slug == OVERLOADED]
        if refused and len(refused) == len(results):
            self._refuse(caller, refused[-1])
        elif self._refused and not refused and not any(failure.slug == DEADLINE_MISSED for failure in failures):
            self._answered(caller)

    def _answered(self, caller: str) -> None:
        found = self._refused.get(caller)
        if found is not None:
            found.count -= _MAKES_UP_FOR
            # There was room: the next one is decided on at once.
            found.until = 0.0
            if found.count <= 0:
                del self._refused[caller]

    def _refuse(self, caller: str, failure: Failure) -> None:
        found = self._refused.get(caller)
        if found is None:
            while len(self._refused) >= _MOST:
                del self._refused[next(iter(self._refused))]
            found = self._refused[caller] = _Refused()
        now = self._clock()
        found.count = min(_MOST_REFUSALS, found.count + 1)
        found.detail = failure.detail
        found.due_at = now + failure.extras.get("retry_after_ms", 0.0) / 1000
        if found.count >= _REFUSALS:
            found.until = min(now + _FOR_S, found.due_at)
