"""Admission: pictures that were admitted are not made late by pictures that arrive after them.

Queues run earliest deadline first, so a picture that arrives later may go first. Each admitted picture has its slack:
how much earlier than its deadline it is expected to be answered. A later picture with an earlier deadline takes its
device time from the slack of every picture behind it. If one of them has less slack than that, the later picture is
not admitted.

That holds for the first few pictures of each caller. What a caller has beyond them may be made late by other callers:
otherwise one caller's bulk would send everybody else away.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from dataclasses import dataclass
from operator import attrgetter

from service.domain.shares import FEW

_deadline = attrgetter("deadline")


@dataclass(slots=True, eq=False)
class AdmittedPicture:
    """A picture that was admitted and is not answered yet."""

    deadline: float
    slack_s: float
    caller: str = ""
    beyond: bool = False
    """Whether the caller had many when it was admitted."""


class AdmittedPictures:
    """The admitted pictures of one device. Not thread-safe: use it from one event loop."""

    def __init__(self) -> None:
        self._pictures: list[AdmittedPicture] = []
        self._callers: Counter[str] = Counter()

    def slack_s(self, deadline: float, caller: str = "") -> float:
        """The minimum slack of the pictures with later deadlines that a caller's picture must not make late; infinite
        if there are none."""
        later = self._pictures[self._later_than(deadline) :]
        return min((p.slack_s for p in later if not p.beyond or p.caller == caller), default=math.inf)

    def _later_than(self, deadline: float) -> int:
        """The place of the first picture with a later deadline."""
        return bisect.bisect_right(self._pictures, deadline, key=_deadline)

    def add(self, deadline: float, slack_s: float, device_s: float, caller: str = "") -> AdmittedPicture:
        """Admits a picture; ``remove`` must follow.

        Args:
            deadline: when it must be answered, on the clock of all deadlines.
            slack_s: how much earlier it is expected to be answered.
            device_s: how many seconds it delays the pictures behind it.
            caller: who asked.
        """
        place = self._later_than(deadline)
        for later in self._pictures[place:]:
            later.slack_s -= device_s
        picture = AdmittedPicture(deadline, slack_s, caller, self._callers[caller] >= FEW)
        self._callers[caller] += 1
        self._pictures.insert(place, picture)
        return picture

    def remove(self, picture: AdmittedPicture) -> None:
        """Removes a picture, regardless of its outcome."""
        self._pictures.remove(picture)
        self._callers[picture.caller] -= 1
        if not self._callers[picture.caller]:
            del self._callers[picture.caller]
