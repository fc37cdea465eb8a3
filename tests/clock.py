"""A clock for tests: it stands still unless the test moves it."""

from __future__ import annotations


class Clock:
    """Stands in for ``time.monotonic``.

    Args:
        now: seconds. Not 0 at first, so that code that forgets to subtract its start is noticed.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
