"""Threads that work ahead of a loop."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(make: Callable[[int], T], count: int, threads: int | None = None) -> Iterator[T]:
    """Yields ``make(0)``, ``make(1)`` ... ``make(count - 1)`` in order, each made by a thread before it is asked for.

    Args:
        make: makes one; it is called by several threads at once.
        count: how many to make.
        threads: how many are made at once, and wait at most; by default one per core.
    """
    threads = threads or len(os.sched_getaffinity(0))
    pool, waiting = ThreadPoolExecutor(threads), deque[Future[T]]()
    try:
        for number in range(count):
            waiting.append(pool.submit(make, number))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
