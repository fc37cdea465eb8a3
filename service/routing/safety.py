"""Safety: how far predictions of whole requests can be trusted."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from service.domain.decision import LEAST_SAFETY
from service.domain.quantile import quantile
from service.domain.quiet import Quiet

#: A prediction that was missed draws the safety factor up by so much of the miss; it goes back to the least by itself,
#: by two thirds in so many seconds of use. So a network that was too slow a moment ago is asked for less, and choices
#: do not flap.
_RAISE, _CALM_S = 0.5, 90.0
_MOST_SAFETY = 4.0
#: After a trial that missed its budget the next one waits so long, and twice as long after each further one.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 16.0


class PredictionErrors(NamedTuple):
    """How far the last predictions were from what answers took."""

    predictions: int
    median_ratio: float | None
    """Of actual to predicted time."""
    median_error: float | None
    """|predicted - actual| / actual."""


class Safety:
    """How far predictions of whole requests can be trusted.

    Args:
        clock: seconds, monotonic.
        quiet: of the checkpoint that is predicted; by default it is quiet whenever nothing is judged.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, quiet: Quiet | None = None) -> None:
        self._clock = clock
        self._own_quiet = quiet is None
        self.quiet = quiet or Quiet(clock)
        self._factor, self._raised_at, self._learned_at = LEAST_SAFETY, clock(), self.quiet.seconds
        self._wait_s, self._next_trial = 0.0, -math.inf
        self._judged: deque[tuple[float, float]] = deque(maxlen=256)

    @property
    def factor(self) -> float:
        """By which predictions are multiplied before they are held against a budget."""
        if self._factor == LEAST_SAFETY:
            return LEAST_SAFETY
        faded = math.exp((self._raised_at - self._clock()) / _CALM_S) * self.quiet.kept(self._learned_at)
        return LEAST_SAFETY + (self._factor - LEAST_SAFETY) * faded

    @property
    def trial(self) -> bool:
        """Whether a picture may be let in on trial: against the predictions, which nobody has tried of late."""
        if self._next_trial == -math.inf or self._clock() >= self._next_trial:
            return True
        return not self.quiet.kept(self._learned_at)

    def judge(self, predicted_s: float, actual_s: float, within_s: float | None = None) -> None:
        """Compares a prediction with what became of it.

        Args:
            predicted_s: from the decision to the answer.
            actual_s: the same, measured.
            within_s: what a picture that was let in on trial was allowed; None for any other.
        """
        self._judged.append((predicted_s, actual_s))
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
        """Of the last 256 predictions."""
        if not self._judged:
            return PredictionErrors(0, None, None)
        ratios = [actual / predicted for predicted, actual in self._judged]
        wrong = [abs(predicted - actual) / actual for predicted, actual in self._judged]
        return PredictionErrors(len(ratios), quantile(ratios, 0.5), quantile(wrong, 0.5))
