"""The highest rate that a network holds: a search over whatever measures a rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

#: From a rate that failed to one that held, at the end of the search.
TOLERANCE = 1.1
#: From one rate to the next, until one held and another did not.
_STRIDE = 1.35
_STRIDES = 12
#: A confirmation that fails is tried again so much lower; after three the looks were far off, and what counts is
#: that there is a figure.
_RETREATS = (0.93, 0.93, 0.93, 0.8, 0.6)


class Measured(Protocol):
    """What the search has to know of a step."""

    @property
    def held(self) -> bool: ...


S = TypeVar("S", bound=Measured)


@dataclass(frozen=True)
class Knee(Generic[S]):
    """What a search found: the confirmed rate and its step, None if no rate was confirmed."""

    rate: float | None
    step: S | None
    tried: list[tuple[float, bool, bool]] = field(default_factory=list)
    """Rate, whether it held, whether it was a confirmation; in order."""


def find_knee(measure: Callable[[float, int], S], start: float) -> Knee[S]:
    """Finds the highest rate that holds, within ``TOLERANCE`` if what holds is monotone, and confirms it.

    Rates go up or down by strides from ``start`` until one held and one did not, then the gap is halved on a
    logarithmic scale. The best of several looks was lucky too, so the figure is of a longer step at that rate; where
    that fails, of one a little lower. However the measurements contradict each other, it ends after at most 20 of them.

    Args:
        measure: (requests a second, 0 for a look or the number of the confirmation) -> the step.
        start: where to begin, requests a second; a little below what is expected.
    """
    tried: list[tuple[float, bool, bool]] = []

    def holds(rate: float) -> bool:
        held = measure(rate, 0).held
        tried.append((rate, held, False))
        return held

    low, high = _bracket(holds, start)
    if low is None:
        return Knee(None, None, tried)
    while high is not None and high / low > TOLERANCE:
        middle = math.sqrt(low * high)
        if holds(middle):
            low = middle
        else:
            high = middle
    rate = low
    for attempt, retreat in enumerate((*_RETREATS, 0.0), start=1):
        step = measure(rate, attempt)
        tried.append((rate, step.held, True))
        if step.held:
            return Knee(rate, step, tried)
        rate *= retreat
    return Knee(None, None, tried)


def _bracket(holds: Callable[[float], bool], start: float) -> tuple[float | None, float | None]:
    """A rate that held and a higher one that did not; None for what strides did not reach."""
    low = high = None
    rate = start
    for _ in range(_STRIDES):
        if holds(rate):
            low = rate
            if high is not None:
                break
            rate *= _STRIDE
        else:
            high = rate
            if low is not None:
                break
            rate /= _STRIDE
    return low, high


def ambiguity(tried: list[tuple[float, bool, bool]], confirmed: float) -> float:
    """How far above the confirmed rate the true one may lie, relative to it: up to the lowest rate that failed above
    it, or the highest that held, whichever is higher."""
    failed = [rate for rate, held, _ in tried if not held and rate > confirmed]
    held = [rate for rate, held, _ in tried if held]
    return max(min(failed, default=confirmed), max(held, default=confirmed), confirmed) / confirmed - 1
