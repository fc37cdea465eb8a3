"""The report of a simulation: what became of the pictures, by class of budget and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

from pydantic import BaseModel

from service.domain.errors import DEADLINE_MISSED
from service.domain.outcome import OK
from service.domain.quantile import quantile
from service.twin.running import Outcome, Sent
from service.twin.scenario import Scenario

#: Refusals belong to one wave as long as there are no so many seconds without any, as for ``Retry-After``.
_CALM_S = 2.0


class Figures(BaseModel):
    """What became of the pictures of one class, or of all. Shares are between 0 and 1."""

    offered: int
    """Pictures that were sent for the first time."""
    accepted: int
    """Of these, how many were let in."""
    attained: int
    """Of these, how many were answered within their budget."""
    attainment: float
    """``attained`` of ``offered``."""
    attainment_accepted: float
    """``attained`` of ``accepted``."""
    goodput: float
    """Answers within their budget a second, to pictures that came back among them."""
    top1: float
    """Mean top-1 accuracy in percent, as published, of the networks that gave these answers."""
    refused: dict[str, int]
    """By kind of problem: pictures that were not let in."""
    came_back: int
    """Pictures that were sent again after a refusal."""
    kept: float
    """Of these, the share that was answered within its budget."""
    told_s: float
    """Median Retry-After."""
    wave_s: float
    """Median time from a refusal until two seconds began in which nobody was refused: what the queue really took."""
    p50_ms: float
    p95_ms: float
    """Of answers."""
    networks: dict[str, float]
    """The share of each network in the answers."""
    changes: int
    """Successive choices for the class that differ."""
    flips: int
    """Of these, how many are undone by the next choice."""


class Report(BaseModel):
    """All that a simulation has shown."""

    scenario: Scenario
    classes: dict[str, Figures]
    total: Figures
    busy: float
    """The share of the time in which devices computed, on average."""
    evictions: int
    loads: int
    simulated_s: float
    decision_us: dict[str, float]
    """Real microseconds of a decision: ``p50``, ``p95``, ``mean``. The one thing that the seed does not decide."""

    @property
    def repeatable(self) -> dict[str, Any]:
        """The report without real times: the same scenario always gives the same."""
        return self.model_dump(mode="json", exclude={"decision_us"})


def report(outcome: Outcome) -> Report:
    """The report of what happened."""
    scenario = outcome.scenario
    labels = [budget.label for budget in scenario.mix]
    allowed = [budget.asked.allowed_s(scenario.default_latency_ms) for budget in scenario.mix]
    waves = _waves(outcome.sent)
    classes = {
        label: _figures([sent for sent in outcome.sent if sent.row == row], outcome, waves, allowed, [row])
        for row, label in enumerate(labels)
    }
    devices = sum(device.count for device in scenario.device)
    micros = sorted(1e6 * seconds for seconds in outcome.decisions_s)
    return Report(
        scenario=scenario,
        classes=classes,
        total=_figures(outcome.sent, outcome, waves, allowed, range(len(labels))),
        busy=_share(outcome.busy_s, outcome.simulated_s * devices),
        evictions=outcome.evictions,
        loads=outcome.loads,
        simulated_s=outcome.simulated_s,
        decision_us={
            "p50": _quantile(micros, 0.5),
            "p95": _quantile(micros, 0.95),
            "mean": _share(sum(micros), len(micros)),
        },
    )


def _figures(
    sent: Sequence[Sent], outcome: Outcome, waves: Sequence[float], allowed: Sequence[float], rows: Sequence[int]
) -> Figures:
    first = [s for s in sent if s.tries == 1]
    again = [s for s in sent if s.tries > 1]
    good = [s for s in sent if _in_time(s, allowed)]
    attained = sum(_in_time(s, allowed) for s in first)
    let_in = [s for s in first if accepted(s)]
    answered = [s for s in sent if s.reason == OK]
    told = [(s.told_s, s.due + s.took_s) for s in sent if s.told_s is not None]
    changes, flips = _changes(outcome, rows)
    networks = Counter(s.model for s in answered)
    took_ms = [1000 * s.took_s for s in answered]
    return Figures(
        offered=len(first),
        accepted=len(let_in),
        attained=attained,
        attainment=_share(attained, len(first)),
        attainment_accepted=_share(attained, len(let_in)),
        goodput=_share(len(good), outcome.simulated_s),
        top1=_share(sum(s.top1 for s in good), len(good)),
        refused=dict(sorted(Counter(s.reason for s in first if not accepted(s)).items())),
        came_back=len(again),
        kept=_share(sum(_in_time(s, allowed) for s in again), len(again)),
        told_s=_quantile([seconds for seconds, _ in told], 0.5),
        wave_s=_quantile([min(end for end in waves if end >= at) - at for _, at in told], 0.5),
        p50_ms=_quantile(took_ms, 0.5),
        p95_ms=_quantile(took_ms, 0.95),
        networks={name: count / len(answered) for name, count in sorted(networks.items())},
        changes=changes,
        flips=flips,
    )


def accepted(sent: Sent) -> bool:
    """Whether a picture was let in. One whose deadline passed in the queue was, and carries the network's name."""
    return sent.reason == OK or (sent.reason == DEADLINE_MISSED and bool(sent.model))


def _in_time(sent: Sent, allowed: Sequence[float]) -> bool:
    return sent.reason == OK and sent.took_s <= allowed[sent.row] + 1e-9


def _waves(sent: Sequence[Sent]) -> list[float]:
    """When each wave of refusals ended: its last one."""
    times = sorted(s.due + s.took_s for s in sent if s.told_s is not None)
    ends = [earlier for earlier, later in pairwise(times) if later - earlier > _CALM_S]
    return [*ends, *times[-1:]]


def _changes(outcome: Outcome, rows: Sequence[int]) -> tuple[int, int]:
    """How often a choice differs from the one before it, and how often the choice after it is again the one before."""
    changes = flips = 0
    for choices in outcome.choices:
        for row in rows:
            names = [name for of_row, name in choices if of_row == row]
            runs = [name for name, _ in groupby(names)]
            lengths = [len(list(same)) for _, same in groupby(names)]
            changes += max(0, len(runs) - 1)
            flips += sum(lengths[i] == 1 and runs[i - 1] == runs[i + 1] for i in range(1, len(runs) - 1))
    return changes, flips


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _quantile(values: Sequence[float], q: float) -> float:
    return quantile(values, q) if values else 0.0
