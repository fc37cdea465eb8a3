"""A report against a previous one: chance is no verdict, a change is one."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest

from loadtest._compared import LEAST_ALLOWANCE, allowance, compare
from loadtest._knee import ambiguity, find_knee
from loadtest._report import Change
from tests import reports

VGG = "vgg16@untrained"


@dataclass(frozen=True)
class Look:
    held: bool


def change(before: float, now: float, gap: float = 0.08) -> Change:
    knees = [reports.knee(rate, ambiguity=gap) for rate in (before, now)]
    old, new = (reports.report(reports.network(VGG, knee=knee)) for knee in knees)
    return compare(new, old).changes[0]


SAME = "same within the noise"


@pytest.mark.parametrize(
    ("now", "verdict"), [(10.0, SAME), (9.5, SAME), (9.3, "worse"), (10.5, SAME), (10.8, "better")]
)
def test_verdicts_begin_beyond_the_noise(now: float, verdict: str) -> None:
    found = change(10.0, now)
    assert found.allowance == pytest.approx(2 * math.sqrt(2 * 0.08**2 / 12))
    assert found.verdict == verdict
    assert found.ratio == pytest.approx(now / 10)


def test_a_run_that_was_less_sure_allows_more() -> None:
    assert change(10.0, 8.5, gap=0.08).verdict == "worse"
    assert change(10.0, 8.5, gap=0.3).verdict == "same within the noise"
    assert change(10.0, 9.6, gap=0.0).allowance == LEAST_ALLOWANCE


def test_two_searches_of_one_service_agree() -> None:
    """The allowance is two standard deviations: of runs that begin anywhere, some 95 % are the same within it."""
    chance, same, runs = random.Random(8), 0, 2000
    for _ in range(runs):
        rates, gaps = [], []
        for _ in range(2):
            found = find_knee(lambda rate, _: Look(rate <= 10.0), 10 * chance.uniform(0.6, 0.9))
            assert found.rate is not None
            rates.append(found.rate)
            gaps.append(ambiguity(found.tried, found.rate))
        allowed = allowance(*gaps)
        same += 1 / (1 + allowed) <= rates[1] / rates[0] <= 1 + allowed
    assert 0.9 < same / runs <= 1


def test_networks_of_only_one_report() -> None:
    before = reports.report(
        reports.network(VGG), reports.network("alexnet@untrained", knee=None, problem="no rate held")
    )
    now = reports.report(reports.network("googlenet@untrained"), reports.network("alexnet@untrained"))
    found = {entry.name: (entry.verdict, entry.note) for entry in compare(now, before).changes}
    assert found == {
        "googlenet@untrained": ("not compared", "not in the previous report"),
        "alexnet@untrained": ("not compared", "previously: no rate held"),
        VGG: ("not compared", "not measured now"),
    }


def test_what_was_measured_differently_is_told() -> None:
    before = reports.report(p99_limit_ms=500.0, device=None)
    assert compare(reports.report(), reports.report()).note == ""
    note = compare(reports.report(), before).note
    assert note == (
        "Measured differently: device (not told before, AMD EPYC, 2 cores now); p99 limit (500 ms before, 1000 ms now)."
    )
