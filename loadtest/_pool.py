"""The open loop: one greenlet hands each request that is due to a free user of a pool, which sends it.

A user that waits for an answer does not delay other requests. If all users wait, requests that are due wait in a
queue, and their latency counts from when they were due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Protocol

import gevent
from gevent.queue import SimpleQueue

from loadtest._requests import Request

_LOOK_EVERY_S = 0.05


class Run(Protocol):
    """What the pool needs to know of a run, and tells it."""

    @property
    def began(self) -> float: ...

    @property
    def window_to(self) -> float: ...

    @property
    def in_flight(self) -> int: ...

    def begin(self) -> None: ...

    def end(self, at: float) -> None: ...

    def unsent(self, due: float) -> None: ...


class Pool:
    """Hands requests to users that are free.

    Args:
        due: the requests and the seconds after the beginning at which they are due, ascending.
        until: the end of the run by ``perf_counter``; requests that are due later are not sent.
        at_end: called when all requests have been sent and answered before that end.
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
        """Starts the arrivals."""
        self._run.begin()
        self._feeder = gevent.spawn(self._feed)

    def work(self, send: Callable[[Request, float], object]) -> None:
        """Sends one request after the other for a user, until the pool is closed.

        Args:
            send: sends a request, given the time at which it was due.
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

    def close(self) -> None:
        """Ends the arrivals and releases waiting users; requests that are due but not sent count as unsent."""
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
        """Counts requests that were due but that the feeder, being late, had not handed out."""
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
