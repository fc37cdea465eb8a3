"""A forecast: what a checkpoint will take, by its profile, corrected by what its batches took.

A profile is measured alone on a quiet machine. While serving, other work shares the device, so each forward pass is
compared with the profile, and the profile's curve is multiplied by the mean ratio, recent batches weighing more. Ratios
keep the steps of the profile (a GPU's buckets) and make small batches count as much as large ones. Decoding is compared
likewise, by size class, or by the kind of work where a picture's outline is known.

The corrections fade while nobody uses the checkpoint (``quiet.py``): on an idle service the forecast is the profile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

from models.checkpoints.catalogue import Checkpoint
from models.images.cost import RATES, Rate, price
from models.images.outline import Outline
from models.images.preprocess import Preprocess
from service.domain.quiet import Quiet
from service.profiling.profiles import Profile, size_class

#: Each batch multiplies the weight of all earlier ones by this: about the last twenty decide.
_FADE = 0.95
#: The weight of the profile at first, in batches; it fades like theirs.
_PROFILE_WEIGHT = 8.0
#: The minimum ratio of a forward pass to its profile, or to the guess that replaces a profile.
_LEAST_RATIO = 1e-3
#: The largest ratio of a decode to its profile: measured decodes include the wait for a thread, which may be long.
_MOST_DECODE_RATIO = 10.0
#: The curve is computed at most once in this time; under load, one batch hardly changes it.
_DRAW_EVERY_S = 0.05
#: A batch size with this share of the best throughput is large enough: larger batches do not pay.
_NEARLY = 0.95
#: A picture whose price is more than this many times what a photograph of its size takes is unlike a photograph.
_LIKE_A_PHOTOGRAPH = 2.0
#: How many pictures' prices are remembered: each is asked for several times, and callers may send many alike.
_REMEMBERED = 32
#: Guesses for what was never measured, pessimistic: multiply-adds per second of a CPU, and seconds of a decode.
_GUESSED_RATE, _GUESSED_DECODE_S = 2e10, 0.02


@cache
def _priced(preprocess: Preprocess, rates: tuple[tuple[str, Rate], ...]) -> Callable[[Outline], float]:
    """What decoding takes, by a picture's outline, for all checkpoints that decode alike."""
    by_kind = dict(rates)
    return lru_cache(_REMEMBERED)(lambda outline: price(outline, preprocess, by_kind).seconds)


