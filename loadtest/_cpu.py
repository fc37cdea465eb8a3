"""Whether the load generator itself limits a run: its share of one core, the most that one process can use."""

from __future__ import annotations

from collections import deque
from typing import Any

#: Above this share of a core, requests wait for the generator.
LIMIT = 0.9
#: Seconds between two samples.
EVERY_S = 0.5
#: Samples in a window: seven span three seconds.
WINDOW = 7


class CpuShare:
    """The share of a core that a process used, from samples of its CPU time."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._first: tuple[float, float] | None = None
        self.bottleneck = False

    def sample(self, wall_s: float, cpu_s: float) -> bool:
        """Adds a sample of both clocks; returns True the first time that a window is over the limit."""
        if self._first is None:
            self._first = (wall_s, cpu_s)
        self._samples.append((wall_s, cpu_s))
        over = len(self._samples) == WINDOW and _share(self._samples[0], self._samples[-1]) > LIMIT
        newly, self.bottleneck = over and not self.bottleneck, over or self.bottleneck
        return newly

    def results(self) -> dict[str, Any]:
        """The share in the whole run, and whether that or a window was over the limit."""
        if self._first is None or self._samples[-1] == self._first:
            return {"cpu_share": None, "bottleneck": False}
        share = _share(self._first, self._samples[-1])
        return {"cpu_share": round(share, 3), "bottleneck": self.bottleneck or share > LIMIT}


def _share(earlier: tuple[float, float], later: tuple[float, float]) -> float:
    return (later[1] - earlier[1]) / max(later[0] - earlier[0], 1e-9)
