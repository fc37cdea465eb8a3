"""What a run of Locust is asked for, and whether its rate held."""

from __future__ import annotations

import math
from dataclasses import dataclass

from loadreport.locust_process import Run
from loadreport.report import Step
from loadreport.results import Results

#: The least number of arrivals in a look and in a confirmation, unless the step would become longer than LONGEST_S.
LOOK_ARRIVALS, CONFIRM_ARRIVALS = 60, 200
LONGEST_S = 120.0
WARM_UP_S = 2.0
#: Callers of the closed loop, whose rate is near a network's capacity.
PROBE_USERS = 8
#: The closed loop lasts for at least so many rounds, a round being one answer for each caller: after a single round all
#: answers would come at its end.
_ROUNDS = 4
_LONGEST_PROBE_S = 60.0
#: A generator whose lag exceeds this share of the p99 limit may be the reason why a rate did not hold.
_LAG_SHARE = 0.05
#: The share of requests that must be answered for a rate to hold.
_ANSWERED = 0.95
#: The least number of requests with mixed budgets, unless that takes too long; they are of six classes.
MIXED_REQUESTS = 600
#: The most requests in flight. A pool that is too small hides nothing: latency counts from when a request was due.
_LARGEST_POOL = 400


@dataclass(frozen=True)
class Plan:
    """The settings of a load test, and the runs of Locust that follow from them."""

    p99_limit_ms: float = 1000.0
    seconds: float = 15.0
    """The least length of a step."""
    seed: int = 8
    pictures: str | None = None
    budgets: bool = True

    @property
    def probe_s(self) -> float:
        """The least length of a closed loop."""
        return max(1.0, 0.4 * self.seconds)

    def probe(self, model: str, users: int, alone_ms: float = 0.0) -> Run:
        """A closed loop: so many callers, each of which sends its next request when it has its answer.

        Args:
            alone_ms: how long a lone caller waits for its answer, 0 if that is not known.
        """
        rounds_s = _ROUNDS * users * alone_ms / 1000
        seconds = max(self.probe_s, min(rounds_s, _LONGEST_PROBE_S))
        return self._run("ClassifyUser", users, seconds, self.seed, None, model)

    def step(self, model: str, rate: float, confirmation: int) -> Run:
        """A step at a rate: a look if ``confirmation`` is 0, else the confirmation of that number.

        All looks share a seed. A higher rate has the same arrivals, only closer together, so that it cannot hold by
        chance where a lower one failed. A confirmation has another seed, so that it does not repeat the luck by which
        the rate was found; networks share those seeds, so that luck does not change the ratio of two networks either.
        A confirmation lasts at least twice as long as a look: where the queue grows by a share e of the time, it takes
        p99_limit_ms / e until p99 exceeds its limit.
        """
        if confirmation:
            seconds = max(2 * self.seconds, CONFIRM_ARRIVALS / rate)
        else:
            seconds = max(self.seconds, LOOK_ARRIVALS / rate)
        seconds = min(seconds, max(LONGEST_S, 2 * self.seconds))
        return self._run("ClassifyUser", self.pool(rate), seconds, self.seed + confirmation, rate, model)

    def mixed(self, rate: float) -> Run:
        """Requests with mixed budgets, for which the router picks the network."""
        seconds = min(max(self.budget_s, MIXED_REQUESTS / rate), 8 * self.seconds)
        return self._run("BudgetUser", self.pool(rate), seconds, self.seed, rate, None)

    @property
    def budget_s(self) -> float:
        """The least length of the run with mixed budgets."""
        return 2 * self.seconds

    def pool(self, rate: float) -> int:
        """Twice as many connections as there are requests in flight if each takes as long as the p99 limit allows."""
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
    """The step that an open-loop run was, with the reason if its rate did not hold."""
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
    """Why a rate did not hold; None if it held.

    A generator that sends late is no reason: since latency counts from when a request was due, late sending makes a
    rate harder to hold, never easier.
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
    """Whether the load generator may be the reason why a rate did not hold."""
    lag = results.lag_ms.p99
    late = lag is not None and lag > _LAG_SHARE * p99_limit_ms
    return results.generator.bottleneck or late or _is_short_of_requests(results, rate)


def _is_short_of_requests(results: Results, rate: float) -> bool:
    """Whether the requests that were due are five standard deviations fewer than a Poisson process of this rate has."""
    due = rate * results.window_s
    return results.sent + results.unsent < due - 5 * math.sqrt(due)
