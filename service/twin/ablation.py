"""Ablation: what each correction of the router's predictions is worth, found by leaving it out.

Every correction is left out alone, and all of them together: on a device that takes what its profile says; on one that
takes longer, as other work shares the machine; after such a time, when a load has passed and little comes to a device
that is as its profile again; and where the service has no profile and guesses. All get the very same pictures at the
very same moments, so that differences to the whole router are of one run each, and their scatter over the seeds says
how far they can be trusted.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

from pydantic import BaseModel

from service.twin.comparison import peak_of
from service.twin.document import table
from service.twin.report import report
from service.twin.running import simulate
from service.twin.scenario import Arrivals, Budget, Scenario
from service.twin.without import CORRECTIONS

ARRIVALS: tuple[Arrivals, ...] = ("poisson", "gamma", "markov")
LOADS = (0.5, 1.0, 1.5)
#: How many times as long as their profiles the devices take.
SLOWER = (1.0, 1.5)
SEEDS = (1, 2)
#: The kind of arrivals after a load: for so many seconds a rate in multiples of the peak comes to a device that takes
#: so many times its profile, and then ``_LITTLE`` comes with tight budgets; only this is counted.
AFTER, _LOAD_S, _LOAD, _LITTLE, _SLOW = "after a load", 30.0, 0.6, 0.05, 3.0
#: The kind of arrivals where the service has no profile: Poisson, with tight budgets.
UNMEASURED = "no profile"
#: Not much more than networks take alone on two cores.
_TIGHT = ("latency_ms=100", "latency_ms=150", "latency_ms=60&min_top1=65", "latency_ms=400&min_top1=71.5")
#: Three busy spells of Markov-modulated arrivals, on average.
_SECONDS = 60.0
#: What is left out: nothing, each correction, two of which one does while the other does not, all of them.
OFF = ("", *CORRECTIONS, "trials,fading", "all")


class Run(BaseModel):
    """One simulation. Shares are between 0 and 1."""

    off: str
    """What is left out; empty: nothing."""
    slower: float
    arrivals: str
    load: float
    """As a multiple of the peak of that device."""
    seed: int
    attainment: float
    attainment_accepted: float
    top1: float
    """In percent."""
    refused: float
    """The share of the offered pictures."""

    @property
    def points(self) -> tuple[float, float, float, float]:
        """Attainment, that of those let in, top-1 and refusals, in points."""
        return 100 * self.attainment, 100 * self.attainment_accepted, self.top1, 100 * self.refused


class Ablation(BaseModel):
    """All simulations."""

    scenario: Scenario
    peaks: dict[float, float]
    """Pictures a second, by how much slower the device is."""
    runs: list[Run]


class Case(NamedTuple):
    """A condition under which the router runs with and without a correction."""

    slower: float
    arrivals: str
    load: float

    def __str__(self) -> str:
        return f"{self.arrivals}, {self.load:g} x" + ("" if self.slower == 1 else f", {self.slower:g} times slower")

    @property
    def situation(self) -> str:
        """What is usual or unusual about it."""
        if self.arrivals in (AFTER, UNMEASURED):
            return self.arrivals
        return "as the profile" if self.slower == 1 else f"{self.slower:g} times the profile"


class Difference(NamedTuple):
    """How many points more something is without a correction, on average over the seeds."""

    mean: float
    error: float
    """The standard error of the mean."""


def ablate(
    scenario: Scenario,
    *,
    workers: int = 2,
    ended: Callable[[int, int], None] = lambda _ended, _all: None,
) -> Ablation:
    """Leaves out each correction under each condition.

    Args:
        scenario: the devices and the mix; all else is replaced, and after a load the mix too.
        workers: processes.
        ended: is told how many runs have ended, and how many there are.
    """
    peaks = {slower: peak_of(changed(scenario, slower=slower)) for slower in SLOWER}
    cases = [Case(slower, kind, load) for slower in SLOWER for kind in ARRIVALS for load in LOADS]
    cases += [Case(_SLOW, AFTER, _LITTLE), Case(1.0, UNMEASURED, _LITTLE), Case(1.0, UNMEASURED, 0.5)]
    runs = [
        (scenario, peaks.get(case.slower, peaks[1.0]), case, seed, off)
        for seed in SEEDS
        for case in cases
        for off in OFF
    ]
    found = []
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for done, one in enumerate(pool.map(run, *zip(*runs, strict=True)), 1):
            found.append(one)
            ended(done, len(runs))
    return Ablation(scenario=scenario, peaks=peaks, runs=found)


def changed(scenario: Scenario, **changes: object) -> Scenario:
    """The scenario with fields of its devices changed."""
    return scenario.but(device=tuple(device.model_copy(update=changes) for device in scenario.device))


def run(scenario: Scenario, peak: float, case: Case, seed: int, off: str) -> Run:
    """Runs the router once without a correction."""
    policy = f"without:{off}" if off else "router"
    asked = scenario.but(policy=policy, seed=seed, retries="never", trace=None, seconds=_SECONDS)
    tight = tuple(Budget(query=query) for query in _TIGHT)
    if case.arrivals == AFTER:
        asked = changed(asked, slower=case.slower, slower_for_s=_LOAD_S).but(
            rate=peak * _LOAD,
            arrivals="step",
            times=case.load / _LOAD,
            from_s=_LOAD_S,
            seconds=_LOAD_S + _SECONDS,
            mix=tight,
        )
        outcome = simulate(asked)
        outcome.sent = [sent for sent in outcome.sent if sent.due >= _LOAD_S]
    elif case.arrivals == UNMEASURED:
        outcome = simulate(changed(asked, measured=False).but(rate=peak * case.load, arrivals="poisson", mix=tight))
    else:
        outcome = simulate(changed(asked, slower=case.slower).but(rate=peak * case.load, arrivals=case.arrivals))
    total = report(outcome).total
    return Run(
        off=off,
        slower=case.slower,
        arrivals=case.arrivals,
        load=case.load,
        seed=seed,
        attainment=total.attainment,
        attainment_accepted=total.attainment_accepted,
        top1=total.top1,
        refused=sum(total.refused.values()) / max(1, total.offered),
    )


def difference(ablation: Ablation, off: str, case: Case) -> list[Difference]:
    """How many points more there are without a correction: attainment, that of those let in, top-1, refusals."""
    mine = {run.seed: run.points for run in _of(ablation.runs, off, case)}
    whole = {run.seed: run.points for run in _of(ablation.runs, "", case)}
    pairs = [[a - b for a, b in zip(mine[seed], whole[seed], strict=True)] for seed in mine]
    return [Difference(statistics.fmean(column), _error(column)) for column in zip(*pairs, strict=True)]


def _of(runs: Iterable[Run], off: str, case: Case) -> list[Run]:
    return [run for run in runs if run.off == off and (run.slower, run.arrivals, run.load) == case]


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def markdown(ablation: Ablation) -> str:
    """The ablation as a page: what is lost at most without each correction, and for each device and kind of arrivals
    the whole router's figures and the differences to them."""
    seeds = sorted({run.seed for run in ablation.runs})
    peaks = ", ".join(f"{peak:.1f} of one that takes {slower:g} times it" for slower, peak in ablation.peaks.items())
    lines = [
        "# What each correction is worth",
        "",
        f"The peak is, in pictures a second of a device and its profile: {peaks}. {len(seeds)} seeds. Differences are "
        "in points, the router without the correction less the whole router: attainment, attainment of those let "
        "in, mean top-1, refused.",
        "",
        _summary(ablation),
    ]
    for (slower, kind), some in itertools.groupby(_cases(ablation), key=lambda case: case[:2]):
        columns = list(some)
        heads = (f"{kind}, {slower:g} times the profile", *(f"{case.load:g} x" for case in columns))
        whole = ["all on", *(_figures(_of(ablation.runs, "", case)) for case in columns)]
        rows = [[_name(off), *(_changes(difference(ablation, off, case)) for case in columns)] for off in OFF if off]
        lines += ["", table(heads, [whole, *rows])]
    return "\n".join([*lines, ""])


