"""Cores of one machine, which all of its threads share.

While no more threads compute than there are cores, each has a core of its own. Beyond that the scheduler gives all of
them the same share of the cores (processor sharing: Kleinrock, 1967), so that everything that computes slows down by
the same factor. Work therefore ends in the order of its end on a second clock, which runs slower by that factor.
"""

from __future__ import annotations

import heapq
import itertools
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable


class SharedCores:
    """The cores of one machine.

    Args:
        loop: whose time passes.
        cores: how many.
    """

    def __init__(self, loop: AbstractEventLoop, cores: int) -> None:
        self._loop = loop
        self._cores = cores
        self._threads = 0
        """That compute now."""
        self._worked_s = 0.0
        """The second clock, and when it was set."""
        self._at = loop.time()
        self._number = itertools.count()
        self._ends: list[tuple[float, int, int, Callable[[], None]]] = []
        """By the second clock."""
        self._timer: TimerHandle | None = None

    def run(self, seconds: float, threads: int, over: Callable[[], None]) -> None:
        """Begins some work.

        Args:
            seconds: what it takes if each of its threads has a core.
            threads: how many compute.
            over: is called once it is done.
        """
        self._advance()
        self._threads += threads
        heapq.heappush(self._ends, (self._worked_s + seconds, next(self._number), threads, over))
        self._wake_up()

    @property
    def _speed(self) -> float:
        return min(1.0, self._cores / max(1, self._threads))

    def _advance(self) -> None:
        now = self._loop.time()
        self._worked_s += (now - self._at) * self._speed
        self._at = now

    def _wake_up(self) -> None:
        """Sets the timer for the work that ends next, at the speed of now."""
        if self._timer is not None:
            self._timer.cancel()
        left_s = max(0.0, self._ends[0][0] - self._worked_s)
        self._timer = self._loop.call_later(left_s / self._speed, self._end)

    def _end(self) -> None:
        self._advance()
        self._timer = None
        _, _, threads, over = heapq.heappop(self._ends)
        self._threads -= threads
        if self._ends:
            self._wake_up()
        over()
