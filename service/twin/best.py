"""The best constant network for each class of budget, with hindsight: all are tried on the very same arrivals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from models.checkpoints.catalogue import Catalogue, Checkpoint
from models.networks.variants import VARIANTS, find_variant
from service.profiling.profiles import Profile
from service.twin.report import Figures, report
from service.twin.running import NOWHERE, device_profiles, simulate
from service.twin.scenario import Budget, Scenario

#: Up to so many combinations are all tried. Beyond, networks that others beat are left out, and one class is changed at
#: a time until no change is better.
_ALL = 128
#: The pictures of a trial, about: the whole scenario may be an hour.
_PICTURES = 1000.0

Names: TypeAlias = tuple[str, ...]


def best_constant(scenario: Scenario, *, guarded: bool = False) -> Scenario:
    """The scenario with the best constant network for each row of its mix as its policy.

    Args:
        scenario: whose policy does not matter.
        guarded: whether the router's admission stands before the networks.
    """
    kind = "guarded-classes" if guarded else "classes"
    trial = scenario.but(seconds=min(scenario.seconds, _PICTURES / scenario.rate))
    known: dict[Names, tuple[float, float]] = {}

    def worth(names: Names) -> tuple[float, float]:
        if names not in known:
            known[names] = objective(report(simulate(trial.but(policy=f"{kind}:{','.join(names)}"))).total)
        return known[names]

    every = [candidates(scenario, budget) for budget in scenario.mix]
    if math.prod(map(len, every)) <= _ALL:
        best = max(itertools.product(*every), key=worth)
    else:
        best = _searched([candidates(scenario, budget, front=True) for budget in scenario.mix], worth)
    return scenario.but(policy=f"{kind}:{','.join(best)}")


def objective(figures: Figures) -> tuple[float, float]:
    """What is to be as large as possible: attainment in whole percents first, then the mean top-1 accuracy."""
    return round(figures.attainment, 2), figures.top1


def _searched(choices: Sequence[Sequence[str]], worth: Callable[[Names], tuple[float, float]]) -> Names:
    """The combination that is worth most, of those that changing one class at a time finds."""
    # Begin with each network for everybody who allows it, and with the most accurate for the others.
    every = dict.fromkeys(name for some in choices for name in some)
    best = max((tuple(name if name in some else some[0] for some in choices) for name in every), key=worth)
    while True:
        before = best
        for row, some in enumerate(choices):
            best = max(((*best[:row], name, *best[row + 1 :]) for name in some), key=worth)
        if best == before:
            return best


def candidates(scenario: Scenario, budget: Budget, *, front: bool = False) -> list[str]:
    """The networks that a class allows, the most accurate first; ``-`` if it names one.

    Args:
        scenario: has the devices.
        budget: of the class.
        front: leave out those that another one beats in accuracy, time and memory. Such a network can still be the best
            for a class, since it has a queue of its own; but hardly so.
    """
    query = budget.asked
    if query.model is not None:
        return ["-"]
    found = [
        (checkpoint, profile)
        for checkpoint, profile in _served(scenario)
        if (query.min_top1 is None or (checkpoint.top1 or 0.0) >= query.min_top1)
        and (query.memory_mb is None or profile.footprint_bytes <= query.memory_mb * 1e6)
    ]
    if front:
        found = [one for one in found if not any(_beats(other, one) for other in found if other is not one)]
    found.sort(key=lambda pair: -(pair[0].top1 or 0.0))
    # Nothing is allowed: any name is refused.
    return [checkpoint.model for checkpoint, _ in found] or [next(iter(VARIANTS))]


def _served(scenario: Scenario) -> list[tuple[Checkpoint, Profile]]:
    """The networks of the first device that the router may choose."""
    device = scenario.device[0]
    names = list(VARIANTS) if "*" in device.variants else [find_variant(name).name for name in device.variants]
    profiles = device_profiles(device.profile)
    found = []
    for checkpoint in Catalogue(NOWHERE, untrained=True, variants=names).checkpoints():
        profile = profiles.nearest(checkpoint)
        if checkpoint.top1 is not None and checkpoint.variant.labels == "imagenet1k" and profile is not None:
            found.append((checkpoint, profile))
    return found


def _beats(one: tuple[Checkpoint, Profile], other: tuple[Checkpoint, Profile]) -> bool:
    """Whether a network is at least as good as another in all, and better in something."""

    def costs(pair: tuple[Checkpoint, Profile]) -> tuple[float, ...]:
        checkpoint, profile = pair
        forward = profile.forward
        means = (forward[min(forward)].mean_ms, forward[max(forward)].mean_ms)
        return -(checkpoint.top1 or 0.0), *means, profile.footprint_bytes

    mine, theirs = costs(one), costs(other)
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))
