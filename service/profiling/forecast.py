"""A forecast: what a checkpoint will take, by its profile, corrected by what it took.

A profile is measured alone on a quiet machine. While serving, other work shares the device, so each forward pass is
compared with the profile: a line is fitted through ratios of measured to profiled latency over the batch size, recent
batches weighing more, and the profile's curve is stretched by it. Relative, so that the profile's steps (a GPU's
buckets) stay and small batches count as much as large ones. Decoding is compared in the same way, by size class.

The corrections fade when nobody uses the checkpoint (``quiet.py``): a forecast on an idle service is the profile again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from models.checkpoints.catalogue import Checkpoint
from service.domain.quiet import Quiet
from service.profiling.profiles import Profile, size_class

#: What a batch weighs after each one that follows it: the last twenty or so decide.
_FADE = 0.95
#: What the profile weighs, in batches, when nothing was measured since; it fades as they do.
_PROFILE_WEIGHT = 8.0
#: How strongly the line is held level, in batches at either end of the sizes: batches that are all of one size say
#: nothing about the others but that they share the machine.
_LEVEL_WEIGHT = 2.0
#: No forward pass is taken to be this much faster than its profile, or than the guess that stands for one.
_LEAST_RATIO = 1e-3
#: No decode is taken to be this many times slower than its profile: the wait for a thread is part of what is measured.
_MOST_DECODE_RATIO = 10.0
#: The curve is drawn anew at most so often; under load a batch would not change it visibly.
_DRAW_EVERY_S = 0.05
#: Of the best throughput: a larger batch than one that has this does not pay.
_NEARLY = 0.95
#: For what was never measured: pessimistic multiply-adds a second of a CPU, and bytes of a process's own.
_GUESSED_RATE, _GUESSED_DECODE_S = 2e10, 0.02


class Forecast:
    """What one checkpoint on one device will take.

    Args:
        checkpoint: whose.
        profile: what was measured; without one it is guessed from the number of multiply-adds, until batches tell.
        max_batch_size: the largest batch.
        clock: seconds, monotonic.
        quiet: of the checkpoint; by default it is quiet whenever nothing is learned.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        profile: Profile | None,
        max_batch_size: int,
        clock: Callable[[], float] = time.monotonic,
        quiet: Quiet | None = None,
    ) -> None:
        self.profile = profile
        self._clock = clock
        self._own_quiet = quiet is None
        self._quiet = quiet or Quiet(clock)
        if profile is not None:
            points = sorted(profile.forward.items())
            self._curve = _curve([(size, latency.mean_ms / 1000) for size, latency in points], max_batch_size)
            self.spread = max(1.0, min(latency.p95_ms / latency.mean_ms for _, latency in points))
            self._decode = {kind: latency.p50_ms / 1000 for kind, latency in profile.decode.items()}
            self.footprint_bytes, self.load_peak_bytes = profile.footprint_bytes, profile.load_peak_bytes
            self.load_s = profile.load_cached_ms / 1000
        else:
            costs = checkpoint.costs
            alone = costs.multiply_adds / _GUESSED_RATE
            self._curve = _curve([(1, alone), (2, 2 * alone)], max_batch_size)
            self.spread, self._decode = 1.0, {}
            weights, activations = 4 * costs.params, 4 * costs.activations
            self.footprint_bytes = 2 * weights + min(max_batch_size * activations, max(160_000_000, weights))
            self.load_peak_bytes = max(self.footprint_bytes, 3 * weights)
            self.load_s = 0.5 + weights / 2e8
        middle, half = (max_batch_size + 1) / 2, (max_batch_size - 1) / 2
        self._prior = self._sums = _Sums().plus(middle, 1.0, _PROFILE_WEIGHT)
        self._level = _LEVEL_WEIGHT * half * half
        self._decode_ratios: dict[str, float] = {}
        self._learned_at = self._quiet.seconds
        self._worthwhile = max_batch_size if profile is None else _worthwhile(self._curve)
        self._draw()

    @property
    def forward_s(self) -> tuple[float, ...]:
        """The 95th percentile of a forward pass by batch size; [0] is no batch."""
        if self._quiet.kept(self._learned_at) != self._drawn_kept:
            self._draw()
        return self._forward_s

    @property
    def profiled_forward_s(self) -> float:
        """The 95th percentile of a forward pass of one picture by the profile alone; 0 without one."""
        return 0.0 if self.profile is None else self._curve[1] * self.spread

    @property
    def worthwhile(self) -> int:
        """The smallest batch with nearly the best throughput by the profile; where there is none, the largest: what is
        only guessed is no reason to make batches small."""
        return self._worthwhile

    def expected_s(self, batch_size: int) -> float:
        """A forward pass on average."""
        return self.forward_s[batch_size] / self.spread

    def profiled_s(self, batch_size: int) -> float | None:
        """What the profile says of a forward pass; None without one."""
        return None if self.profile is None else self._curve[batch_size]

    def decode_s(self, encoded_bytes: int) -> float:
        """For a picture of that size, at the median."""
        kind = size_class(encoded_bytes)
        profiled_s, ratio = self._decode.get(kind, _GUESSED_DECODE_S), self._decode_ratios.get(kind)
        return profiled_s if ratio is None else profiled_s * self._faded(ratio)

    def profiled_decode_s(self, encoded_bytes: int) -> float:
        """Decoding a picture of that size, by the profile alone; 0 where the profile does not say."""
        return self._decode.get(size_class(encoded_bytes), 0.0)

    def learn(self, batch_size: int, forward_s: float) -> None:
        """Takes a measured forward pass into account."""
        self._settle()
        ratio = forward_s / self._curve[batch_size]
        self._sums = self._sums.faded(_FADE).plus(batch_size, ratio, 1.0)
        if self._clock() - self._drawn_at > _DRAW_EVERY_S:
            self._draw()

    def learn_decode(self, encoded_bytes: int, decode_s: float) -> None:
        """Takes a measured decode, its wait for a thread among it, into account."""
        self._settle()
        kind = size_class(encoded_bytes)
        ratio = min(_MOST_DECODE_RATIO, decode_s / self._decode.get(kind, _GUESSED_DECODE_S))
        before = self._decode_ratios.get(kind, 1.0)
        self._decode_ratios[kind] = before + 0.05 * (ratio - before)

    def _faded(self, ratio: float) -> float:
        return 1.0 + (ratio - 1.0) * self._quiet.kept(self._learned_at)

    def _settle(self) -> None:
        """Forgets for good as much as has faded in quiet time, before something new is learned."""
        if self._own_quiet:
            self._quiet.touch()
        kept = self._quiet.kept(self._learned_at)
        if kept < 1:
            self._sums = self._sums.towards(self._prior, kept)
            self._decode_ratios = {kind: self._faded(ratio) for kind, ratio in self._decode_ratios.items()}
            self._learned_at = self._quiet.seconds
            self._draw()

    def _draw(self) -> None:
        self._drawn_kept = self._quiet.kept(self._learned_at)
        a, b = self._sums.towards(self._prior, self._drawn_kept).line(self._level)
        ratios = (max(_LEAST_RATIO, a + b * size) for size in range(len(self._curve)))
        stretched = (seconds * ratio * self.spread for seconds, ratio in zip(self._curve, ratios, strict=True))
        self._forward_s = tuple(itertools.accumulate(stretched, max))
        self._drawn_at = self._clock()


