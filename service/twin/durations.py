"""How long something takes in a simulation: drawn from the distribution that a profile tells of.

A profile has the mean and percentiles of each piece of work. Times of forward passes have a lower bound and a long
tail, so a lognormal distribution with the same mean and the same 95th percentile stands for them.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from statistics import NormalDist

from service.profiling.profiles import Latency

#: The 95th percentile of the standard normal distribution.
_P95 = NormalDist().inv_cdf(0.95)


def sigma(spread: float) -> float:
    """The standard deviation of the logarithm of a lognormal distribution whose 95th percentile is ``spread`` times its
    mean. 0, a constant, where the percentile is not above the mean; and the largest that any has, where no lognormal
    distribution has such a tail (above exp(1.645^2 / 2) = 3.87)."""
    if spread <= 1.0:
        return 0.0
    # ln(p95 / mean) = z * sigma - sigma^2 / 2; the smaller root, since a larger one has most of its values near 0.
    return _P95 - math.sqrt(max(0.0, _P95**2 - 2 * math.log(spread)))


class Durations:
    """Draws the seconds of passes by batch size.

    Args:
        measured: latencies by batch size; between two sizes the mean and the spread are interpolated, and beyond the
            last two the mean is extrapolated.
        largest: the largest size that will be asked for.
        source: of random numbers.
        spread: whether times are drawn; without it each is the mean.
    """

    def __init__(
        self, measured: Sequence[tuple[int, Latency]], largest: int, source: random.Random, *, spread: bool = True
    ) -> None:
        points = sorted(measured, key=lambda point: point[0])
        means = _line([(size, latency.mean_ms / 1000) for size, latency in points], largest)
        # A larger batch that was measured as faster was lucky.
        self._means = [max(means[: size + 1]) for size in range(largest + 1)]
        spreads = _line([(size, latency.p95_ms / latency.mean_ms) for size, latency in points], largest, level=True)
        self._sigmas = [sigma(ratio) if spread else 0.0 for ratio in spreads]
        self._source = source

    def mean_s(self, size: int) -> float:
        """The mean of what ``draw`` gives."""
        return self._means[size]

    def draw(self, size: int) -> float:
        """Seconds of one pass of so many pictures."""
        deviation = self._sigmas[size]
        if not deviation:
            return self._means[size]
        return self._means[size] * math.exp(self._source.gauss(-deviation * deviation / 2, deviation))


def _line(points: Sequence[tuple[int, float]], largest: int, *, level: bool = False) -> list[float]:
    """Values for the sizes 0 to ``largest``, on straight lines between the points. Beyond the last one they go on as
    the last line does, or stay ``level``; a lone point is on a line through 0."""
    if len(points) == 1:
        points = [*points, (2 * points[0][0], points[0][1] * (1 if level else 2))]
    sizes = [size for size, _ in points]
    values = [0.0]
    for size in range(1, largest + 1):
        above = min(max(1, bisect_left(sizes, size)), len(points) - 1)
        (x0, y0), (x1, y1) = points[above - 1], points[above]
        share = max(0.0, (size - x0) / (x1 - x0))
        values.append(y0 + (y1 - y0) * (min(1.0, share) if level else share))
    return values
