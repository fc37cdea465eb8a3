"""Safety: how much longer than predicted an answer may take, so that hardly anybody who was let in is answered late.

The factor is the multiplier of that constraint, as the price of ``pressure.py`` is of the other one: it rises with each
late answer, and falls with each that came in time, so that one late answer in two hundred holds it where it is. What
was answered later than predicted and still in time does not raise it: pictures with nearer deadlines may have gone
first, as they should.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from service.domain.decision import LEAST_SAFETY
from service.domain.quiet import Quiet

#: The factor rises by this with a late answer, and falls by ``_FALL`` with one in time.
_RISE, _FALL = 0.1, 0.0005
_MOST_SAFETY = 4.0
#: It falls to the minimum by two thirds in this many seconds too: trouble of a moment is not remembered for long.
_CALM_S = 90.0
#: Seconds until the next trial after one that missed its budget. Each further miss doubles them.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 16.0
#: How many predictions ``errors`` looks back on.
_REMEMBERED = 256


class PredictionErrors(NamedTuple):
    """How far the last predictions were from the times that answers took."""

    predictions: int
    median_ratio: float | None
    """Of the actual to the predicted time."""
    median_error: float | None
    """|predicted - actual| / actual."""


class Safety:
    """How far predictions can be trusted: those for one checkpoint, or for all ensembles.

    Not thread-safe: use it from one event loop.

    Args:
        clock: seconds, monotonic.
        quiet: when the checkpoint is in use; by default only at the moments in which something is learned.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, quiet: Quiet | None = None) -> None:
        self._clock = clock
        self._own_quiet = quiet is None
        self.quiet = quiet or Quiet(clock)
        self._factor, self._raised_at, self._learned_at = LEAST_SAFETY, clock(), self.quiet.seconds
        self._wait_s, self._next_trial = 0.0, -math.inf
        self._learned: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    @property
    def factor(self) -> float:
        """The factor by which predictions are multiplied before they are compared with a budget."""
        if self._factor == LEAST_SAFETY:
            return LEAST_SAFETY
        faded = math.exp((self._raised_at - self._clock()) / _CALM_S) * self.quiet.kept(self._learned_at)
        return LEAST_SAFETY + (self._factor - LEAST_SAFETY) * faded

    @property
    def trial(self) -> bool:
        """Whether a picture may be admitted on trial, to test predictions that refuse it."""
        if self._next_trial == -math.inf or self._clock() >= self._next_trial:
            return True
        return not self.quiet.kept(self._learned_at)

    def learn(self, predicted_s: float, actual_s: float, *, late: bool = False, trial: bool = False) -> None:
        """Notes how an answer went.

        Args:
            predicted_s: from the decision to the answer.
            actual_s: the same, measured.
            late: whether it missed its budget.
            trial: whether it was admitted on trial.
        """
        self._learned.append((predicted_s, actual_s))
        factor, kept = self.factor, self.quiet.kept(self._learned_at)
        if self._own_quiet:
            self.quiet.touch()
        if not kept:
            self._wait_s, self._next_trial = 0.0, -math.inf
        if trial and late:
            self._wait_s = min(_LONGEST_WAIT_S, max(_FIRST_WAIT_S, 2 * self._wait_s))
            self._next_trial = self._clock() + self._wait_s
        elif trial:
            # The predictions were wrong to refuse it.
            factor, self._wait_s = LEAST_SAFETY + (factor - LEAST_SAFETY) / 2, 0.0
        elif not late:
            factor -= _FALL
        if late:
            factor += _RISE
        self._factor = min(_MOST_SAFETY, max(LEAST_SAFETY, factor))
        self._raised_at, self._learned_at = self._clock(), self.quiet.seconds

    def errors(self) -> PredictionErrors:
        """The errors of the last 256 predictions."""
        if not self._learned:
            return PredictionErrors(0, None, None)
        ratios = [actual / predicted for predicted, actual in self._learned]
        relative = [abs(predicted - actual) / actual for predicted, actual in self._learned]
        return PredictionErrors(len(ratios), statistics.median(ratios), statistics.median(relative))
