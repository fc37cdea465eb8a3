"""Ends work whose deadline passes, as ``asyncio.timeout`` does, at a fraction of its cost.

Under load thousands of pictures a second have deadlines half a minute away, and are answered within milliseconds. A
timer of the event loop for each costs as much as a place in the queue. So only near deadlines have timers of their own;
a single one looks at all others twice a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

#: Deadlines within this many seconds get a timer of their own. It is more than the time between two looks.
_NEAR_S = 1.0
_LOOK_EVERY_S = 0.5


class Deadlines:
    """The deadlines of one event loop.

    Args:
        clock: seconds, monotonic; deadlines are on it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._far: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def until(self, deadline: float) -> Deadline:
        """A context manager that raises TimeoutError in its block once the deadline has passed."""
        return Deadline(self, deadline)

    def add_far(self, deadline: Deadline) -> None:
        """Looks at a deadline twice a second, until it is near."""
        self._far[deadline] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def remove_far(self, deadline: Deadline) -> None:
        """Forgets a deadline."""
        self._far.pop(deadline, None)

    def _look(self) -> None:
        near = self.clock() + _NEAR_S
        for deadline in [found for found in self._far if found.at < near]:
            del self._far[deadline]
            deadline.come_near()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_LOOK_EVERY_S, self._look) if self._far else None


class Deadline:
    """A block of work with a deadline; see ``Deadlines.until``. Cancellations by anybody else pass through."""

    __slots__ = ("_all", "_cancelled_before", "_passed", "_task", "_timer", "at")

    def __init__(self, deadlines: Deadlines, at: float) -> None:
        self._all = deadlines
        self.at = at
        self._timer: asyncio.TimerHandle | None = None
        self._passed = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[object] = task
        self._cancelled_before = task.cancelling()
        if self.at - self._all.clock() < _NEAR_S:
            self.come_near()
        else:
            self._all.add_far(self)

    def come_near(self) -> None:
        """Sets a timer for the deadline."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, self.at - self._all.clock()), self._pass)

    def _pass(self) -> None:
        self._passed = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._timer is None:
            self._all.remove_far(self)
            return
        self._timer.cancel()
        if (
            self._passed
            and self._task.uncancel() <= self._cancelled_before
            and isinstance(error, asyncio.CancelledError)
        ):
            raise TimeoutError from error
