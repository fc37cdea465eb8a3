"""The whole load test: each network's knee, then mixed budgets, one run of Locust after the other."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Protocol

from loadreport.knee import Knee as Found
from loadreport.knee import ambiguity, find_knee
from loadreport.locust_process import InterruptedRunError, LocustError, Run, run_locust
from loadreport.report import Budget, BudgetRun, Knee, Network, Report, Step
from loadreport.results import Results
from loadreport.steps import PROBE_USERS, Plan, as_step
from loadreport.target import CannotLoadError, Row, Target, TargetError

#: The search begins at this share of the closed loop's rate, since Poisson arrivals leave gaps and make bursts.
_BEGIN_AT = 0.75
#: Mixed budgets arrive at this share of what the median network holds: they test whether the router keeps budgets, not
#: how it sheds load.
_MIXED_SHARE = 0.5


class Watch(Protocol):
    """Receives the campaign's progress."""

    def begins(self, what: str, seconds: float) -> None:
        """A run begins that takes about so many seconds."""

    def ended(self, line: str) -> None:
        """The run has ended; the line says with what result."""

    def network_ended(self) -> None:
        """All runs of one network have ended."""


class StoppedError(Exception):
    """The load test ended early; the report has what was measured until then.

    Attributes:
        by_caller: True for Ctrl-C, False if the service or Locust failed.
    """

    def __init__(self, text: str, *, by_caller: bool) -> None:
        super().__init__(text)
        self.by_caller = by_caller


class Campaign:
    """Measures networks and fills a report.

    Args:
        report: is filled; it is valid after each step, so that it can be written at any time.
        run: runs Locust once; tests pass a function of their own.
    """

    def __init__(
        self,
        target: Target,
        plan: Plan,
        report: Report,
        watch: Watch,
        run: Callable[[str, Run], Results] = run_locust,
    ) -> None:
        self._target = target
        self._plan = plan
        self._report = report
        self._watch = watch
        self._run_locust = run

    def run(self, rows: Sequence[Row]) -> None:
        """Measures the networks, then mixed budgets.

        Raises:
            StoppedError: at Ctrl-C, or if the service or Locust has gone; the report says so too.
        """
        try:
            for row in rows:
                self._measure(row)
                self._watch.network_ended()
            self._mix()
        except (InterruptedRunError, KeyboardInterrupt):
            self._stopped("interrupted", by_caller=True)
        except (TargetError, LocustError) as error:
            self._stopped(str(error), by_caller=False)

    def _stopped(self, why: str, *, by_caller: bool) -> None:
        self._report.partial = why
        for network in self._report.networks:
            if network.knee is None and network.problem is None:
                network.problem = f"not finished: {why}"
        if self._report.budget_run is None and self._report.no_budget_run is None:
            self._report.no_budget_run = f"not reached: {why}"
        raise StoppedError(why, by_caller=by_caller) from None

    def _measure(self, row: Row) -> None:
        network = _network(row)
        self._report.networks.append(network)
        self._watch.begins(f"{row.variant}: loading", 0)
        try:
            # The service knows the measured footprint once the network has been loaded.
            network.footprint_mb = self._target.load(row).footprint_mb or row.footprint_mb
        except CannotLoadError as error:
            network.problem = str(error)
            return
        alone = self._probe(network, 1)
        network.alone_p50_ms = alone.latency_ms.p50
        several = self._probe(network, PROBE_USERS, alone.latency_ms.p50 or 0.0)
        network.closed_per_second = several.pictures_per_second
        self._watch.ended(f"{row.variant}: {PROBE_USERS} callers: {several.pictures_per_second:,.1f} pictures/s")
        if not several.answered:
            wrong = [*several.failures, *several.refused]
            network.problem = f"no request was answered: {', '.join(wrong) or 'nothing came back'}"
            return
        self._search(network, several.pictures_per_second)

    def _probe(self, network: Network, users: int, alone_ms: float = 0.0) -> Results:
        what = "one caller" if users == 1 else f"{users} callers"
        results = self._run(self._plan.probe(network.name, users, alone_ms), f"{network.variant}: {what}")
        network.probes_sent += results.sent
        network.probes_failed += results.failed
        return results

    def _search(self, network: Network, capacity: float) -> None:
        outcomes: dict[int, Results] = {}

        def measure(rate: float, confirmation: int) -> Step:
            what = "confirming" if confirmation else "trying"
            run = self._plan.step(network.name, rate, confirmation)
            try:
                results = self._run(run, f"{network.variant}: {what} {rate:,.1f}/s")
            except InterruptedRunError as error:
                if error.results is not None:
                    cut = as_step(error.results, rate, self._plan, confirmation=confirmation > 0)
                    network.steps.append(cut.model_copy(update={"why_not": "interrupted"}))
                raise
            step = as_step(results, rate, self._plan, confirmation=confirmation > 0)
            network.steps.append(step)
            outcomes[id(step)] = results
            verdict = step.why_not or ("confirmed" if confirmation else "held")
            p99 = f", p99 {step.p99_ms:,.0f} ms" if step.held and step.p99_ms is not None else ""
            self._watch.ended(f"{network.variant}: {rate:,.1f}/s: {verdict}{p99} ({step.samples} answers)")
            return step

        found = find_knee(measure, _BEGIN_AT * capacity)
        failed = [step for step in network.steps if not step.held]
        network.generator_bound = bool(failed) and min(failed, key=lambda step: step.rate).generator_bound
        if found.step is None or found.rate is None:
            held = any(step.held for step in network.steps)
            network.problem = "no rate was confirmed" if held else f"no rate held: {network.steps[-1].why_not}"
            return
        network.knee = _knee(found, found.rate, found.step, outcomes[id(found.step)])

    def _mix(self) -> None:
        held = [network.knee.rate for network in self._report.networks if network.knee is not None]
        if not self._plan.budgets or not held:
            self._report.no_budget_run = "not asked for" if held else "no network held any rate"
            return
        rate = _MIXED_SHARE * statistics.median(held)
        try:
            results = self._run(self._plan.mixed(rate), f"mixed budgets: {rate:,.1f}/s")
        except InterruptedRunError as error:
            if error.results is not None:
                self._report.budget_run = _budget_run(error.results, rate)
            raise
        self._report.budget_run = _budget_run(results, rate)
        self._watch.ended(f"mixed budgets: {results.sent} requests, {results.answered} answered")

    def _run(self, run: Run, what: str) -> Results:
        self._watch.begins(what, run.seconds + run.warm_up_s)
        try:
            results = self._run_locust(self._target.host, run)
        except LocustError:
            # If the service has gone, that is the reason to report, and not what Locust says of it.
            self._target.check()
            raise
        if results.failures:
            self._target.check()
        return results


