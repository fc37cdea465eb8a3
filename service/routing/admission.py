"""Admission: pictures that were admitted are not made late by pictures that arrive after them.

Queues run earliest deadline first, so a picture that arrives later may go first. Each admitted picture has its slack:
how much earlier than its deadline it is expected to be answered. A later picture with an earlier deadline takes its
device time from the slack of every picture behind it. If one of them has less slack than that, the later picture is
not admitted.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field


@dataclass(slots=True, order=True)
class AdmittedPicture:
    """A picture that was admitted and is not answered yet."""

    deadline: float
    slack_s: float = field(compare=False)


class AdmittedPictures:
    """The admitted pictures of one device. Not thread-safe: use it from one event loop."""

    def __init__(self) -> None:
        self._pictures: list[AdmittedPicture] = []

    def slack_s(self, deadline: float) -> float:
        """The minimum slack of the pictures with later deadlines; infinite if there are none."""
        return min((picture.slack_s for picture in self._pictures if picture.deadline > deadline), default=math.inf)

    def add(self, deadline: float, slack_s: float, device_s: float) -> AdmittedPicture:
        """Admits a picture; ``remove`` must follow.

        Args:
            deadline: when it must be answered, on the clock of all deadlines.
            slack_s: how much earlier it is expected to be answered.
            device_s: how many seconds it delays the pictures behind it.
        """
        for later in self._pictures:
            if later.deadline > deadline:
                later.slack_s -= device_s
        picture = AdmittedPicture(deadline, slack_s)
        insort(self._pictures, picture)
        return picture

    def remove(self, picture: AdmittedPicture) -> None:
        """Removes a picture, regardless of its outcome."""
        self._pictures = [other for other in self._pictures if other is not picture]
