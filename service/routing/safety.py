"""Safety: how far the predictions of whole answers can be trusted."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from service.domain.decision import LEAST_SAFETY
from service.domain.quiet import Quiet

#: A prediction that was missed raises the safety factor by this share of the miss.
_RAISE = 0.5
#: The factor falls back to the minimum, by two thirds in this many seconds of use. So the router asks less of a
#: checkpoint that was too slow a moment ago, and its choices do not flap.
_CALM_S = 90.0
_MOST_SAFETY = 4.0
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

    def learn(self, predicted_s: float, actual_s: float, within_s: float | None = None) -> None:
        """Compares a prediction with the time that the answer took.

        Args:
            predicted_s: from the decision to the answer.
            actual_s: the same, measured.
            within_s: the time that a picture on trial was allowed; None for any other picture.
        """
        self._learned.append((predicted_s, actual_s))
        factor, kept = self.factor, self.quiet.kept(self._learned_at)
        if self._own_quiet:
            self.quiet.touch()
        if not kept:
            self._wait_s, self._next_trial = 0.0, -math.inf
        missed_by = actual_s / predicted_s - factor
        if within_s is not None and actual_s <= within_s:
            # The predictions were wrong to refuse it.
            factor, missed_by = LEAST_SAFETY + (factor - LEAST_SAFETY) / 2, min(0.0, missed_by)
            self._wait_s = 0.0
        elif within_s is not None:
            self._wait_s = min(_LONGEST_WAIT_S, max(_FIRST_WAIT_S, 2 * self._wait_s))
            self._next_trial = self._clock() + self._wait_s
        self._factor = min(_MOST_SAFETY, factor + _RAISE * max(0.0, missed_by))
        self._raised_at, self._learned_at = self._clock(), self.quiet.seconds

    def errors(self) -> PredictionErrors:
        """The errors of the last 256 predictions."""
        if not self._learned:
            return PredictionErrors(0, None, None)
        ratios = [actual / predicted for predicted, actual in self._learned]
        relative = [abs(predicted - actual) / actual for predicted, actual in self._learned]
        return PredictionErrors(len(ratios), statistics.median(ratios), statistics.median(relative))
