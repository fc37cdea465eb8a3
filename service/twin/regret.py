"""Regret: how many fewer pictures a policy answers than an oracle that knows all arrivals, in many small cases.

A case is up to six pictures within a short time on one device with three of its networks, drawn by a seed. There is no
chance in what things take, and pictures decode in a tenth of a millisecond, so that the oracle's model (``oracle.py``)
is an upper bound of what the twin can do.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from models.checkpoints.catalogue import Catalogue
from models.networks.variants import find_variant
from service.domain.quantile import quantile
from service.twin.durations import Durations
from service.twin.oracle import Best, Capability, Wanted, best
from service.twin.report import report
from service.twin.running import NOWHERE, device_profiles, simulate
from service.twin.scenario import Budget, Device, PictureKind, Scenario

_MOST_PICTURES, _NETWORKS = 6, 3
_TINY = PictureKind(width=8, height=8, bytes=100)


class Case(NamedTuple):
    """A small case, for the twin and for the oracle."""

    scenario: Scenario
    arrivals: list[tuple[float, str]]
    """When pictures come, and the labels of their rows."""
    pictures: list[Wanted]
    networks: list[Capability]


class Regret(NamedTuple):
    """How a policy did in one case."""

    pictures: int
    best: Best
    answered: int
    top1: float
    """The sum over the pictures that were answered."""

    @property
    def attainment(self) -> float:
        """The share of the pictures that the oracle answers and the policy does not."""
        return (self.best.answered - self.answered) / self.pictures


def small_case(seed: int, profile: str = "cpu-2-cores") -> Case:
    """The case of a seed. Budgets and gaps are of the size of the networks' own times."""
    source = random.Random(seed)  # noqa: S311 - no secret
    profiles = device_profiles(profile)
    rated = [
        c
        for c in Catalogue(NOWHERE, untrained=True).checkpoints()
        if c.top1 is not None and c.labels == "imagenet1k" and profiles.nearest(c) is not None
    ]
    networks = source.sample(rated, _NETWORKS)
    capabilities, alone = [], []
    for checkpoint in networks:
        found = profiles.nearest(checkpoint)
        assert found is not None
        assert checkpoint.top1 is not None
        durations = Durations([*found.forward.items()], _MOST_PICTURES, source, spread=False)
        capabilities.append(
            Capability((0.0, *(durations.mean_s(size) for size in range(1, _MOST_PICTURES + 1))), checkpoint.top1)
        )
        alone.append(durations.mean_s(1))
    usual = sorted(alone)[1]
    count = source.randint(1, _MOST_PICTURES)
    arrivals, pictures, rows, at = [], [], [], 0.0
    for number in range(count):
        at += source.expovariate(1 / (usual * source.choice((0.1, 0.5, 1.5))))
        latency_ms = round(1000 * usual * source.uniform(0.8, 8), 1)
        least = source.choice((None, None, sorted(c.top1 or 0.0 for c in networks)[1]))
        allowed = frozenset(n for n, c in enumerate(networks) if least is None or (c.top1 or 0.0) >= least)
        rows.append(
            Budget(
                query=f"latency_ms={latency_ms}" + ("" if least is None else f"&min_top1={least}"),
                name=f"picture {number}",
                picture=_TINY,
            )
        )
        arrivals.append((at, rows[-1].label))
        pictures.append(Wanted(at, at + latency_ms / 1000, allowed))
    device = Device(profile=profile, variants=tuple(find_variant(c.model).name for c in networks))
    scenario = Scenario(seconds=at + 1, spread=False, retries="never", device=(device,), mix=tuple(rows))
    return Case(scenario, arrivals, pictures, capabilities)


def regret(case: Case, policy: str) -> Regret:
    """How a policy does in a case."""
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.csv"
        trace.write_text("seconds,user\n" + "".join(f"{at},{label}\n" for at, label in case.arrivals))
        total = report(simulate(case.scenario.but(arrivals="trace", trace=trace, policy=policy))).total
    bound = best(case.pictures, case.networks)
    return Regret(len(case.pictures), bound, total.attained, total.top1 * total.attained)


def summary(regrets: Sequence[Regret]) -> dict[str, float]:
    """The median, the mean and the 95th percentile of the regret in attainment, and the mean accuracies where policy
    and oracle answer as many."""
    lost = [found.attainment for found in regrets]
    equal = [found for found in regrets if found.answered == found.best.answered and found.answered]
    answered = sum(found.answered for found in equal) or 1
    return {
        "cases": len(regrets),
        "median": quantile(lost, 0.5),
        "mean": sum(lost) / len(lost),
        "p95": quantile(lost, 0.95),
        "as_many": sum(found.answered == found.best.answered for found in regrets) / len(regrets),
        "top1": sum(found.top1 for found in equal) / answered,
        "top1_oracle": sum(found.best.top1 for found in equal) / answered,
    }
