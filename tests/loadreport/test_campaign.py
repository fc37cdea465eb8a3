"""The whole load test on a pretended service and Locust: what is measured, in which order, and what ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from loadreport.campaign import Campaign, StoppedError
from loadreport.locust_process import InterruptedRunError, LocustError, Run
from loadreport.report import Report
from loadreport.results import Results
from loadreport.steps import Plan
from loadreport.target import CannotLoadError, Row, Target, TargetError
from tests import reports


class Service:
    """A service whose networks hold rates up to a threshold; it counts how often it is asked whether it is there."""

    host = "http://here"

    def __init__(self, **holds: float) -> None:
        self.holds = holds
        self.closed_loop = holds
        """What a closed loop gives, by network."""
        self.loaded: list[str] = []
        self.footprints: dict[str, float | None] = {}
        self.checks = 0
        self.has_gone = False
        self.runs: list[Run] = []
        self.trouble: Callable[[Run, Results], Results] = lambda run, results: results

    def load(self, row: Row) -> Row:
        self.loaded.append(row.variant)
        if self.holds[row.variant] < 0:
            raise CannotLoadError(f"{row.name} cannot be loaded: too large")
        return row.model_copy(update={"footprint_mb": self.footprints.get(row.variant, 200.0)})

    def check(self) -> None:
        self.checks += 1
        if self.has_gone:
            raise TargetError("nothing answers")

    def run(self, host: str, run: Run) -> Results:
        assert host == self.host
        self.runs.append(run)
        holds = self.holds.get(str(run.model).partition("@")[0], 1e9)
        if run.rate is None:
            latency = 50.0 * run.users
            closed = self.closed_loop[str(run.model).partition("@")[0]]
            figures: dict[str, Any] = {"pictures_per_second": closed, "latency_ms": {"count": 200, "p50": latency}}
            return self.trouble(run, reports.results(**figures))
        sent = round(20 * run.rate)
        p99_ms = 900.0 if run.rate <= holds else 1500.0
        latency_ms = {"count": sent, "p50": 100.0, "p99": p99_ms}
        return self.trouble(run, reports.results(sent=sent, answered=sent, pictures=sent, latency_ms=latency_ms))

    @property
    def rates(self) -> list[float]:
        return [run.rate for run in self.runs if run.rate is not None]


class Watch:
    """Writes down what a campaign says."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float]] = []
        self.lines: list[str] = []
        self.networks = 0

    def begins(self, what: str, seconds: float) -> None:
        self.begun.append((what, seconds))

    def ended(self, line: str) -> None:
        self.lines.append(line)

    def network_ended(self) -> None:
        self.networks += 1


def rows(*variants: str) -> list[Row]:
    return [
        Row(
            name=f"{variant}@untrained",
            variant=variant,
            labels="imagenet1k",
            state="ready",
            footprint_mb=100.0,
            top1=70.0,
        )
        for variant in variants
    ]


def measure(service: Service, *variants: str, watch: Watch | None = None, **plan: Any) -> Report:
    report = reports.report(budget_run=None)
    report.networks = []
    campaign = Campaign(cast("Target", service), Plan(**plan), report, watch or Watch(), service.run)
    try:
        campaign.run(rows(*variants))
    except StoppedError as error:
        report.pictures = f"stopped: {error}, by caller: {error.by_caller}"
    return report


def test_networks_come_one_after_the_other_and_mixed_budgets_at_the_end() -> None:
    service, watch = Service(alexnet=40.0, vgg16=4.0), Watch()
    report = measure(service, "alexnet", "vgg16", watch=watch)
    assert [network.variant for network in report.networks] == service.loaded == ["alexnet", "vgg16"]
    models = [run.model for run in service.runs]
    assert models == [*sorted(models[:-1], key=str), None]
    assert service.runs[-1].user == "BudgetUser"
    assert watch.networks == 2
    for network, capacity in zip(report.networks, (40.0, 4.0), strict=True):
        assert network.knee is not None
        assert capacity / 1.1 <= network.knee.rate <= capacity
    assert watch.begun[0] == ("alexnet: loading", 0)
    assert watch.begun[1] == ("alexnet: one caller", 6 + 2)


