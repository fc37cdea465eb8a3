"""The minutes that a run may take: every step says what it needs, and what no longer fits is left out by name."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """Counts down from when it is made.

    Args:
        seconds: for everything.
        clock: seconds, monotonic.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._seconds = seconds
        self.left_out: list[str] = []
        """Steps that were not begun, or not finished."""

    @property
    def left_s(self) -> float:
        return max(0.0, self._began + self._seconds - self._clock())

    @property
    def took_s(self) -> float:
        return self._clock() - self._began

    def allows(self, step: str, needs_s: float, reserve_s: float = 0.0) -> bool:
        """Whether a step may begin; if not, it is noted as left out.

        Args:
            step: its name, for people.
            needs_s: how long it takes, as far as is known.
            reserve_s: what later steps are to have.
        """
        if self.left_s >= needs_s + reserve_s:
            return True
        self.left_out.append(f"{step} (needs {needs_s:.0f} s, {max(0.0, self.left_s - reserve_s):.0f} s were left)")
        return False

    def cut(self, step: str, why: str) -> None:
        """Notes a step that was begun and gave nothing, or not everything."""
        self.left_out.append(f"{step} ({why})")
