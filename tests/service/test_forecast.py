"""Forecasts: from the profile at first, then from what batches took."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from models.checkpoints import Catalogue
from service.forecast import Forecast, Safety
from service.profiles import Fingerprint, Latency, Profile

GOOGLENET = Catalogue(Path("/nonexistent")).find("googlenet")
FINGERPRINT = Fingerprint(
    device="any", engine="fake", precision="float32", threads=1, max_batch_size=16, libraries={}, weights="seeded"
)


class Clock:
    """Goes only where it is put."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def latency(mean_ms: float, p95_ms: float | None = None) -> Latency:
    high = p95_ms or mean_ms
    return Latency(mean_ms=mean_ms, p50_ms=mean_ms, p95_ms=high, p99_ms=high, runs=10)


def profile(forward: dict[int, Latency]) -> Profile:
    return Profile(
        checkpoint=GOOGLENET.name,
        fingerprint=FINGERPRINT,
        measured_at="2025-01-01T00:00:00Z",
        quick=False,
        forward=forward,
        decode={"thumbnail": latency(2), "medium": latency(8)},
        load_cold_ms=None,
        load_cached_ms=500,
        footprint_bytes=90,
        load_peak_bytes=120,
    )


#: A straight line, which CURVE_S goes on with: a batch of 12 saves most of what there is to save.
MEASURED = profile({1: latency(10), 4: latency(22), 16: latency(70)})
CURVE_S = (0.0, *((6 + 4 * size) / 1000 for size in range(1, 21)))
#: Here one of 16 pays.
FLAT = profile({1: latency(10), 16: latency(11)})


class Served:
    """A forecast and the batches that it learns from."""

    def __init__(self, forward: Profile | None = FLAT) -> None:
        self.clock = Clock()
        self.forecast = Forecast(GOOGLENET, forward, 16, self.clock)
        self.before_s = self.forecast.forward_s
        self.random = random.Random(0)

    def batches(self, slower: Callable[[int], float], *, size: int | None = None) -> None:
        """Enough that those before count no more, of that size or of all that pay."""
        for _ in range(400):
            self.clock.now += 1
            taken = size or self.random.randint(1, len(self.forecast.forward_s) - 1)
            self.forecast.learn(taken, slower(taken) * self.before_s[taken])

    @property
    def ratios(self) -> list[float]:
        """Of the forecast to what it was before, by batch size, from 1 on."""
        return [now / before for now, before in zip(self.forecast.forward_s[1:], self.before_s[1:], strict=False)]


def test_between_the_measured_sizes_lie_straight_lines_up_to_what_pays() -> None:
    forecast = Forecast(GOOGLENET, MEASURED, 20)
    largest = len(forecast.forward_s) - 1
    assert forecast.forward_s == pytest.approx(CURVE_S[: largest + 1])
    rates = [size / CURVE_S[size] for size in range(1, 21)]
    assert [rate >= 0.95 * max(rates) for rate in rates].index(True) + 1 == largest
    assert (forecast.footprint_bytes, forecast.load_peak_bytes, forecast.load_s) == (90, 120, 0.5)


@pytest.mark.parametrize(
    ("forward", "expected_ms"),
    [
        ({1: 10, 2: 8, 4: 12}, [0, 10, 10, 10, 12]),  # a larger batch is never faster
        ({1: 10, 2: 10.2}, [0, 10, 10.2, 10.4, 10.6]),
        ({2: 10}, [0, 10, 10]),
        ({1: 10}, [0, 10]),  # nothing is known of larger ones, so that none pays
    ],
)
def test_a_curve_never_falls_and_goes_on_beyond_what_was_measured(
    forward: dict[int, float], expected_ms: list[float]
) -> None:
    forecast = Forecast(GOOGLENET, profile({size: latency(ms) for size, ms in forward.items()}), 4)
    assert forecast.forward_s == pytest.approx([ms / 1000 for ms in expected_ms])


def test_the_forecast_is_the_95th_percentile() -> None:
    """By the profile's steadiest batch: a burst of other work during the others was no property of the network."""
    served = Served(profile({1: latency(10, 15), 16: latency(11, 13.2)}))
    assert served.forecast.forward_s[1] == pytest.approx(0.012)
    assert served.forecast.expected_s(1) == pytest.approx(0.010)
    served.batches(lambda _size: 1.5)
    assert served.forecast.forward_s[1] / served.forecast.expected_s(1) == pytest.approx(1.2)


