"""Compares policies over loads and kinds of arrivals: the table and the plot of docs/router.md.

Loads are multiples of the peak: what the service itself answers in time, a second, when far more arrives than it can
answer. All policies get the very same pictures at the very same moments. The best constant networks are found for each
load and kind of arrivals, with hindsight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from pydantic import BaseModel

from service.twin.best import best_constant
from service.twin.document import table
from service.twin.regret import regret, small_case, summary
from service.twin.report import report
from service.twin.running import simulate
from service.twin.scenario import Arrivals, Scenario

POLICIES = ("router", "constant:vgg16", "constant:alexnet", "best-constant", "best-guarded", "infaas")
LOADS = (0.5, 0.8, 1.0, 1.3, 2.0, 3.0)
ARRIVALS: tuple[Arrivals, ...] = ("poisson", "gamma", "markov")
#: So many times the rate of the scenario is far more than anybody answers, and for so many seconds.
_FAR, _FAR_S = 20.0, 40.0
#: Pictures of each run, about, and the shortest run: bursts must come and go several times.
_PICTURES, _LEAST_S = 2000.0, 120.0
#: Small cases for the regret to the oracle.
_CASES = 1000


class Point(BaseModel):
    """One policy under one load."""

    arrivals: str
    load: float
    """As a multiple of the peak."""
    rate: float
    policy: str
    stands_for: str
    """What the policy was in this run: the networks of the best constant."""
    attainment: float
    attainment_accepted: float
    top1: float
    goodput: float
    flips: int


class Comparison(BaseModel):
    """All policies over all loads."""

    scenario: Scenario
    peak: float
    """Pictures a second."""
    points: list[Point]
    regrets: dict[str, dict[str, float]]
    """By policy: the regret to the oracle in small cases."""


def compare(
    scenario: Scenario,
    *,
    loads: Sequence[float] = LOADS,
    arrivals: Sequence[Arrivals] = ARRIVALS,
    cases: int = _CASES,
    workers: int = 2,
    ended: Callable[[int, int], None] = lambda _ended, _all: None,
) -> Comparison:
    """Compares the policies.

    Args:
        scenario: the devices, the mix and the seed; rate, arrivals, policy and duration are replaced.
        loads: multiples of the peak.
        arrivals: kinds of arrivals.
        cases: for the regret; 0 leaves it out.
        workers: processes.
        ended: is told how many runs have ended, and how many there are.
    """
    peak = peak_of(scenario)
    runs = [
        (_under(scenario, peak * load, kind), kind, load, policy)
        for kind in arrivals
        for load in loads
        for policy in POLICIES
    ]
    # Those that search take longest.
    runs.sort(key=lambda run: not run[3].startswith("best"))
    points, done = [], 0
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        regrets = {p: pool.submit(_regrets, p, cases) for p in ("router", "infaas") if cases}
        for point in pool.map(_point, *zip(*runs, strict=True)):
            points.append(point)
            done += 1
            ended(done, len(runs))
        found = {policy: future.result() for policy, future in regrets.items()}
    points.sort(key=lambda p: (arrivals.index(p.arrivals), p.load, POLICIES.index(p.policy)))
    return Comparison(scenario=scenario, peak=peak, points=points, regrets=found)


def peak_of(scenario: Scenario) -> float:
    """Pictures that the service answers in time, a second, when far more arrive than it can answer."""
    rate = _FAR * scenario.rate
    far = scenario.but(rate=rate, arrivals="poisson", policy="router", retries="never", seconds=_FAR_S)
    total = report(simulate(far)).total
    return total.attained / _FAR_S


def resolved(scenario: Scenario) -> Scenario:
    """The scenario with ``best-constant`` and ``best-guarded`` replaced by the networks that they stand for."""
    if scenario.policy in ("best-constant", "best-guarded"):
        return best_constant(scenario, guarded=scenario.policy == "best-guarded")
    return scenario


def _under(scenario: Scenario, rate: float, kind: Arrivals) -> Scenario:
    return scenario.but(rate=rate, arrivals=kind, trace=None, seconds=max(_LEAST_S, _PICTURES / rate), retries="never")


def _point(scenario: Scenario, kind: str, load: float, policy: str) -> Point:
    asked = resolved(scenario.but(policy=policy))
    total = report(simulate(asked)).total
    return Point(
        arrivals=kind,
        load=load,
        rate=scenario.rate,
        policy=policy,
        stands_for=asked.policy,
        attainment=total.attainment,
        attainment_accepted=total.attainment_accepted,
        top1=total.top1,
        goodput=total.goodput,
        flips=total.flips,
    )


def _regrets(policy: str, cases: int) -> dict[str, float]:
    return summary([regret(small_case(seed), policy) for seed in range(cases)])


def markdown(comparison: Comparison) -> str:
    """The comparison as a page: a table for each kind of arrivals, with attainment and mean top-1 by load."""
    scenario = comparison.scenario
    devices = ", ".join(f"{device.count} x {device.profile}" for device in scenario.device)
    lines = [
        "# Policies compared",
        "",
        f"On {devices}, seed {scenario.seed}. The peak is {comparison.peak:.1f} pictures a second. Each cell: "
        "attainment, and the mean top-1 of the answers in time.",
    ]
    for kind in dict.fromkeys(point.arrivals for point in comparison.points):
        points = [point for point in comparison.points if point.arrivals == kind]
        loads = list(dict.fromkeys(point.load for point in points))
        columns = (f"{kind} arrivals", *(f"{load:g} x" for load in loads))
        rows = [(policy, *_cells(points, policy, loads)) for policy in POLICIES]
        lines += ["", table(columns, [row for row in rows if any(row[1:])])]
    if comparison.regrets:
        columns = ("regret to the oracle", "cases", "median", "mean", "p95", "as many", "top-1", "the oracle's")
        lines += ["", table(columns, [_regret_row(*pair) for pair in comparison.regrets.items()])]
    return "\n".join([*lines, ""])


def _cells(points: Iterable[Point], policy: str, loads: Sequence[float]) -> list[str]:
    found = {point.load: point for point in points if point.policy == policy}
    return [f"{found[load].attainment:.1%}, {found[load].top1:.1f}" if load in found else "" for load in loads]


def _regret_row(policy: str, found: dict[str, float]) -> tuple[str, ...]:
    shares = (f"{found[name]:.1%}" for name in ("median", "mean", "p95", "as_many"))
    return policy, f"{found['cases']:.0f}", *shares, f"{found['top1']:.2f}", f"{found['top1_oracle']:.2f}"
