"""Work that threads do ahead of whoever waits for it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(make: Callable[[int], T], count: int, threads: int | None = None) -> Iterator[T]:
    """``make(0)``, ``make(1)`` ... in order, as many at work as there are threads: by default one a core."""
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