def _summary(ablation: Ablation) -> str:
    """For each correction its mean differences in each situation, and the condition in which attainment falls most."""
    cases = _cases(ablation)
    situations = list(dict.fromkeys(case.situation for case in cases))
    rows = []
    for off in OFF[1:]:
        found = {case: difference(ablation, off, case) for case in cases}
        row = [_name(off)]
        for situation in situations:
            columns = zip(*(found[case] for case in cases if case.situation == situation), strict=True)
            row.append(", ".join(f"{statistics.fmean(one.mean for one in column):+.1f}" for column in columns))
        worst = min(cases, key=lambda case: found[case][0].mean)
        rows.append([*row, f"{found[worst][0].mean:+.1f} ± {found[worst][0].error:.1f} ({worst})"])
    return table(("without", *situations, "in time at worst"), rows)


def _cases(ablation: Ablation) -> list[Case]:
    return list(dict.fromkeys(Case(run.slower, run.arrivals, run.load) for run in ablation.runs))


def _name(off: str) -> str:
    return "all of them" if off == "all" else off.replace(",", " and ")


def _figures(runs: Sequence[Run]) -> str:
    attainment, of_let_in, top1, refused = (statistics.fmean(c) for c in zip(*(r.points for r in runs), strict=True))
    return f"{attainment:.1f} %, {of_let_in:.1f} %, {top1:.1f}, {refused:.1f} %"


def _changes(differences: Sequence[Difference]) -> str:
    return ", ".join(f"{found.mean:+.1f}" for found in differences)
