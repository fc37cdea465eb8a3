"""An event loop on a virtual clock: time stands still while there is something to do, and then jumps to the next timer.

An hour of a service takes as long as the Python that runs in it. What blocks a thread in the real service (a forward
pass, a decode, a load) calls ``spend`` here instead of working: its result comes when the time that it has spent is
over, and other work goes on meanwhile. Where cores are shared, it comes later if more threads compute than there are.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from service.twin.cores import SharedCores

T = TypeVar("T")

#: The clock does not begin at 0, which code may take for "never".
_BEGINNING_S = 1000.0


class StuckError(RuntimeError):
    """Nothing is left to do and no timer is set, but the simulation has not ended."""


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop of a simulation. It has no sockets and no threads: everything runs in the thread that calls it, in an
    order that depends on nothing but the program. Each executor that blocking work is given to counts as one thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = _BEGINNING_S
        self.cores: SharedCores | None = None
        """On which blocking work computes; None where nothing slows anything else down."""
        self._computing = 0
        self._threads: dict[object, VirtualThreads] = {}
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._set = 0

    def time(self) -> float:
        """Seconds on the virtual clock. Inside blocking work it includes what that work has spent so far."""
        return self._now

    def spend(self, seconds: float, threads: int = 0) -> None:
        """Lets time pass as if the caller blocked: a thread, or, outside of blocking work, the whole loop.

        Args:
            seconds: what passes if nothing else computes.
            threads: how many compute meanwhile on the cores; 0 of what is done elsewhere, as on a GPU.
        """
        self._now += seconds
        self._computing = max(self._computing, threads)

    def blocking(self, work: Callable[[], T], over: Callable[[T | None, Exception | None], None]) -> None:
        """Runs blocking work at this moment, and puts the clock back: ``over`` is called with its result and its error
        when what it has spent has passed."""
        began, self._computing = self._now, 0
        result: T | None = None
        error: Exception | None = None
        try:
            result = work()
        except Exception as raised:
            error = raised
        seconds, self._now = self._now - began, began
        if self.cores is not None and self._computing:
            self.cores.run(seconds, self._computing, lambda: over(result, error))
        else:
            self.call_later(seconds, over, result, error)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Runs blocking work in the one virtual thread of an executor."""
        thread = self._threads.get(executor)
        if thread is None:
            thread = self._threads[executor] = VirtualThreads(self, 1)
        answer: asyncio.Future[T] = self.create_future()
        thread.begin(lambda: func(*args), answer)
        return answer

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        # Timers of the same moment go in the order in which they were set.
        self._set += 1
        heapq.heappush(self._timers, (when, self._set, timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        # ``_ready`` is BaseEventLoop's, whose own version of this polls sockets.
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        timers = self._timers
        if not ready:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise StuckError("the simulation waits for something that will never happen")
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is dropped when its time has come."""

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """No thread waits for sockets, so none need be woken."""


class VirtualThreads(Executor):
    """A number of virtual threads: work begins when one is free, first come, first served.

    Args:
        loop: whose time passes.
        count: how many threads.
    """

    def __init__(self, loop: VirtualLoop, count: int) -> None:
        self._loop = loop
        self._free = count
        self._waiting: deque[tuple[Callable[[], Any], Any]] = deque()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        answer: Future[T] = Future()
        self.begin(lambda: fn(*args, **kwargs), answer)
        return answer

    def begin(self, work: Callable[[], Any], answer: Any) -> None:
        """Has a thread do the work; ``answer`` is a future of either kind."""
        if self._free:
            self._free -= 1
            self._run(work, answer)
        else:
            self._waiting.append((work, answer))

    def _run(self, work: Callable[[], Any], answer: Any) -> None:
        self._loop.blocking(work, lambda result, error: self._over(answer, result, error))

    def _over(self, answer: Any, result: object, error: Exception | None) -> None:
        # Whoever waited may have gone; a thread that has begun goes on all the same.
        if not answer.done():
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)
        while self._waiting:
            work, following = self._waiting.popleft()
            if not following.done():
                self._run(work, following)
                return
        self._free += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures:
            for _, answer in self._waiting:
                answer.cancel()
            self._waiting.clear()
