"""Quiet: for how long nobody has used a checkpoint, and how much of what was learned before still counts.

What forward passes and decoding take is learned while a checkpoint is used, under the load of that time. When the load
has gone it is no longer true, and where it keeps every picture away nobody would find that out. So it counts in full
while pictures are in flight, and less and less, down to nothing, once there are none.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: A pause this long between two pictures is no sign that the load has gone.
_PAUSE_S = 1.0
#: After so many more seconds without a picture, nothing that was learned counts any more.
_FORGOTTEN_AFTER_S = 3.0
#: What was learned fades in so many steps, since each step makes a new forecast necessary.
_STEPS = 16


class Quiet:
    """The quiet time of one checkpoint. Lives on one event loop.

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
        """All quiet time so far, the short pauses left out. It stands still while pictures are in flight."""
        if self._in_flight:
            return self._before_s
        return self._before_s + max(0.0, self._clock() - self._since - _PAUSE_S)

    def begin(self) -> None:
        """Notes that a picture has come; ``end`` must follow."""
        self._before_s = self.seconds
        self._in_flight += 1

    def end(self) -> None:
        """Notes that a picture has been answered, refused or given up."""
        self._in_flight -= 1
        self._since = self._clock()

    def touch(self) -> None:
        """Notes a use that is over already, for whoever learns without following pictures."""
        self.begin()
        self.end()

    def kept(self, seconds: float) -> float:
        """How much still counts, from 1 down to 0, of what was learned when ``self.seconds`` was ``seconds``."""
        left = 1.0 - (self.seconds - seconds) / _FORGOTTEN_AFTER_S
        return 0.0 if left <= 0 else -(-left * _STEPS // 1) / _STEPS
