"""Admission: how long a picture may be delayed that was let in, so that those who come later do not make it late.

The queues are earliest deadline first, so a picture that comes later may go first. Each picture that was let in has
its slack: how much earlier than its deadline it is expected to be answered. A later picture with an earlier deadline
takes its device time from the slack of everyone behind it; if one of them has less left than that, it is not let in.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field


@dataclass(slots=True, order=True)
class LetIn:
    """A picture that was let in and is not answered yet."""

    deadline: float
    slack_s: float = field(compare=False)


class Admission:
    """The pictures that were let in on one device. Lives on one event loop."""

    def __init__(self) -> None:
        self._let_in: list[LetIn] = []

    def slack_s(self, deadline: float) -> float:
        """The least slack of the pictures with later deadlines; infinite if there are none."""
        return min((picture.slack_s for picture in self._let_in if picture.deadline > deadline), default=math.inf)

    def add(self, deadline: float, slack_s: float, device_s: float) -> LetIn:
        """Lets a picture in; ``remove`` must follow.

        Args:
            deadline: when it must be answered, on the clock of all deadlines.
            slack_s: how much earlier it is expected to be answered.
            device_s: by how much it delays the pictures behind it.
        """
        for later in self._let_in:
            if later.deadline > deadline:
                later.slack_s -= device_s
        picture = LetIn(deadline, slack_s)
        insort(self._let_in, picture)
        return picture

    def remove(self, picture: LetIn) -> None:
        """Takes a picture out, whatever became of it."""
        self._let_in = [other for other in self._let_in if other is not picture]
