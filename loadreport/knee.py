"""The search for the knee: the highest rate that a network holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

#: The search ends once the lowest rate that failed is at most this many times the highest one that held.
TOLERANCE = 1.1
#: The factor from one rate to the next until one rate held and another did not, and how many rates are tried so.
_STRIDE = 1.35
_STRIDES = 12
#: After a confirmation that failed, the rate is multiplied by the next of these. After three of them the looks were far
#: off, and the steps become larger: a rough figure is better than none.
_RETREATS = (0.93, 0.93, 0.93, 0.8, 0.6)


class Measured(Protocol):
    """What the search needs to know about a step."""

    @property
    def held(self) -> bool: ...


S = TypeVar("S", bound=Measured)


@dataclass(frozen=True)
class Knee(Generic[S]):
    """The result of a search: the confirmed rate and its step, None if no rate was confirmed."""

    rate: float | None
    step: S | None
    tried: list[tuple[float, bool, bool]] = field(default_factory=list)
    """All steps in order: the rate, whether it held, whether it was a confirmation."""


def find_knee(measure: Callable[[float, int], S], start: float) -> Knee[S]:
    """Finds the highest rate that holds and confirms it.

    Rates go up or down from ``start`` by a constant factor until one held and one did not; then the gap is halved on a
    logarithmic scale. If every rate below some threshold holds and none above it, the result is within ``TOLERANCE`` of
    that threshold.

    The highest of several short looks that held was also a lucky one. The result is therefore a longer step at that
    rate, or at a little lower one where that fails. The search ends after at most 20 steps, however much they
    contradict each other.

    Args:
        measure: called with requests a second and with 0 for a look or the number of the confirmation; returns the
            step.
        start: the first rate in requests a second, best a little below the expected knee.
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
    """A rate that held and a higher one that did not; None for either if no such rate was tried."""
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
    """How far above the confirmed rate the true knee may lie, as a share of the confirmed rate.

    It may lie as high as the lowest rate above that failed, or as the highest rate that held, whichever is higher.
    """
    failed = [rate for rate, held, _ in tried if not held and rate > confirmed]
    held = [rate for rate, held, _ in tried if held]
    return max(min(failed, default=confirmed), max(held, default=confirmed), confirmed) / confirmed - 1
