"""What a run of Locust is asked for, and when the rate of a step held."""

from __future__ import annotations

from typing import Any

import pytest

from loadreport.steps import Plan, as_step, why_not_held
from tests.reports import results

RATE = 10.0


def test_a_step_that_held() -> None:
    assert why_not_held(results(), RATE, 1000) is None
    # A few refusals are allowed.
    assert why_not_held(results(answered=191, refused={"/problems/overloaded": 9}), RATE, 1000) is None
    step = as_step(results(), RATE, Plan(), confirmation=True)
    assert (step.held, step.p99_ms, step.samples, step.confirmation) == (True, 900.0, 200, True)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"latency_ms": {"count": 200, "p99": 1000.1}}, "p99 1,000 ms"),
        ({"failures": {"504 /problems/deadline-missed": 2}}, "2 failed: 2 x 504 /problems/deadline-missed"),
        ({"unanswered": 3}, "0 not sent, 3 not answered in time"),
        ({"unsent": 1}, "1 not sent, 0 not answered in time"),
        (
            {"answered": 189, "refused": {"/problems/overloaded": 11}},
            "189 of 200 answered (11 x /problems/overloaded)",
        ),
        ({"answered": 0, "latency_ms": {"count": 0}}, "nothing was answered"),
        ({"sent": 100, "answered": 100}, "only 100 of about 200 requests were due"),
    ],
)
def test_why_a_step_did_not_hold(changes: dict[str, Any], why: str) -> None:
    assert why_not_held(results(**changes), RATE, 1000) == why
    step = as_step(results(**changes), RATE, Plan(), confirmation=False)
    assert step.generator_bound == ("were due" in why)


def test_a_step_holds_at_its_limits() -> None:
    at_the_limit = {"count": 200, "p50": 100.0, "p99": 1000.0}
    assert why_not_held(results(latency_ms=at_the_limit), RATE, 1000) is None
    # 95 % of 200 requests.
    assert why_not_held(results(answered=190, refused={"/problems/overloaded": 10}), RATE, 1000) is None


def test_a_poisson_process_may_have_few_arrivals_by_chance() -> None:
    """400 arrivals are expected, with a standard deviation of 20: five of those fewer are still chance."""
    expected = {"window_s": 40.0}
    assert why_not_held(results(**expected, sent=300, answered=300), RATE, 1000) is None
    assert why_not_held(results(**expected, sent=299, answered=299), RATE, 1000) is not None
    # What was due but not sent had arrived, too.
    short = why_not_held(results(**expected, sent=299, unsent=1, answered=299), RATE, 1000)
    assert short == "1 not sent, 0 not answered in time"


@pytest.mark.parametrize("weak", [{"lag_ms": {"count": 200, "p99": 51.0}}, {"generator": {"bottleneck": True}}])
def test_a_generator_that_sends_late_is_a_reason_only_where_a_rate_did_not_hold(weak: dict[str, Any]) -> None:
    """Latency counts from when a request was due, so that late sending hides nothing."""
    held = as_step(results(**weak), RATE, Plan(), confirmation=False)
    slow = as_step(results(**weak, latency_ms={"count": 200, "p99": 1500.0}), RATE, Plan(), confirmation=False)
    assert (held.held, held.generator_bound) == (True, False)
    assert (slow.held, slow.generator_bound) == (False, True)


def test_a_lag_of_five_percent_of_the_limit_is_not_late() -> None:
    slow = {"latency_ms": {"count": 200, "p99": 1500.0}}
    for lag_ms, bound in ((50.0, False), (50.1, True)):
        step = as_step(results(**slow, lag_ms={"count": 200, "p99": lag_ms}), RATE, Plan(), confirmation=False)
        assert step.generator_bound == bound


def test_a_closed_loop_lasts_for_four_rounds_within_bounds() -> None:
    plan = Plan(seconds=15)
    assert [plan.probe("a", 8, alone_ms).seconds for alone_ms in (0.0, 10.0, 700.0, 9000.0)] == [6, 6, 23, 60]


def test_mixed_budgets_last_until_there_are_enough_of_them() -> None:
    assert [Plan(seconds=15).mixed(rate).seconds for rate in (200, 10, 1)] == [30, 60, 120]


def test_steps_last_until_there_are_enough_arrivals() -> None:
    plan = Plan(seconds=15)
    assert [plan.step("a", rate, 0).seconds for rate in (100, 4, 2, 0.1)] == [15, 15, 30, 120]
    assert [plan.step("a", rate, 1).seconds for rate in (100, 4, 2, 0.1)] == [30, 50, 100, 120]
    assert Plan(seconds=300).step("a", 1, 0).seconds == 300


def test_looks_share_their_arrivals_and_confirmations_have_others() -> None:
    plan = Plan(seed=8)
    assert [plan.step("a", 10, confirmation).seed for confirmation in (0, 0, 1, 2)] == [8, 8, 9, 10]


@pytest.mark.parametrize(("rate", "pool"), [(1, 10), (10, 28), (1000, 400)])
def test_the_pool_is_twice_as_large_as_the_limit_allows_in_flight(rate: float, pool: int) -> None:
    assert Plan(p99_limit_ms=1000).step("a", rate, 0).users == pool


def test_the_warm_up_is_two_seconds_or_a_quarter_of_a_short_step() -> None:
    assert [Plan(seconds=seconds).step("a", 10, 0).warm_up_s for seconds in (15, 8, 1)] == [2, 2, 0.25]


def test_what_locust_is_told() -> None:
    plan = Plan(seconds=15, seed=3, pictures="digits")
    options = plan.step("googlenet@untrained", 12.345678, 0).options()
    assert options[-1] == "ClassifyUser"
    pairs = dict(zip(options[:-1:2], options[1:-1:2], strict=True))
    assert pairs == {
        "--users": "33",
        "--spawn-rate": "33",
        "--run-time": "17s",
        "--warm-up": "2",
        "--seed": "3",
        "--arrivals": "poisson",
        "--rate": "12.3457",
        "--model": "googlenet@untrained",
        "--pictures": "digits",
    }
    closed = plan.probe("a", 8).options()
    assert "--rate" not in closed
    assert closed[closed.index("--arrivals") + 1] == "closed"
    assert plan.mixed(5).options()[-1] == "BudgetUser"
    assert "--model" not in plan.mixed(5).options()
