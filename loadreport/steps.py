"""What one run of Locust is asked for, and whether the rate held in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from loadreport.locust_process import Run
from loadreport.report import Step
from loadreport.results import Results

#: Arrivals in a look and in a confirmation, unless that takes too long.
LOOK_ARRIVALS, CONFIRM_ARRIVALS = 60, 200
LONGEST_S = 120.0
WARM_UP_S = 2.0
#: Callers of the closed loop that shows about what a network can do.
PROBE_USERS = 8
#: Rounds of the closed loop at least, by what a lone caller waits: of one round alone all answers come at its end.
_ROUNDS = 4
_LONGEST_PROBE_S = 60.0
#: Of the p99 limit: a generator that sends later than this may be why a rate did not hold.
_LAG_SHARE = 0.05
_ANSWERED = 0.95
#: Requests with mixed budgets, unless that takes too long; there are six classes of them.
MIXED_REQUESTS = 600
#: Requests on the way at most. A pool that is too small does not hide anything: latency counts from when a request was
#: due.
_LARGEST_POOL = 400


@dataclass(frozen=True)
class Plan:
    """How to measure."""

    p99_limit_ms: float = 1000.0
    seconds: float = 15.0
    """Of a step, at least."""
    seed: int = 8
    pictures: str | None = None
    budgets: bool = True

    @property
    def probe_s(self) -> float:
        return max(1.0, 0.4 * self.seconds)

    def probe(self, model: str, users: int, alone_ms: float = 0.0) -> Run:
        """So many callers, each sending as soon as it has its answer.

        Args:
            alone_ms: what a lone caller waits, if that is known.
        """
        rounds_s = _ROUNDS * users * alone_ms / 1000
        seconds = max(self.probe_s, min(rounds_s, _LONGEST_PROBE_S))
        return self._run("ClassifyUser", users, seconds, self.seed, None, model)

    def step(self, model: str, rate: float, confirmation: int) -> Run:
        """A look at a rate (0), or a confirmation of it.

        Looks share a seed: a higher rate has the same arrivals, only closer to each other, so that chance does not
        make it hold where a lower one failed. Confirmations have others, so that the figure is not of the luck that
        the rate was found by; the same for every network, so that their ratios are not of luck either. They last twice
        as long at least: a queue that grows by a share e of the time takes p99_limit_ms / e to be noticed.
        """
        if confirmation:
            seconds = max(2 * self.seconds, CONFIRM_ARRIVALS / rate)
        else:
            seconds = max(self.seconds, LOOK_ARRIVALS / rate)
        seconds = min(seconds, max(LONGEST_S, 2 * self.seconds))
        return self._run("ClassifyUser", self.pool(rate), seconds, self.seed + confirmation, rate, model)

    def mixed(self, rate: float) -> Run:
        """Mixed budgets, for the router."""
        seconds = min(max(self.budget_s, MIXED_REQUESTS / rate), 8 * self.seconds)
        return self._run("BudgetUser", self.pool(rate), seconds, self.seed, rate, None)

    @property
    def budget_s(self) -> float:
        """Of mixed budgets, at least."""
        return 2 * self.seconds

    def pool(self, rate: float) -> int:
        """Requests that are on the way where the slowest take the whole limit, twice over."""
        return min(_LARGEST_POOL, 8 + math.ceil(2 * rate * self.p99_limit_ms / 1000))

    def _run(self, user: str, users: int, seconds: float, seed: int, rate: float | None, model: str | None) -> Run:
        return Run(
            user=user,
            users=users,
            seconds=math.ceil(seconds),
            warm_up_s=min(WARM_UP_S, self.seconds / 4),
            seed=seed,
            rate=rate,
            model=model,
            pictures=self.pictures,
        )


def as_step(results: Results, rate: float, plan: Plan, *, confirmation: bool) -> Step:
    """A run in open loop, and why its rate did not hold, if so."""
    why_not = why_not_held(results, rate, plan.p99_limit_ms)
    return Step(
        rate=rate,
        seconds=results.window_s,
        samples=results.latency_ms.count,
        pictures_per_second=results.pictures_per_second,
        p50_ms=results.latency_ms.p50,
        p99_ms=results.latency_ms.p99,
        confirmation=confirmation,
        why_not=why_not,
        generator_bound=why_not is not None and _generator_bound(results, rate, plan.p99_limit_ms),
    )


def why_not_held(results: Results, rate: float, p99_limit_ms: float) -> str | None:
    """What kept a rate from holding; None: it held.

    A generator that sends late is no reason: latency counts from when a request was due, so that it makes a rate harder
    to hold, never easier.
    """
    p99 = results.latency_ms.p99
    if _is_short_of_requests(results, rate):
        return f"only {results.sent + results.unsent} of about {rate * results.window_s:,.0f} requests were due"
    if results.failures:
        return f"{results.failed} failed: {', '.join(f'{count} x {name}' for name, count in results.failures.items())}"
    if results.unsent or results.unanswered:
        return f"{results.unsent} not sent, {results.unanswered} not answered in time"
    if not results.answered or p99 is None:
        return "nothing was answered"
    if results.answered < _ANSWERED * results.sent:
        refused = ", ".join(f"{count} x {name}" for name, count in results.refused.items())
        return f"{results.answered} of {results.sent} answered ({refused or 'the others refused'})"
    if p99 > p99_limit_ms:
        return f"p99 {p99:,.0f} ms"
    return None


def _generator_bound(results: Results, rate: float, p99_limit_ms: float) -> bool:
    """Whether the load generator may be why a rate did not hold."""
    lag = results.lag_ms.p99
    late = lag is not None and lag > _LAG_SHARE * p99_limit_ms
    return results.generator.bottleneck or late or _is_short_of_requests(results, rate)


def _is_short_of_requests(results: Results, rate: float) -> bool:
    """Whether fewer were due than chance makes of a Poisson process."""
    due = rate * results.window_s
    return results.sent + results.unsent < due - 5 * math.sqrt(due)
