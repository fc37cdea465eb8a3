"""The last choices: which checkpoint answered a budget a moment ago, so that choices do not flap."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from service.domain.decision import Decision

#: A choice counts for so many decisions since it replaced another: a network that fits, but by no margin, gets its turn
#: then, and is given up at once if it does not fit. Two changes in this many are half a percent.
_DECISIONS = 400
#: Nor does it count any more if nobody has asked for so many seconds.
_UNASKED_S = 2.0
#: How many budgets are remembered, of those that were asked for last.
_MOST_BUDGETS = 256


class LastChoices:
    """The checkpoint that answered each budget last. Not thread-safe: use it from one event loop.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._chosen: dict[Hashable, tuple[str, int, float]] = {}
        """Names, for how many decisions each counts, and when it was asked for last."""

    def get(self, budget: Hashable) -> str:
        """The name of the checkpoint that answered the budget last; empty if that does not count any more."""
        name, left, asked_at = self._chosen.get(budget, ("", 0, 0.0))
        return name if left > 0 and self._clock() - asked_at <= _UNASKED_S else ""

    def note(self, budget: Hashable, decision: Decision) -> Decision:
        """Notes which checkpoint answers the budget now, and returns the decision."""
        chosen = decision.checkpoint.name
        name, left, _ = self._chosen.pop(budget, ("", 0, 0.0))
        self._chosen[budget] = chosen, left - 1 if name == chosen else _DECISIONS, self._clock()
        if len(self._chosen) > _MOST_BUDGETS:
            del self._chosen[next(iter(self._chosen))]
        return decision