def test_one_caller_and_eight_come_before_the_search_which_begins_below_their_rate() -> None:
    service = Service(alexnet=40.0)
    report = measure(service, "alexnet", budgets=False)
    assert [run.users for run in service.runs[:2]] == [1, 8]
    assert all(run.rate is None for run in service.runs[:2])
    # Three quarters of what eight callers got.
    assert service.rates[0] == pytest.approx(30.0)
    (network,) = report.networks
    assert (network.alone_p50_ms, network.closed_per_second) == (50.0, 40.0)
    assert (network.probes_sent, network.probes_failed) == (400, 0)


def test_eight_callers_wait_for_some_rounds_of_a_slow_network() -> None:
    def slow(run: Run, results: Results) -> Results:
        return reports.results(latency_ms={"count": 9, "p50": 1000.0}) if run.rate is None else results

    service = Service(vgg16=4.0)
    service.trouble = slow
    measure(service, "vgg16", budgets=False)
    # Four rounds of eight answers, a second each.
    assert [run.seconds for run in service.runs[:2]] == [6, 32]


def test_mixed_budgets_arrive_at_half_of_what_the_median_network_holds() -> None:
    for holds in ({"alexnet": 40.0, "vgg16": 4.0, "nin": 10.0}, {"alexnet": 40.0, "vgg16": 4.0}):
        service = Service(**holds)
        report = measure(service, *holds)
        rates = sorted(network.knee.rate for network in report.networks if network.knee)
        median = rates[1] if len(rates) == 3 else (rates[0] + rates[1]) / 2
        assert report.budget_run is not None
        assert service.rates[-1] == report.budget_run.rate == pytest.approx(median / 2)


def test_without_budgets_or_a_network_that_holds_there_is_no_mix() -> None:
    asked = measure(Service(alexnet=40.0), "alexnet", budgets=False)
    assert (asked.budget_run, asked.no_budget_run) == (None, "not asked for")
    service = Service(alexnet=0.0)
    service.closed_loop = {"alexnet": 40.0}
    none = measure(service, "alexnet")
    assert (none.budget_run, none.no_budget_run) == (None, "no network held any rate")


def test_the_footprint_is_the_one_after_loading() -> None:
    service = Service(alexnet=40.0, vgg16=4.0)
    service.footprints["vgg16"] = None
    report = measure(service, "alexnet", "vgg16", budgets=False)
    assert [network.footprint_mb for network in report.networks] == [200.0, 100.0]


def test_a_network_that_cannot_be_loaded_is_left_out() -> None:
    report = measure(Service(alexnet=-1.0, vgg16=4.0), "alexnet", "vgg16", budgets=False)
    alexnet, vgg = report.networks
    assert alexnet.problem == "alexnet@untrained cannot be loaded: too large"
    assert (alexnet.alone_p50_ms, alexnet.steps) == (None, [])
    assert vgg.knee is not None


def test_a_network_that_answers_nothing_says_with_what() -> None:
    service = Service(alexnet=40.0)
    service.trouble = lambda run, results: results.model_copy(update={"answered": 0, "failures": {"503": 200}})
    (network,) = measure(service, "alexnet", budgets=False).networks
    assert network.problem == "no request was answered: 503"
    assert (network.probes_failed, network.steps) == (400, [])
    # A service that fails is asked whether it is still there.
    assert service.checks == 2
    service.trouble = lambda run, results: results.model_copy(update={"answered": 0})
    (network,) = measure(service, "alexnet", budgets=False).networks
    assert network.problem == "no request was answered: nothing came back"


