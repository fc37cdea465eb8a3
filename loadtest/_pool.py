"""The open loop: one greenlet says when a request is due, the users of a pool send it.

Nobody who waits for an answer keeps others from being sent: if all users wait, what is due queues, and its latency
counts from when it was due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter

import gevent
from gevent.queue import SimpleQueue
from locust.exception import StopUser

from loadtest._requests import Request
from loadtest._run import Run

_LOOK_EVERY_S = 0.05


class Pool:
    """Hands requests to whichever user is free.

    Args:
        due: seconds after the beginning, ascending, and what is to be sent then.
        until: by ``perf_counter``; what is due later is not sent.
        at_end: called when all of it has been sent and answered before that.
    """

    def __init__(
        self, run: Run, due: Iterator[tuple[float, Request]], until: float, at_end: Callable[[], object]
    ) -> None:
        self._run = run
        self._due = due
        self._until = until
        self._at_end = at_end
        self._queue: SimpleQueue[tuple[float, Request] | None] = SimpleQueue()
        self._next: tuple[float, Request] | None = None
        self._waiting = 0
        self._closed = False
        self._feeder: gevent.Greenlet[..., None] | None = None

    @property
    def opened(self) -> bool:
        return self._feeder is not None

    def open(self) -> None:
        """Begins with the arrivals."""
        self._run.begin()
        self._feeder = gevent.spawn(self._feed)

    def work(self, send: Callable[[Request, float], object]) -> None:
        """What a user does: sends what it is handed, until the pool is closed.

        Args:
            send: sends a request that was due at a time.

        Raises:
            StopUser: the pool is closed.
        """
        while not self._closed:
            self._waiting += 1
            try:
                handed = self._queue.get()
            finally:
                self._waiting -= 1
            if handed is not None:
                due, request = handed
                send(request, due)
        raise StopUser

    def close(self) -> None:
        """Ends the arrivals and the waiting; what is due and not sent never will be."""
        if self._closed:
            return
        self._closed = True
        if self._feeder is not None:
            self._feeder.kill()
        self._run.end(perf_counter())
        while not self._queue.empty():
            handed = self._queue.get()
            assert handed is not None
            self._run.unsent(handed[0])
        self._count_overdue()
        for _ in range(self._waiting):
            self._queue.put(None)
        gevent.sleep(0)

    def _count_overdue(self) -> None:
        """What a feeder that was late had not come to."""
        if self._feeder is None:
            return
        while self._next is not None and self._next[0] <= self._run.window_to:
            self._run.unsent(self._next[0])
            self._next = self._timed(next(self._due, None))

    def _timed(self, planned: tuple[float, Request] | None) -> tuple[float, Request] | None:
        return None if planned is None else (self._run.began + planned[0], planned[1])

    def _feed(self) -> None:
        last = self._run.began
        while (upcoming := self._timed(next(self._due, None))) is not None:
            self._next = upcoming
            if upcoming[0] > self._until:
                self._run.end(self._until)
                return
            last = upcoming[0]
            ahead = last - perf_counter()
            if ahead > 0:
                gevent.sleep(ahead)
            self._queue.put(upcoming)
            self._next = None
        self._run.end(last)
        while self._run.in_flight or not self._queue.empty():
            gevent.sleep(_LOOK_EVERY_S)
        self._at_end()
