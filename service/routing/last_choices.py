"""The last choices: which checkpoint answered a budget a moment ago, so that choices do not flap."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from service.domain.decision import Decision
from service.domain.snapshot import LastChoice

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
        self._chosen: dict[Hashable, tuple[LastChoice, int, float]] = {}
        """Choices, for how many decisions each counts, and when it was asked for last."""

    def get(self, budget: Hashable) -> LastChoice | None:
        """What answered the budget last; None if that does not count any more."""
        choice, left, asked_at = self._chosen.get(budget, (None, 0, 0.0))
        return choice if left > 0 and self._clock() - asked_at <= _UNASKED_S else None

    def note(self, budget: Hashable, decision: Decision) -> Decision:
        """Notes which checkpoint answers the budget now, and returns the decision."""
        chosen, before = decision.checkpoint.name, self.get(budget)
        _, left, _ = self._chosen.pop(budget, (None, 0, 0.0))
        # What fits now, but not by a margin, is not listed: it keeps the time at which it was refused.
        refused_s = {} if before is None else dict(before.refused_s)
        if decision.routing is not None:
            for entry in decision.routing.considered:
                if entry.rejected == "overloaded" and entry.predicted_ms is not None:
                    refused_s[entry.model] = entry.predicted_ms / 1000
        left = left - 1 if before is not None and before.name == chosen else _DECISIONS
        self._chosen[budget] = LastChoice(chosen, refused_s), left, self._clock()
        if len(self._chosen) > _MOST_BUDGETS:
            del self._chosen[next(iter(self._chosen))]
        return decision