class _Sums(NamedTuple):
    """What a weighted least-squares line needs to remember."""

    w: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def faded(self, by: float) -> _Sums:
        return _Sums(*(by * total for total in self))

    def towards(self, other: _Sums, kept: float) -> _Sums:
        """``kept`` of these sums and the rest of others."""
        return _Sums(*(theirs + kept * (ours - theirs) for ours, theirs in zip(self, other, strict=True)))

    def plus(self, x: float, y: float, weight: float) -> _Sums:
        return _Sums(
            self.w + weight,
            self.x + weight * x,
            self.y + weight * y,
            self.xx + weight * x * x,
            self.xy + weight * x * y,
        )

    def line(self, level: float) -> tuple[float, float]:
        """Intercept and slope, the slope drawn towards 0 by ``level``."""
        across = self.xx - self.x * self.x / self.w + level
        slope = (self.xy - self.x * self.y / self.w) / across if across > 0 else 0.0
        return (self.y - slope * self.x) / self.w, slope


def _curve(points: Sequence[tuple[int, float]], largest: int) -> list[float]:
    """Mean latency by batch size, [0] unused: straight lines between what was measured, and on from the last two. It
    never falls: a larger batch that was measured as faster was lucky."""
    (first, alone), *_ = points
    curve = [0.0]
    for size in range(1, largest + 1):
        above = next((i for i, (measured, _) in enumerate(points) if measured >= size), len(points) - 1)
        if size <= first or len(points) == 1:
            value = alone * size / first if size > first else alone
        else:
            (x0, y0), (x1, y1) = points[max(0, above - 1)], points[max(1, above)]
            value = y0 + (y1 - y0) * (size - x0) / (x1 - x0)
        curve.append(max(value, curve[-1]))
    return curve


def _worthwhile(forward_s: Sequence[float]) -> int:
    """The smallest batch with nearly the best throughput. Where a picture takes as long in a batch as alone (most
    networks on a CPU), a large batch would only keep the device from everybody else for long."""
    rates = [size / seconds for size, seconds in enumerate(forward_s) if size]
    return next(size for size, rate in enumerate(rates, 1) if rate >= _NEARLY * max(rates))