def _network(row: Row) -> Network:
    return Network(
        name=row.name,
        variant=row.variant,
        labels=row.labels,
        top1=row.top1,
        analytic_mb=row.analytic_mb,
        footprint_mb=row.footprint_mb,
    )


def _knee(found: Found[Step], rate: float, step: Step, results: Results) -> Knee:
    # A step that held has latencies.
    assert step.p50_ms is not None
    assert step.p99_ms is not None
    return Knee(
        rate=rate,
        seconds=results.window_s,
        sent=results.sent,
        failed=results.failed,
        pictures_per_second=rate * results.answered / results.sent,
        p50_ms=step.p50_ms,
        p99_ms=step.p99_ms,
        samples=results.latency_ms.count,
        phases_p50_ms={name: phase.p50 for name, phase in results.phases_ms.items() if phase.p50 is not None},
        mean_batch_size=results.mean_batch_size,
        lag_p99_ms=results.lag_ms.p99,
        ambiguity=ambiguity(found.tried, rate),
    )


def _budget_run(results: Results, rate: float) -> BudgetRun:
    budgets = [
        Budget(
            name=name,
            budget_ms=budget.budget_ms,
            sent=budget.sent,
            accepted=budget.accepted,
            refused=budget.refused,
            met=budget.met,
            p50_ms=budget.latency_ms.p50,
            p99_ms=budget.latency_ms.p99,
            samples=budget.latency_ms.count,
        )
        for name, budget in results.by_budget.items()
    ]
    return BudgetRun(
        rate=rate,
        seconds=results.window_s,
        sent=results.sent,
        failed=results.failed,
        budgets=budgets,
        pictures_by_model={name: model.pictures for name, model in results.by_model.items()},
    )
