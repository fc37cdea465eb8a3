"""What was promised to those who were let in: that they are answered in time.

Whoever comes later with an earlier deadline goes before them. That is right as long as they can afford it: each has
its slack, the time by which it may still be delayed, from which everybody who is let in before it takes what he takes
on the device. Who would take more than one of them has left is not let in.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True, order=True)
class _Promise:
    deadline: float
    slack_s: float = field(compare=False)


class Promises:
    """Of one device. Lives on one event loop."""

    def __init__(self) -> None:
        self._promises: list[_Promise] = []

    def slack_s(self, deadline: float) -> float:
        """What those with later deadlines can spare."""
        return min((p.slack_s for p in self._promises if p.deadline > deadline), default=math.inf)

    @contextmanager
    def made(self, deadline: float, slack_s: float, device_s: float) -> Iterator[None]:
        """A promise, until it is kept or broken.

        Args:
            deadline: until when.
            slack_s: by how much it is expected to be early.
            device_s: by how much it delays those who go after it.
        """
        for later in self._promises:
            if later.deadline > deadline:
                later.slack_s -= device_s
        promise = _Promise(deadline, slack_s)
        insort(self._promises, promise)
        try:
            yield
        finally:
            self._promises = [other for other in self._promises if other is not promise]