def test_the_knees_figures_are_the_confirmations() -> None:
    def confirmed(run: Run, results: Results) -> Results:
        if run.seed == 8 or run.rate is None:
            return results
        sent = 1000
        more = {
            "sent": sent,
            "answered": 960,
            "failures": {},
            "refused": {"/problems/overloaded": 40},
            "window_s": 1000 / run.rate,
            "latency_ms": results.latency_ms.model_copy(update={"p99": 777.0, "count": 960}),
            "phases_ms": {},
        }
        return results.model_copy(update=more)

    service = Service(alexnet=40.0)
    service.trouble = confirmed
    (network,) = measure(service, "alexnet", budgets=False, seed=8).networks
    knee = network.knee
    assert knee is not None
    assert (knee.p99_ms, knee.samples, knee.sent) == (777.0, 960, 1000)
    # The rate times the share that was answered.
    assert knee.pictures_per_second == pytest.approx(0.96 * knee.rate)
    assert network.steps[-1].confirmation
    assert network.steps[-1].rate == knee.rate
    assert 0 < knee.ambiguity <= 0.1 + 1e-9


@pytest.mark.parametrize(("bound_above", "told"), [(41.0, True), (60.0, False), (1000.0, False)])
def test_a_network_is_bound_by_the_generator_if_the_lowest_failure_was(bound_above: float, told: bool) -> None:
    def late(run: Run, results: Results) -> Results:
        if run.rate is not None and run.rate > bound_above:
            return results.model_copy(update={"lag_ms": results.lag_ms.model_copy(update={"p99": 500.0})})
        return results

    service = Service(alexnet=40.0)
    service.closed_loop = {"alexnet": 100.0}
    service.trouble = late
    (network,) = measure(service, "alexnet", budgets=False).networks
    # Down from three quarters of what the closed loop gave, and then between 41.15 and 30.5.
    assert [step.rate for step in network.steps if not step.held] == pytest.approx([75, 75 / 1.35, 75 / 1.35**2])
    assert network.generator_bound is told


def test_rates_that_never_hold_say_why() -> None:
    service = Service(alexnet=0.0)
    service.closed_loop = {"alexnet": 40.0}
    (network,) = measure(service, "alexnet", budgets=False).networks
    assert network.problem == "no rate held: p99 1,500 ms"
    service = Service(alexnet=40.0)
    service.trouble = lambda run, results: results if run.seed == 8 else results.model_copy(update={"unsent": 1})
    (network,) = measure(service, "alexnet", budgets=False, seed=8).networks
    assert network.problem == "no rate was confirmed"


def interrupted_at(number: int, partial: Results | None) -> Callable[[Run, Results], Results]:
    count = 0

    def trouble(run: Run, results: Results) -> Results:
        nonlocal count
        count += 1
        if count == number:
            raise InterruptedRunError(partial)
        return results

    return trouble


def test_ctrl_c_in_a_step_keeps_what_it_had_measured() -> None:
    service = Service(alexnet=40.0, vgg16=4.0)
    service.trouble = interrupted_at(4, reports.results(partial=True, sent=9, answered=9))
    report = measure(service, "alexnet", "vgg16")
    assert report.pictures == "stopped: interrupted, by caller: True"
    assert report.partial == "interrupted"
    (network,) = report.networks
    assert [step.why_not for step in network.steps] == [None, "interrupted"]
    assert network.problem == "not finished: interrupted"
    assert report.no_budget_run == "not reached: interrupted"


def test_ctrl_c_without_results_leaves_no_step() -> None:
    service = Service(alexnet=40.0)
    service.trouble = interrupted_at(3, None)
    (network,) = measure(service, "alexnet").networks
    assert network.steps == []


def test_ctrl_c_in_the_mix_keeps_what_it_had_measured() -> None:
    service = Service(alexnet=40.0)
    runs = len(measure(service, "alexnet").networks[0].steps) + 3
    by_budget = {"latency_ms=150": {"budget_ms": 150, "sent": 9, "accepted": 7, "refused": 2, "met": 6}}
    service.trouble = interrupted_at(runs, reports.results(partial=True, sent=9, by_budget=by_budget))
    report = measure(service, "alexnet")
    assert report.partial == "interrupted"
    assert report.networks[0].problem is None
    assert report.budget_run is not None
    assert report.no_budget_run is None
    (budget,) = report.budget_run.budgets
    assert (budget.budget_ms, budget.sent, budget.accepted, budget.refused, budget.met) == (150, 9, 7, 2, 6)