class Forecast:
    """What one checkpoint will take on one device.

    Args:
        checkpoint: the checkpoint.
        profile: its profile; without one, times are guessed from its multiply-adds until batches have been measured.
        max_batch_size: the largest batch.
        clock: seconds, monotonic.
        quiet: the quiet time of the checkpoint; by default it is quiet whenever nothing is learned.
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
        rates = RATES if profile is None or profile.decode_rates is None else profile.decode_rates
        self._priced_s = _priced(checkpoint.preprocess, tuple(rates.items()))
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
            self.wake_s = self.load_s if profile.wake_ms is None else profile.wake_ms / 1000
        else:
            costs = checkpoint.costs
            alone = costs.multiply_adds / _GUESSED_RATE
            self._curve = _curve([(1, alone), (2, 2 * alone)], max_batch_size)
            self.spread, self._decode = 1.0, {}
            weights, activations = 4 * costs.params, 4 * costs.activations
            self.footprint_bytes = 2 * weights + min(max_batch_size * activations, max(160_000_000, weights))
            self.load_peak_bytes = max(self.footprint_bytes, 3 * weights)
            self.load_s = self.wake_s = 0.5 + weights / 2e8
        self._weight = self._total = _PROFILE_WEIGHT
        """Of the ratios, the sum of their weights, and the weighted sum."""
        self._decode_ratios: dict[str, float] = {}
        self._learned_at = self._quiet.seconds
        # A profile that was measured for smaller batches does not say whether larger ones pay.
        self.worthwhile = (
            max_batch_size if profile is None else _worthwhile(self._curve[: profile.fingerprint.max_batch_size + 1])
        )
        """The smallest batch with nearly the best throughput by the profile. Without a profile it is the largest batch:
        a guess is no reason to make batches small."""
        self.profiled_forward_s = 0.0 if profile is None else self._curve[1] * self.spread
        """The 95th percentile of a forward pass of one picture, by the profile alone; 0 without a profile."""
        self._draw()

    @property
    def forward_s(self) -> tuple[float, ...]:
        """The 95th percentile of a forward pass by batch size; [0] is unused."""
        if self._quiet.kept(self._learned_at) != self._drawn_kept:
            self._draw()
        return self._forward_s

    def expected_s(self, batch_size: int) -> float:
        """The mean of a forward pass."""
        return self.forward_s[batch_size] / self.spread

    def profiled_s(self, batch_size: int) -> float | None:
        """The mean of a forward pass, by the profile alone; None without a profile."""
        return None if self.profile is None else self._curve[batch_size]

    def decode_s(self, encoded_bytes: int, outline: Outline | None = None) -> tuple[float, float]:
        """The median of decoding a picture of that size, and of that outline if it is known; and the same by the
        profile alone, 0 if the profile does not say."""
        kind, profiled_s = self._profiled_decode(encoded_bytes, outline)
        ratio = self._decode_ratios.get(kind)
        decode_s = profiled_s if ratio is None else profiled_s * self._faded(ratio)
        unknown = self.profile is None or (outline is None and kind not in self._decode)
        return decode_s, 0.0 if unknown else profiled_s

    def _profiled_decode(self, encoded_bytes: int, outline: Outline | None) -> tuple[str, float]:
        """What kind of decoding it is, and the seconds that it takes by the profile.

        The size classes were measured with photographs, so that they say nothing of a PNG of many pixels in few bytes.
        Its price does, and the price of a photograph does too where nothing was measured."""
        kind = size_class(encoded_bytes)
        measured_s = self._decode.get(kind)
        if outline is None:
            return kind, _GUESSED_DECODE_S if measured_s is None else measured_s
        if self.profile is None:
            # Guesses are pessimistic, whatever the picture.
            measured_s = _GUESSED_DECODE_S
        priced_s = self._priced_s(outline)
        as_measured = self.profile is None or outline.kind == "jpeg" or kind == "thumbnail"
        if measured_s is not None and as_measured and priced_s <= _LIKE_A_PHOTOGRAPH * measured_s:
            return kind, measured_s
        return outline.kind, priced_s

    def learn(self, batch_size: int, forward_s: float) -> None:
        """Corrects the forecast by a measured forward pass."""
        self._settle()
        self._weight = _FADE * self._weight + 1
        self._total = _FADE * self._total + forward_s / self._curve[batch_size]
        if self._clock() - self._drawn_at > _DRAW_EVERY_S:
            self._draw()

    def learn_decode(self, encoded_bytes: int, decode_s: float, outline: Outline | None = None) -> None:
        """Corrects the forecast by a measured decode, which includes the wait for a thread."""
        self._settle()
        kind, profiled_s = self._profiled_decode(encoded_bytes, outline)
        ratio = min(_MOST_DECODE_RATIO, decode_s / profiled_s)
        before = self._decode_ratios.get(kind, 1.0)
        self._decode_ratios[kind] = before + 0.05 * (ratio - before)

    def _faded(self, ratio: float) -> float:
        return 1.0 + (ratio - 1.0) * self._quiet.kept(self._learned_at)

    def _settle(self) -> None:
        """Makes permanent what has faded in quiet time, before something new is learned."""
        if self._own_quiet:
            self._quiet.touch()
        kept = self._quiet.kept(self._learned_at)
        if kept < 1:
            self._weight, self._total = _towards_profile(self._weight, kept), _towards_profile(self._total, kept)
            self._decode_ratios = {kind: self._faded(ratio) for kind, ratio in self._decode_ratios.items()}
            self._learned_at = self._quiet.seconds
            self._draw()

    def _draw(self) -> None:
        self._drawn_kept = self._quiet.kept(self._learned_at)
        kept = self._drawn_kept
        ratio = max(_LEAST_RATIO, _towards_profile(self._total, kept) / _towards_profile(self._weight, kept))
        self._forward_s = tuple(seconds * ratio * self.spread for seconds in self._curve)
        self._drawn_at = self._clock()


def _towards_profile(total: float, kept: float) -> float:
    """The mixture of a sum, with weight ``kept``, and what it is by the profile alone, with the remaining weight."""
    return _PROFILE_WEIGHT + kept * (total - _PROFILE_WEIGHT)


def _curve(points: Sequence[tuple[int, float]], largest: int) -> list[float]:
    """Mean latency by batch size, [0] unused: linear interpolation between the measured sizes, and extrapolation beyond
    the last two. It never falls: a larger batch that was measured as faster was lucky."""
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
    """The smallest batch with nearly the best throughput. If a picture takes as long in a batch as alone (most networks
    on a CPU), a large batch would only block the device for other checkpoints."""
    rates = [size / seconds for size, seconds in enumerate(forward_s) if size]
    return next(size for size, rate in enumerate(rates, 1) if rate >= _NEARLY * max(rates))
