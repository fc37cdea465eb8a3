"""A report compared with a previous one: chance changes no verdict, a change of the service does."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest

from loadreport.comparison import allowance, compare
from loadreport.knee import ambiguity, find_knee
from loadreport.report import Change, Knee
from tests import reports

VGG = "vgg16@untrained"
#: The arrivals of a look and of a confirmation, as the report states them.
LOOK_ARRIVALS, CONFIRM_ARRIVALS = 60, 200


@dataclass(frozen=True)
class Look:
    held: bool


def change(before: float, now: float, gap: float = 0.08) -> Change:
    knees = [reports.knee(rate, ambiguity=gap, samples=1_000_000) for rate in (before, now)]
    old, new = (reports.report(reports.network(VGG, knee=knee)) for knee in knees)
    return compare(new, old).changes[0]


SAME = "same within the noise"


@pytest.mark.parametrize(
    ("now", "verdict"), [(10.0, SAME), (9.5, SAME), (9.3, "worse"), (10.5, SAME), (10.8, "better")]
)
def test_verdicts_begin_beyond_the_noise(now: float, verdict: str) -> None:
    found = change(10.0, now)
    assert found.allowance == pytest.approx(2 * math.sqrt(2 * 0.08**2 / 12 + 2 * 4 / 1_000_000))
    assert found.verdict == verdict
    assert found.ratio == pytest.approx(now / 10)


def test_a_run_that_was_less_sure_allows_more() -> None:
    assert change(10.0, 8.5, gap=0.08).verdict == "worse"
    assert change(10.0, 8.5, gap=0.3).verdict == "same within the noise"
    assert change(10.0, 9.6, gap=0.0).allowance == 0.05


@dataclass(frozen=True)
class Queue:
    """One server that takes a fifth of a second, Poisson arrivals, and a limit of one second for the p99."""

    chance: random.Random

    def look(self, rate: float, confirmation: int) -> Look:
        waits, due, free = [], 0.0, 0.0
        for _ in range(CONFIRM_ARRIVALS if confirmation else LOOK_ARRIVALS):
            due += self.chance.expovariate(rate)
            free = max(free, due) + 0.2
            waits.append(free - due)
        return Look(sorted(waits)[int(0.99 * len(waits))] <= 1.0)

    def knee(self) -> Knee:
        while (found := find_knee(self.look, self.chance.uniform(2, 4))).rate is None:
            pass
        return reports.knee(found.rate, ambiguity=ambiguity(found.tried, found.rate), samples=CONFIRM_ARRIVALS)


def test_two_runs_of_one_service_agree_and_one_of_half_the_speed_does_not() -> None:
    """A slow network has few arrivals, and an allowance for that; what is much slower still shows."""
    queue = Queue(random.Random(8))
    pairs = [(queue.knee(), queue.knee()) for _ in range(300)]
    ratios = [(one.rate / other.rate, allowance(one, other)) for one, other in pairs]
    assert 0.9 < sum(1 / (1 + allowed) <= ratio <= 1 + allowed for ratio, allowed in ratios) / len(pairs) <= 1
    assert sum(ratio / 2 < 1 / (1 + allowed) for ratio, allowed in ratios) / len(pairs) > 0.9


def test_networks_that_only_one_report_has_are_not_compared() -> None:
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


def test_a_note_states_what_was_measured_differently() -> None:
    before = reports.report(p99_limit_ms=500.0, device=None)
    assert compare(reports.report(), reports.report()).note == ""
    note = compare(reports.report(), before).note
    assert note == (
        "Measured differently: device (not stated before, AMD EPYC, 2 cores now); "
        "p99 limit (500 ms before, 1000 ms now)."
    )


def test_few_requests_and_a_wide_gap_allow_more() -> None:
    """Both knees count, with their gap and with their number of requests."""
    sure = reports.knee(10.0, ambiguity=0.0, samples=1_000_000)
    few = reports.knee(10.0, ambiguity=0.0, samples=100)
    wide = reports.knee(10.0, ambiguity=0.6, samples=1_000_000)
    assert allowance(sure, sure) == 0.05
    # Twice the deviation of 100 arrivals, two standard deviations of it.
    assert allowance(few, sure) == allowance(sure, few) == pytest.approx(2 * 2 / 10, rel=1e-3)
    assert allowance(few, few) == pytest.approx(2 * 2 / 10 * math.sqrt(2))
    assert allowance(wide, sure) == pytest.approx(2 * 0.6 / math.sqrt(12), rel=1e-3)