def fails(run: Run, results: Results) -> Results:
    raise LocustError("Locust ended with status 3")


def test_a_locust_that_fails_ends_the_load_test_and_says_so() -> None:
    service = Service(alexnet=40.0)
    service.trouble = fails
    report = measure(service, "alexnet")
    assert report.pictures == "stopped: Locust ended with status 3, by caller: False"
    assert report.networks[0].problem == "not finished: Locust ended with status 3"


def test_a_service_that_has_gone_is_the_reason_and_not_what_locust_says() -> None:
    service = Service(alexnet=40.0)
    service.trouble = fails
    service.has_gone = True
    assert measure(service, "alexnet").partial == "nothing answers"


def test_networks_that_were_finished_stay_finished() -> None:
    service = Service(alexnet=40.0, vgg16=-1.0, nin=10.0)
    service.trouble = lambda run, results: fails(run, results) if "nin" in str(run.model) else results
    alexnet, vgg, nin = measure(service, "alexnet", "vgg16", "nin").networks
    assert alexnet.problem is None
    assert vgg.problem == "vgg16@untrained cannot be loaded: too large"
    assert nin.problem == "not finished: Locust ended with status 3"


def test_the_mix_is_counted_by_budget_and_by_network() -> None:
    def mixed(run: Run, results: Results) -> Results:
        if run.user != "BudgetUser":
            return results
        latency_ms = {"count": 7, "p50": 70.0, "p99": 140.0}
        budget = {"budget_ms": 150, "sent": 9, "accepted": 8, "refused": 1, "met": 6, "latency_ms": latency_ms}
        models = {"alexnet": {"pictures": 5}, "googlenet": {"pictures": 2}}
        return reports.results(sent=9, failures={"504": 1}, by_budget={"latency_ms=150": budget}, by_model=models)

    service = Service(alexnet=40.0)
    service.trouble = mixed
    run = measure(service, "alexnet").budget_run
    assert run is not None
    assert (run.sent, run.failed, run.seconds) == (9, 1, 20.0)
    assert run.pictures_by_model == {"alexnet": 5, "googlenet": 2}
    (budget,) = run.budgets
    assert budget.model_dump() == {
        "name": "latency_ms=150",
        "budget_ms": 150.0,
        "sent": 9,
        "accepted": 8,
        "refused": 1,
        "met": 6,
        "p50_ms": 70.0,
        "p99_ms": 140.0,
        "samples": 7,
    }


def test_ctrl_c_in_the_mix_without_results_leaves_no_figures() -> None:
    service = Service(alexnet=40.0)
    runs = len(measure(service, "alexnet").networks[0].steps) + 3
    service.trouble = interrupted_at(runs, None)
    report = measure(service, "alexnet")
    assert (report.partial, report.budget_run) == ("interrupted", None)
    assert report.no_budget_run == "not reached: interrupted"


def test_every_run_but_a_lone_callers_ends_with_a_line() -> None:
    service, watch = Service(alexnet=40.0), Watch()
    (network,) = measure(service, "alexnet", watch=watch).networks
    assert watch.lines[:3] == [
        "alexnet: 8 callers: 40.0 pictures/s",
        "alexnet: 30.0/s: held, p99 900 ms (600 answers)",
        "alexnet: 40.5/s: p99 1,500 ms (810 answers)",
    ]
    assert network.knee is not None
    assert watch.lines[-2].startswith(f"alexnet: {network.knee.rate:.1f}/s: confirmed, p99 900 ms")
    assert watch.lines[-1].startswith("mixed budgets: ")
    assert [step.confirmation for step in network.steps] == [*[False] * (len(network.steps) - 1), True]
