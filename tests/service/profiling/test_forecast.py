"""Forecasts: by the profile at first, then corrected by what batches took."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from models.checkpoints.catalogue import Catalogue
from models.images.cost import RATES, Price, Rate, price
from models.images.outline import Outline
from service.domain.quiet import Quiet
from service.engines.fingerprint import Fingerprint
from service.profiling import forecast as forecast_file
from service.profiling.forecast import Forecast
from service.profiling.profiles import Latency, Profile, read_profiles, shipped_folder
from tests.clock import Clock

GOOGLENET = Catalogue(Path("/nonexistent")).find("googlenet")
FINGERPRINT = Fingerprint(
    device="any", engine="fake", precision="float32", threads=1, max_batch_size=16, libraries={}, weights="seeded"
)


#: The 95th percentile over the mean, unless a test says otherwise.
SPREAD = 1.25


def latency(mean_ms: float, p95_ms: float | None = None) -> Latency:
    """A latency whose mean, median and percentiles all differ."""
    high = p95_ms or SPREAD * mean_ms
    return Latency(mean_ms=mean_ms, p50_ms=0.8 * mean_ms, p95_ms=high, p99_ms=2 * high, runs=10)


def profile(forward: dict[int, Latency]) -> Profile:
    return Profile(
        checkpoint=GOOGLENET.name,
        fingerprint=FINGERPRINT,
        measured_at="2025-01-01T00:00:00Z",
        quick=False,
        forward=forward,
        decode={"thumbnail": latency(2.5), "medium": latency(10)},  # medians of 2 and 8 ms
        load_cold_ms=None,
        load_cached_ms=500,
        footprint_bytes=90,
        load_peak_bytes=120,
    )


#: A straight line of means, which CURVE_S goes on with: a batch of 12 saves most of what there is to save.
MEASURED = profile({1: latency(10), 4: latency(22), 16: latency(70)})
CURVE_S = (0.0, *((6 + 4 * size) / 1000 for size in range(1, 21)))
#: By this one, batches of 16 pay.
FLAT = profile({1: latency(10), 16: latency(11)})


class Served:
    """A forecast, and the batches that it learns from."""

    def __init__(self, forward: Profile | None = FLAT) -> None:
        self.clock = Clock()
        self.forecast = Forecast(GOOGLENET, forward, 16, self.clock)
        self.before_s = self.forecast.forward_s
        self.random = random.Random(0)

    def batches(self, slower: Callable[[int], float], *, size: int | None = None) -> None:
        """Learns so many batches that earlier ones no longer count, of one size or of all sizes."""
        for _ in range(400):
            self.clock.now += 1
            taken = size or self.random.randint(1, len(self.forecast.forward_s) - 1)
            self.forecast.learn(taken, slower(taken) * self.before_s[taken] / self.forecast.spread)

    @property
    def ratios(self) -> list[float]:
        """The forecast over what it was at first, by batch size, from 1 on."""
        return [now / before for now, before in zip(self.forecast.forward_s[1:], self.before_s[1:], strict=False)]


def test_sizes_between_the_measured_ones_are_interpolated() -> None:
    forecast = Forecast(GOOGLENET, MEASURED, 20)
    assert forecast.forward_s == pytest.approx([SPREAD * mean_s for mean_s in CURVE_S])
    # The profile is of batches of up to 16, so it does not say that larger ones pay.
    rates = [size / CURVE_S[size] for size in range(1, 17)]
    assert [rate >= 0.95 * max(rates) for rate in rates].index(True) + 1 == forecast.worthwhile
    assert (forecast.footprint_bytes, forecast.load_peak_bytes, forecast.load_s) == (90, 120, 0.5)


def test_the_shipped_profile_of_a_gpu_is_used_up_to_the_batches_that_it_was_measured_for() -> None:
    file = read_profiles(shipped_folder() / "nvidia-h100-80gb-hbm3.json")
    assert file is not None
    for name, measured in file.profiles.items():
        checkpoint = Catalogue(untrained=True).find(name.partition("@")[0])
        assert max(measured.forward) == 16
        forecast = Forecast(checkpoint, measured, 128)
        assert forecast.worthwhile == Forecast(checkpoint, measured, 16).worthwhile <= 16
        assert len(forecast.forward_s) == 129


@pytest.mark.parametrize(
    ("forward", "expected_ms"),
    [
        ({1: 10, 2: 8, 4: 12}, [0, 10, 10, 10, 12]),  # a larger batch is never faster
        ({1: 10, 2: 10.2}, [0, 10, 10.2, 10.4, 10.6]),
        ({2: 10}, [0, 10, 10, 15, 20]),
        ({1: 10}, [0, 10, 20, 30, 40]),
    ],
)
def test_the_curve_never_falls_and_is_extrapolated(forward: dict[int, float], expected_ms: list[float]) -> None:
    forecast = Forecast(GOOGLENET, profile({size: latency(ms) for size, ms in forward.items()}), 4)
    assert forecast.forward_s == pytest.approx([SPREAD * ms / 1000 for ms in expected_ms])
    assert [forecast.profiled_s(size) for size in range(5)] == pytest.approx([ms / 1000 for ms in expected_ms])
    rates = [size / ms for size, ms in enumerate(expected_ms) if size]
    assert forecast.worthwhile == [rate >= 0.95 * max(rates) for rate in rates].index(True) + 1


def test_the_forecast_is_the_95th_percentile() -> None:
    """Its ratio to the mean is that of the steadiest batch size: other work disturbed the measurement of the others."""
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


def test_batches_that_are_slower_by_different_ratios_are_forecast_by_their_mean() -> None:
    served = Served()
    served.batches(lambda size: 1 + (size - 1) / 15)
    assert served.ratios == pytest.approx([1.5] * 16, rel=0.2)
    assert max(served.ratios) == pytest.approx(min(served.ratios))


@pytest.mark.parametrize("size", [1, 8, 16])
def test_batches_of_one_size_change_the_forecast_of_others_likewise(size: int) -> None:
    served = Served()
    served.batches(lambda _size: 2.0, size=size)
    assert served.ratios == pytest.approx([2.0] * 16, rel=0.05)


@pytest.mark.parametrize("size", [1, 8, 16])
def test_a_larger_batch_is_never_forecast_to_be_faster(size: int) -> None:
    served = Served()
    served.batches(lambda _size: 2.0, size=size)
    assert all(smaller <= larger for smaller, larger in pairwise(served.forecast.forward_s))


def test_a_forecast_takes_means_of_batches_and_medians_of_decodes() -> None:
    forecast = Forecast(GOOGLENET, profile({1: latency(10, 14), 4: latency(20, 26)}), 4)
    assert [forecast.profiled_s(size) for size in (1, 4)] == [0.010, 0.020]
    assert [forecast.expected_s(size) for size in (1, 4)] == pytest.approx([0.010, 0.020])
    assert forecast.spread == pytest.approx(1.3)
    assert forecast.profiled_forward_s == pytest.approx(0.013)
    assert forecast.decode_s(100)[0] == forecast.decode_s(100)[1] == 0.002


PNG_OF_79_MEGAPIXELS = Outline("png alpha", 8900, 8900, 100_000, 4.0 * 8900**2)
PHOTOGRAPH = Outline("jpeg", 600, 400, 100_000, 600 * 400 * 1.5)


def test_a_picture_unlike_a_photograph_takes_its_price_and_a_photograph_what_was_measured() -> None:
    forecast = Forecast(GOOGLENET, profile({1: latency(10)}), 4)
    measured_s = forecast.decode_s(100_000)[0]
    assert forecast.decode_s(100_000, PHOTOGRAPH)[0] == measured_s
    priced_s = price(PNG_OF_79_MEGAPIXELS, GOOGLENET.preprocess).seconds
    assert forecast.decode_s(100_000, PNG_OF_79_MEGAPIXELS)[0] == priced_s > 10 * measured_s
    assert forecast.decode_s(100_000, PNG_OF_79_MEGAPIXELS)[1] == priced_s
    # Nor is a JPEG a photograph that has as many pixels in as few bytes.
    flat = PHOTOGRAPH._replace(width=60_000, height=5_000, units=4.5e8)
    assert forecast.decode_s(100_000, flat)[0] == price(flat, GOOGLENET.preprocess).seconds
    # What is learned of the one says nothing of the other.
    for _ in range(100):
        forecast.learn_decode(100_000, 3 * priced_s, PNG_OF_79_MEGAPIXELS)
    assert forecast.decode_s(100_000, PNG_OF_79_MEGAPIXELS)[0] == pytest.approx(3 * priced_s, rel=0.05)
    assert forecast.decode_s(100_000, PHOTOGRAPH)[0] == measured_s


def test_prices_are_by_the_rates_that_the_profile_measured() -> None:
    known = profile({1: latency(10)})
    rates = {kind: Rate(*(4 * number for number in rate)) for kind, rate in RATES.items()}
    own = Forecast(GOOGLENET, known.model_copy(update={"decode_rates": rates}), 4)
    shipped = Forecast(GOOGLENET, known, 4).decode_s(100_000, PNG_OF_79_MEGAPIXELS)[0]
    assert own.decode_s(100_000, PNG_OF_79_MEGAPIXELS)[0] == pytest.approx(4 * shipped)
    assert Profile.model_validate_json(own.profile.model_dump_json()) == own.profile  # type: ignore[union-attr]


def test_networks_that_are_asked_of_one_picture_in_turn_have_prices_of_their_own() -> None:
    large = replace(GOOGLENET, preprocess=replace(GOOGLENET.preprocess, resize=2048, crop=2048, enlarge=2048))
    other = PNG_OF_79_MEGAPIXELS._replace(width=4450)
    asked = [(GOOGLENET, PNG_OF_79_MEGAPIXELS), (large, PNG_OF_79_MEGAPIXELS), (GOOGLENET, other), (large, other)]
    for checkpoint, outline in asked + asked[::-1]:
        own = Forecast(checkpoint, profile({1: latency(10)}), 4).decode_s(100_000, outline)[0]
        assert own == price(outline, checkpoint.preprocess).seconds


def test_without_a_profile_no_price_makes_the_guess_smaller() -> None:
    guessing = Forecast(GOOGLENET, None, 4)
    assert guessing.decode_s(100_000, PHOTOGRAPH)[0] == guessing.decode_s(100_000)[0]
    assert guessing.decode_s(100_000, PNG_OF_79_MEGAPIXELS)[0] > guessing.decode_s(100_000)[0]
    assert guessing.decode_s(100_000, PNG_OF_79_MEGAPIXELS)[1] == 0


def test_the_spread_is_at_least_one() -> None:
    """A 95th percentile may lie below the mean if one run of many was very slow."""
    assert Forecast(GOOGLENET, profile({1: latency(10, 9)}), 4).spread == 1


def test_weights_of_batches_and_profile_match_a_sum_by_hand() -> None:
    """The profile weighs eight batches at first, and each batch takes five percent off the weight of all before it."""
    clock = Clock()
    quiet = Quiet(clock)
    quiet.begin()
    forecast = Forecast(GOOGLENET, profile({1: latency(10)}), 1, clock, quiet)
    clock.now += 1
    forecast.learn(1, 0.020)
    once = (8 * 0.95 * 1 + 2) / (8 * 0.95 + 1)
    assert forecast.expected_s(1) == pytest.approx(0.010 * once)
    clock.now += 1
    forecast.learn(1, 0.050)
    twice = (8 * 0.95**2 * 1 + 0.95 * 2 + 5) / (8 * 0.95**2 + 0.95 + 1)
    assert forecast.expected_s(1) == pytest.approx(0.010 * twice)
    # A decode counts a twentieth.
    forecast.learn_decode(100, 0.004)
    assert forecast.decode_s(100)[0] == pytest.approx(0.002 * 1.05)


def test_the_curve_is_computed_twenty_times_a_second_at_most() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    quiet.begin()
    forecast = Forecast(GOOGLENET, FLAT, 16, clock, quiet)
    before_s = forecast.forward_s
    clock.now += 0.049
    forecast.learn(1, 0.100)
    assert forecast.forward_s is before_s
    clock.now += 0.002
    forecast.learn(1, 0.100)
    assert forecast.forward_s[1] > before_s[1]


def test_a_forecast_never_falls_to_zero() -> None:
    served = Served()
    served.batches(lambda _size: 1e-6)
    assert served.ratios == pytest.approx([1e-3] * 16)


def test_a_guess_is_proportional_to_the_multiply_adds() -> None:
    catalogue = Catalogue(Path("/nonexistent"), untrained=True)
    small, large = (Forecast(catalogue.find(name), None, 8) for name in ("googlenet", "vgg16"))
    # The papers' multiply-adds: about 1.5 and 15.5 billion.
    assert large.forward_s[1] / small.forward_s[1] == pytest.approx(15.5 / 1.5, rel=0.1)
    for guess in (small, large):
        assert guess.forward_s[1:] == pytest.approx([size * guess.forward_s[1] for size in range(1, 9)])
        assert (guess.worthwhile, guess.spread, guess.profiled_s(1)) == (8, 1, None)
    assert small.load_s < large.load_s


def test_decoding_is_looked_up_by_size_and_learned_by_size() -> None:
    served = Served()
    assert served.forecast.decode_s(4_096)[0] == 0.002
    assert served.forecast.decode_s(100_000)[0] == 0.008
    guessed = served.forecast.decode_s(5_000)[0]  # of a class that was not measured
    assert guessed > 0
    for _ in range(200):
        served.forecast.learn_decode(100_000, 0.032)
        served.forecast.learn_decode(5_000, guessed / 2)
    assert served.forecast.decode_s(100_000)[0] == pytest.approx(0.032, rel=0.01)
    assert served.forecast.decode_s(5_000)[0] == pytest.approx(guessed / 2, rel=0.01)
    assert served.forecast.decode_s(4_096)[0] == 0.002  # large pictures say nothing of thumbnails
    # What the profile says stays what it is.
    sizes = (100, 100_000, 5_000)
    assert [served.forecast.decode_s(size)[1] for size in sizes] == [0.002, 0.008, 0]


def test_a_stuck_decode_counts_as_ten_times_the_profile_at_most() -> None:
    served = Served()
    for _ in range(200):
        served.forecast.learn_decode(100, 60.0)
    assert served.forecast.decode_s(100)[0] == pytest.approx(0.020, rel=0.01)


def slowed(quiet: Quiet, clock: Clock) -> Forecast:
    """A forecast after batches that took four times what the profile says, and decodes likewise."""
    forecast = Forecast(GOOGLENET, MEASURED, 16, clock, quiet)
    quiet.begin()
    for _ in range(400):
        clock.now += 1
        forecast.learn(4, 4 * CURVE_S[4])
        forecast.learn_decode(100, 0.008)
    return forecast


def test_what_was_learned_fades_in_quiet_time() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    fresh, forecast = Forecast(GOOGLENET, MEASURED, 16, clock), slowed(quiet, clock)
    loaded_s, decode_s = forecast.forward_s[4], forecast.decode_s(100)[0]
    assert loaded_s == pytest.approx(4 * fresh.forward_s[4], rel=0.05)
    assert decode_s == pytest.approx(0.008, rel=0.05)
    clock.now += 60  # pictures are in flight all the while
    assert (forecast.forward_s[4], forecast.decode_s(100)[0]) == (loaded_s, decode_s)
    quiet.end()
    clock.now += 0.5
    assert (forecast.forward_s[4], forecast.decode_s(100)[0]) == (loaded_s, decode_s)
    clock.now += 2
    assert fresh.forward_s[4] < forecast.forward_s[4] < loaded_s
    assert 0.002 < forecast.decode_s(100)[0] < decode_s
    clock.now += 2.5
    assert forecast.forward_s == pytest.approx(fresh.forward_s)
    assert forecast.decode_s(100)[0] == 0.002


def test_what_has_faded_does_not_come_back_with_the_next_picture() -> None:
    clock = Clock()
    quiet = Quiet(clock)
    fresh, forecast = Forecast(GOOGLENET, MEASURED, 16, clock), slowed(quiet, clock)
    quiet.end()
    clock.now += 5
    quiet.begin()
    assert forecast.forward_s == pytest.approx(fresh.forward_s)
    clock.now += 1
    forecast.learn(4, CURVE_S[4])
    forecast.learn_decode(100, 0.002)
    assert forecast.forward_s == pytest.approx(fresh.forward_s, rel=0.01)
    assert forecast.decode_s(100)[0] == pytest.approx(0.002)
    # What is learned from now on counts again.
    for _ in range(100):
        clock.now += 1
        forecast.learn(4, 3 * CURVE_S[4])
        forecast.learn_decode(100, 0.006)
    assert forecast.forward_s[4] == pytest.approx(3 * fresh.forward_s[4], rel=0.05)
    assert forecast.decode_s(100)[0] == pytest.approx(0.006, rel=0.05)


def test_the_times_by_the_profile_alone_do_not_change_under_load() -> None:
    clock = Clock()
    forecast = slowed(Quiet(clock), clock)
    assert forecast.profiled_forward_s == pytest.approx(SPREAD * CURVE_S[1])
    assert Forecast(GOOGLENET, profile({1: latency(10, 15)}), 4).profiled_forward_s == pytest.approx(0.015)
    assert Forecast(GOOGLENET, None, 4).profiled_forward_s == 0


def test_without_a_profile_times_are_guessed_until_batches_are_measured() -> None:
    served = Served(None)
    guess = served.forecast
    assert len(guess.forward_s) == 17
    assert 0 < guess.forward_s[1] < guess.forward_s[16]
    assert guess.decode_s(1_000)[0] > 0
    assert guess.load_s > 0
    assert 4 * GOOGLENET.variant.params < guess.footprint_bytes <= guess.load_peak_bytes
    served.batches(lambda _size: 0.25)
    assert served.ratios == pytest.approx([0.25] * 16, rel=0.2)


def test_what_decoding_takes_is_looked_up_once_for_pictures_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """And however many pictures there are that are not, few are remembered."""
    asked: list[int] = []

    def counted(outline: Outline, *arguments: object) -> Price:
        asked.append(outline.width)
        return Price(outline.width / 1000, 1)

    monkeypatch.setattr(forecast_file, "price", counted)
    known = Forecast(GOOGLENET, profile({1: latency(1.0)}), 4, Clock())
    outlines = [Outline("png", width, 100, 9000, 300.0 * width) for width in range(100, 1100)]
    for outline in outlines:
        for _ in range(3):
            assert known.decode_s(9000, outline)[1] == outline.width / 1000
            assert known.decode_s(9000, outline)[0] == outline.width / 1000
    assert asked == [outline.width for outline in outlines]
    assert known.decode_s(9000, outlines[0])[1] == 0.1
    assert len(asked) == len(outlines) + 1
