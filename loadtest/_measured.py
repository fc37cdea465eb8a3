"""What a run measured: counts and times are collected during the run and summarised at its end.

Every request that was sent ends as answered, refused, failed or unanswered. *Answered* means 200, and for junk the
problem that it should get. A bulk request counts once, but its pictures and refusals one by one.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtest._outcomes import Outcome
from loadtest._requests import Budget, Request

PHASES = ("decode", "queue", "forward")
_PERCENTILES = (50, 90, 95, 99)


def _times() -> array[float]:
    return array("d")


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The smallest of the values that is not exceeded by so many percent of them."""
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """The count, mean, percentiles and maximum of values, in their unit; None if there are no values."""
    ascending = sorted(values)
    known = bool(ascending)
    return {
        "count": len(ascending),
        "mean": round(math.fsum(ascending) / len(ascending), 3) if known else None,
        **{f"p{p}": round(percentile(ascending, p), 3) if known else None for p in _PERCENTILES},
        "max": round(ascending[-1], 3) if known else None,
    }


@dataclass(slots=True)
class UserTally:
    """The requests of one kind of users."""

    sent: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    latency_ms: array[float] = field(default_factory=_times)

    def results(self) -> dict[str, Any]:
        counts = {verdict: self.verdicts[verdict] for verdict in ("answered", "refused", "failed")}
        return {"sent": self.sent, **counts, "latency_ms": summary(self.latency_ms)}


@dataclass(slots=True)
class BudgetTally:
    """The requests of one class of budgets."""

    budget_ms: float
    sent: int = 0
    accepted: int = 0
    refused: int = 0
    met: int = 0
    latency_ms: array[float] = field(default_factory=_times)

    def results(self) -> dict[str, Any]:
        counts = {"sent": self.sent, "accepted": self.accepted, "refused": self.refused, "met": self.met}
        return {"budget_ms": self.budget_ms, **counts, "latency_ms": summary(self.latency_ms)}


@dataclass(slots=True)
class ModelTally:
    """The pictures that one model answered; the times are of requests with one picture."""

    batch_sizes: int = 0
    pictures: int = 0
    latency_ms: array[float] = field(default_factory=_times)

    def results(self) -> dict[str, Any]:
        mean = round(self.batch_sizes / self.pictures, 3)
        return {"pictures": self.pictures, "latency_ms": summary(self.latency_ms), "mean_batch_size": mean}


class Measured:
    """The counts of a run; its caller passes only requests that lie in the window."""

    def __init__(self) -> None:
        self.unsent = 0
        self.latency_ms = _times()
        self.lag_ms = _times()
        self.phases_ms = {phase: _times() for phase in PHASES}
        self.statuses: Counter[int] = Counter()
        self.refused: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.models: defaultdict[str, ModelTally] = defaultdict(ModelTally)
        self.users: defaultdict[str, UserTally] = defaultdict(UserTally)
        self.budgets: dict[Budget, BudgetTally] = {}

    def sent(self, request: Request, lag_ms: float | None) -> None:
        """Counts a request that is being sent; ``lag_ms`` is how late an open loop sends it."""
        self.users[request.user].sent += 1
        if request.budget is not None:
            self._budget(request.budget).sent += 1
        if lag_ms is not None:
            self.lag_ms.append(lag_ms)

    def ended(self, request: Request, outcome: Outcome, latency_ms: float) -> None:
        """Counts what became of a request, and how long that took."""
        user = self.users[request.user]
        user.verdicts[outcome.verdict] += 1
        if outcome.status:
            self.statuses[outcome.status] += 1
        if outcome.verdict == "failed":
            self.failures[outcome.failure] += 1
        self.refused.update(outcome.refusals)
        alone = request.kind in ("classify", "budget")
        for picture in outcome.pictures:
            model = self.models[picture.model]
            model.pictures += 1
            model.batch_sizes += picture.batch_size
            if alone:
                model.latency_ms.append(latency_ms)
            for phase, value in zip(PHASES, picture[2:], strict=True):
                self.phases_ms[phase].append(value)
        if outcome.verdict == "answered":
            user.latency_ms.append(latency_ms)
            if alone:
                self.latency_ms.append(latency_ms)
        if request.budget is not None:
            self._ended_budget(request.budget, outcome, latency_ms)

    def _ended_budget(self, budget: Budget, outcome: Outcome, latency_ms: float) -> None:
        tally = self._budget(budget)
        tally.refused += outcome.verdict == "refused"
        tally.accepted += outcome.verdict != "refused"
        if outcome.verdict == "answered":
            tally.met += latency_ms <= budget.latency_ms
            tally.latency_ms.append(latency_ms)

    def _budget(self, budget: Budget) -> BudgetTally:
        return self.budgets.setdefault(budget, BudgetTally(budget.latency_ms))

    @property
    def pictures(self) -> int:
        return sum(model.pictures for model in self.models.values())

    def count(self, verdict: str) -> int:
        return sum(user.verdicts[verdict] for user in self.users.values())

    def results(self, window_s: float) -> dict[str, Any]:
        """The part of the results file that is counted here."""
        sent = sum(user.sent for user in self.users.values())
        ended = sum(user.verdicts.total() for user in self.users.values())
        return {
            "sent": sent,
            "answered": self.count("answered"),
            "pictures": self.pictures,
            "pictures_per_second": round(self.pictures / window_s, 3) if window_s > 0 else 0.0,
            "unsent": self.unsent,
            "unanswered": sent - ended,
            "latency_ms": summary(self.latency_ms),
            "lag_ms": summary(self.lag_ms),
            "phases_ms": {phase: summary(values) for phase, values in self.phases_ms.items()},
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "refused": dict(self.refused),
            "failures": dict(self.failures),
            "by_model": {name: model.results() for name, model in sorted(self.models.items())},
            "by_user": {name: user.results() for name, user in sorted(self.users.items())},
            "by_budget": {budget.query: tally.results() for budget, tally in sorted(self.budgets.items())},
        }
