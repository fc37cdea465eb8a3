"""Arrival processes have the rate and the variation asked for, and follow their profile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice, pairwise, takewhile
from pathlib import Path
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traffic.arrivals import (
    SHAPES,
    RateProfile,
    Recorded,
    Shape,
    arrivals,
    rate_profile,
    read_trace,
    switching_arrivals,
)

USERS = ("classify", "budget", "bulk", "junk")


def constant(rate: float) -> RateProfile:
    return rate_profile("constant", rate, rate, 0, 1)


def gaps(times: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise([0.0, *times])]


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("seed", range(5))
def test_ten_thousand_arrivals_have_the_rate_and_the_variation_asked_for(cv: float, seed: int) -> None:
    found = gaps(list(islice(arrivals(constant(50), cv, seed), 10_000)))
    assert fmean(found) == pytest.approx(1 / 50, rel=0.01)
    assert pstdev(found) / fmean(found) == pytest.approx(cv, rel=0.05)


def test_poisson_gaps_are_exponential_and_independent_of_each_other() -> None:
    found = gaps(list(islice(arrivals(constant(1), 1.0, 8), 10_000)))
    for limit in (0.1, 0.5, 1.0, 2.0, 4.0):
        share = sum(gap <= limit for gap in found) / len(found)
        assert share == pytest.approx(1 - math.exp(-limit), abs=0.02)
    covariance = fmean((a - 1) * (b - 1) for a, b in pairwise(found))
    assert abs(covariance) < 0.05


@pytest.mark.parametrize(
    ("cv", "cumulative"),
    [
        # Gamma of shape 4: the sum of four exponentials (Erlang).
        (0.5, lambda x: 1 - math.exp(-4 * x) * sum((4 * x) ** k / math.factorial(k) for k in range(4))),
        # Gamma of shape 2.
        (2**-0.5, lambda x: 1 - math.exp(-2 * x) * (1 + 2 * x)),
        # Gamma of shape 1/2: the square of a normal variable.
        (2**0.5, lambda x: math.erf(math.sqrt(x / 2))),
    ],
)
def test_other_gaps_are_gamma_distributed(cv: float, cumulative: Callable[[float], float]) -> None:
    """The mean and the variation alone would not tell a gamma distribution from another one."""
    found = gaps(list(islice(arrivals(constant(1), cv, 8), 40_000)))
    for limit in (0.02, 0.1, 0.3, 0.7, 1.0, 1.5, 2.5):
        share = sum(gap <= limit for gap in found) / len(found)
        assert share == pytest.approx(cumulative(limit), abs=0.008), limit


def test_the_same_seed_gives_the_same_times_and_another_one_others() -> None:
    first, again, other = (list(islice(arrivals(constant(9), 1.5, seed), 3000)) for seed in (1, 1, 2))
    assert first == again
    assert first[:10] != other[:10]


RATES = {
    "constant": lambda t: 200.0,
    "step": lambda t: 200.0 if t < 10 else 600.0,
    "spike": lambda t: 600.0 if 10 <= t < 15 else 200.0,
    "ramp": lambda t: 200.0 + 400.0 * min(1.0, max(0.0, (t - 10) / 5)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_as_many_arrive_in_each_interval_as_the_profile_says(shape: Shape) -> None:
    profile = rate_profile(shape, 200, 600, 10, 5)
    times = list(takewhile(lambda t: t < 25, arrivals(profile, 1.0, 3)))
    assert times == sorted(times)
    for begin in range(0, 25, 5):
        expected = sum(RATES[shape](begin + n / 1000) / 1000 for n in range(5000))
        count = sum(begin <= t < begin + 5 for t in times)
        assert count == pytest.approx(expected, abs=4 * math.sqrt(expected))


@given(
    shape=st.sampled_from(SHAPES),
    rate=st.floats(0.5, 50),
    rate_to=st.floats(0.5, 50),
    from_s=st.floats(0, 5),
    for_s=st.floats(0.1, 5),
    expected=st.floats(0.01, 400),
)
def test_due_is_where_the_integral_of_the_rate_says(
    shape: Shape, rate: float, rate_to: float, from_s: float, for_s: float, expected: float
) -> None:
    def rate_at(t: float) -> float:
        into = (t - from_s) / for_s
        if shape == "constant" or into < 0:
            return rate
        if shape == "step" or into >= 1:
            return rate if shape == "spike" else rate_to
        return rate_to if shape == "spike" else rate + (rate_to - rate) * into

    due = rate_profile(shape, rate, rate_to, from_s, for_s).due(expected)
    steps = 4000
    integral = math.fsum(rate_at((n + 0.5) * due / steps) for n in range(steps)) * due / steps
    # A jump of the rate within a step of the sum is off by at most that step.
    assert integral == pytest.approx(expected, rel=1e-3, abs=2 * abs(rate_to - rate) * due / steps)


def test_a_trace_is_read(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("user,seconds\n,0\njunk,0.125\nbudget,0.125\n,7.5\n")
    assert read_trace(file, USERS) == [
        Recorded(0.0, None),
        Recorded(0.125, "junk"),
        Recorded(0.125, "budget"),
        Recorded(7.5, None),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("at\n1\n", "must name a column seconds"),
        ("", "must name a column seconds"),
        ("seconds\n", "there are no requests in it"),
        ("seconds\n1\nsoon\n", ":3: seconds is not a number: 'soon'"),
        ("seconds\n-1\n", "at least 0"),
        ("seconds\nnan\n", "at least 0"),
        ("seconds\n1\n3\n2\n", "request 3 is before the one above it"),
        ("seconds,user\n1,nobody\n", "user is 'nobody'; there are classify"),
        ("user,seconds\nclassify\n", "seconds is not a number"),
        ("seconds\n\xff\n", "can't decode"),
    ],
)
def test_files_that_are_not_traces_are_refused_in_one_line(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"trace\.csv") as caught:
        read_trace(file, USERS)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        read_trace(tmp_path / "none.csv", USERS)


def test_every_block_of_a_thousand_gaps_has_the_rate() -> None:
    """A measurement is quoted by its rate, which a thousand exponential gaps would miss by 3 %."""
    times = list(islice(arrivals(constant(10), 1.0, 8), 5000))
    assert [times[n - 1] for n in range(1000, 5001, 1000)] == pytest.approx([100.0, 200.0, 300.0, 400.0, 500.0])


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_every_block_of_a_thousand_gaps_has_the_variation(cv: float) -> None:
    found = gaps(list(islice(arrivals(constant(10), cv, 8), 3000)))
    for begin in range(0, 3000, 1000):
        block = found[begin : begin + 1000]
        assert pstdev(block) / fmean(block) == pytest.approx(cv, rel=2e-3)


def test_a_trace_may_repeat_a_second_but_not_go_back(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("seconds\n0\n2\n2\n")
    assert [request.seconds for request in read_trace(file, USERS)] == [0.0, 2.0, 2.0]
    file.write_text("seconds\n0\n2\n1.999\n")
    with pytest.raises(ValueError, match="request 3 is before the one above it"):
        read_trace(file, USERS)


def test_switching_arrivals_have_the_mean_rate_and_the_variation_of_their_process() -> None:
    """The index of dispersion of counts in windows far longer than a state tends to 1 + 2 (r1 - r2)^2 p1 p2 T / rate,
    where p are the shares of the states and 1/T is the sum of the rates at which they end (Fischer and Meier-Hellstern,
    1993, section 2.2)."""
    calm_s, busy_s, seconds, window = 8.0, 2.0, 100_000.0, 400.0
    times = list(takewhile(lambda at: at < seconds, switching_arrivals(2.0, 4.0, calm_s, busy_s, 3)))
    assert len(times) / seconds == pytest.approx(2.0, rel=0.03)
    assert all(later > earlier for earlier, later in pairwise(times))
    counts = [0] * round(seconds / window)
    for at in times:
        counts[int(at / window)] += 1
    # 4 x 1.25 a second for a fifth of the time, and 1.25 for the rest: 2 on average.
    expected = 1 + 2 * (5.0 - 1.25) ** 2 * 0.2 * 0.8 * (1 / (1 / calm_s + 1 / busy_s)) / 2.0
    assert pstdev(counts) ** 2 / fmean(counts) == pytest.approx(expected, rel=0.25)


def test_switching_arrivals_are_busy_and_calm_for_as_long_as_they_should() -> None:
    """Busy a thousand times as often as calm: gaps show when the state changed."""
    times = list(takewhile(lambda at: at < 20_000, switching_arrivals(100.0, 1000.0, 5.0, 1.0, 4)))
    calm = [later - earlier for earlier, later in pairwise(times) if later - earlier > 0.2]
    # A busy state is between two long gaps, and a calm one has half an arrival.
    assert sum(calm) / 20_000 == pytest.approx(5 / 6, rel=0.05)


def test_switching_arrivals_begin_in_either_state_and_repeat() -> None:
    first = [next(switching_arrivals(10_000.0, 1e6, 1.0, 3.0, seed)) < 1e-3 for seed in range(400)]
    assert sum(first) / 400 == pytest.approx(0.75, abs=0.07)
    assert list(islice(switching_arrivals(5, 3, 2, 1, 7), 50)) == list(islice(switching_arrivals(5, 3, 2, 1, 7), 50))
