"""An event loop for tests of timers: an hour takes no longer than a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class QuickLoop(asyncio.SelectorEventLoop):
    """Its time moves on to the next timer at once, so that an hour takes no longer than a second. Work that waits for
    nothing takes no time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.timers = 0
        """How many timers were set."""

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, *arguments: Any, **options: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        self.timers += 1
        return super().call_at(when, *arguments, **options)

    def _run_once(self) -> None:
        waiting: list[asyncio.TimerHandle] = [timer for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and waiting:  # type: ignore[attr-defined]
            self.now = max(self.now, min(timer.when() for timer in waiting))
        super()._run_once()  # type: ignore[misc]

    @property
    def left(self) -> int:
        """How many timers are set now."""
        return sum(not timer.cancelled() for timer in self._scheduled)  # type: ignore[attr-defined]


def run_quickly(test: Callable[[QuickLoop], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine function on such a loop, which it is given."""
    with asyncio.Runner(loop_factory=QuickLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, QuickLoop)
        return runner.run(test(loop))
