"""Quiet: how long a checkpoint has been unused, and how much of what was learned before still counts.

The service learns how long forward passes and decoding take while a checkpoint is in use, under the load of that time.
Once the load has gone, what was learned is wrong; and if it makes the router refuse every picture, nothing corrects it.
So it counts in full while pictures are in flight, and fades to nothing once there are none.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: A pause of up to this many seconds between two pictures does not count as quiet.
_PAUSE_S = 1.0
#: After this many further seconds without a picture, what was learned no longer counts.
_FORGOTTEN_AFTER_S = 3.0
#: What was learned fades in this many steps, because each step costs a new forecast.
_STEPS = 16


class Quiet:
    """The quiet time of one checkpoint. Not thread-safe: use it from one event loop.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight = 0
        self._since = clock()
        self._before_s = 0.0

    @property
    def in_use(self) -> bool:
        """Whether a picture is in flight."""
        return self._in_flight > 0

    @property
    def seconds(self) -> float:
        """All quiet time so far, without short pauses. It does not grow while pictures are in flight."""
        if self._in_flight:
            return self._before_s
        return self._before_s + max(0.0, self._clock() - self._since - _PAUSE_S)

    def begin(self) -> None:
        """Notes that a picture has arrived; ``end`` must follow."""
        self._before_s = self.seconds
        self._in_flight += 1

    def end(self) -> None:
        """Notes that a picture was answered, refused or given up."""
        self._in_flight -= 1
        self._since = self._clock()

    def touch(self) -> None:
        """Notes a use that is already over, for a learner that does not follow each picture."""
        self.begin()
        self.end()

    def kept(self, seconds: float) -> float:
        """The share, from 1 down to 0, that still counts of what was learned when ``self.seconds`` was ``seconds``."""
        quiet_s = self.seconds - seconds
        if not quiet_s:
            return 1.0
        left = 1.0 - quiet_s / _FORGOTTEN_AFTER_S
        return 0.0 if left <= 0 else -(-left * _STEPS // 1) / _STEPS
