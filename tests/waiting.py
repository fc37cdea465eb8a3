"""Waiting for what other processes, threads and tasks do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def until(condition: Callable[[], bool], within_s: float = 60) -> None:
    """Waits until the condition holds.

    Raises:
        TimeoutError: it does not hold in time.
    """
    give_up = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"not within {within_s:g} s")
        time.sleep(0.02)


async def soon(condition: Callable[[], bool], within_s: float = 5) -> None:
    """Waits on the event loop until the condition holds.

    Raises:
        TimeoutError: it does not hold in time.
    """
    give_up = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"not within {within_s:g} s")
        await asyncio.sleep(0.002)