def test_a_machine_that_is_twice_as_slow_doubles_the_forecast_and_it_recovers() -> None:
    served = Served()
    for slower in (2.0, 1.0):
        served.batches(lambda _size, slower=slower: slower)
        assert served.ratios == pytest.approx([slower] * len(served.ratios), rel=0.1)


def test_where_only_large_batches_are_slower_the_line_tilts() -> None:
    served = Served()
    served.batches(lambda size: 1 + (size - 1) / 15)
    assert len(served.ratios) >= 14
    assert served.ratios == pytest.approx([1 + i / 15 for i in range(len(served.ratios))], rel=0.2)


@pytest.mark.parametrize("size", [1, 8, 16])
def test_batches_of_one_size_say_nothing_wild_of_the_others(size: int) -> None:
    served = Served()
    served.batches(lambda _size: 2.0, size=size)
    # Where batches of that size pay no more, the largest that does.
    assert served.ratios[:size][-1] == pytest.approx(2.0, rel=0.1)
    assert all(1.0 <= ratio <= 2.6 for ratio in served.ratios)


@pytest.mark.parametrize("size", [1, 8, 16])
def test_a_larger_batch_is_never_forecast_to_be_faster(size: int) -> None:
    served = Served()
    served.batches(lambda _size: 2.0, size=size)
    assert all(smaller <= larger for smaller, larger in pairwise(served.forecast.forward_s))


def test_decoding_is_looked_up_by_size_and_learned() -> None:
    served = Served()
    assert served.forecast.decode_s(4_096) == 0.002
    assert served.forecast.decode_s(100_000) == 0.008
    assert served.forecast.decode_s(5_000) > 0  # of a class that was not measured
    for _ in range(200):
        served.forecast.learn_decode(100, 0.004)
    assert served.forecast.decode_s(100_000) == pytest.approx(0.016, rel=0.01)


def test_without_a_profile_it_is_guessed_until_batches_tell() -> None:
    served = Served(None)
    guess = served.forecast
    assert len(guess.forward_s) == 17
    assert 0 < guess.forward_s[1] < guess.forward_s[16]
    assert guess.decode_s(1_000) > 0
    assert guess.load_s > 0
    assert 4 * GOOGLENET.variant.params < guess.footprint_bytes <= guess.load_peak_bytes
    served.batches(lambda _size: 0.25)
    assert served.ratios == pytest.approx([0.25] * 16, rel=0.2)


def test_missed_predictions_raise_the_safety_and_time_calms_it() -> None:
    clock = Clock()
    safety = Safety(clock)
    least = safety.factor
    safety.judge(1.0, 1.0)
    assert safety.factor == least >= 1
    for misses in (1, 3, 200):
        before = safety.factor
        for _ in range(misses):
            safety.judge(1.0, 2.0)
        assert safety.factor > before
    highest = safety.factor
    assert highest <= 4
    safety.judge(1.0, highest)  # within what the factor allows for
    assert safety.factor == highest
    clock.now += 90
    assert least < safety.factor < least + 0.4 * (highest - least)
    clock.now += 3600
    assert safety.factor == pytest.approx(least)


def test_a_greater_miss_raises_the_safety_by_more() -> None:
    factors = []
    for actual_s in (1.3, 2.0, 3.0):
        safety = Safety(Clock())
        safety.judge(1.0, actual_s)
        factors.append(safety.factor)
    assert factors == sorted(set(factors))


def test_the_accuracy_is_of_the_last_predictions() -> None:
    safety = Safety(Clock())
    assert safety.accuracy() == (0, None, None)
    taken = random.Random(2)
    pairs = [(taken.uniform(0.1, 1), taken.uniform(0.1, 1)) for _ in range(300)]
    for predicted_s, actual_s in pairs:
        safety.judge(predicted_s, actual_s)
    last = pairs[-256:]
    assert safety.accuracy() == pytest.approx(
        (256, statistics.median(a / p for p, a in last), statistics.median(abs(p - a) / a for p, a in last))
    )
