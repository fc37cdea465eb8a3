"""Counts add up, and summaries are of values that occurred."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest._measured import Measured, percentile, summary
from loadtest._outcomes import Outcome, Picture, unreachable
from loadtest._requests import BUDGETS, Budget, Kind, Request

VERDICTS = st.sampled_from(["answered", "refused", "failed", "lost"])
KINDS: tuple[Kind, ...] = ("classify", "budget", "bulk", "junk")


def request(kind: Kind = "classify", budget: Budget | None = None) -> Request:
    return Request(kind, "", "/classify", b"", budget=budget)


def answer(*models: str, batch_size: int = 1) -> Outcome:
    return Outcome("answered", 200, [Picture(model, batch_size, 1.0, 2.0, 3.0) for model in models])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.sampled_from([50, 90, 95, 99]))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], percent: int) -> None:
    enough = [v for v in values if sum(other <= v for other in values) * 100 >= percent * len(values)]
    assert percentile(sorted(values), percent) == min(enough)


def test_a_summary_of_nothing_has_no_numbers() -> None:
    assert summary([]) == {"count": 0, "mean": None, "p50": None, "p90": None, "p95": None, "p99": None, "max": None}
    assert summary([3.0, 1.0]) == {"count": 2, "mean": 2.0, "p50": 1.0, "p90": 3.0, "p95": 3.0, "p99": 3.0, "max": 3.0}


@given(st.lists(st.tuples(st.sampled_from(KINDS), VERDICTS), max_size=60))
def test_every_request_is_counted_in_exactly_one_place(requests: list[tuple[Kind, str]]) -> None:
    measured = Measured()
    for kind, verdict in requests:
        measured.sent(request(kind), None)
        if verdict == "answered":
            measured.ended(request(kind), answer("googlenet"), 5.0)
        elif verdict == "refused":
            measured.ended(request(kind), Outcome("refused", 429, refusals=["/problems/overloaded"]), 1.0)
        elif verdict == "failed":
            measured.ended(request(kind), unreachable("connection refused"), 1.0)
    results = measured.results(10.0)
    refused, failed = sum(results["refused"].values()), sum(results["failures"].values())
    assert results["sent"] == len(requests)
    assert results["sent"] == results["answered"] + refused + failed + results["unanswered"]
    assert results["sent"] == sum(user["sent"] for user in results["by_user"].values())
    assert results["pictures_per_second"] == pytest.approx(results["pictures"] / 10)
    assert sum(results["statuses"].values()) == results["answered"] + refused


def test_latency_is_that_of_single_answers_and_pictures_are_all() -> None:
    measured = Measured()
    measured.ended(request(), answer("googlenet", batch_size=1), 10.0)
    measured.ended(request("budget", BUDGETS[0]), answer("vgg16", batch_size=2), 20.0)
    measured.ended(request("bulk"), answer(*["googlenet"] * 8, batch_size=4), 90.0)
    measured.ended(request("junk"), Outcome("answered", 422), 70.0)
    measured.ended(request(), Outcome("refused", 429, refusals=["x"]), 80.0)
    results = measured.results(1.0)
    assert (results["answered"], results["pictures"]) == (4, 10)
    assert results["latency_ms"]["count"] == 2
    assert results["latency_ms"]["max"] == 20.0
    googlenet = results["by_model"]["googlenet"]
    assert (googlenet["pictures"], googlenet["latency_ms"]["max"]) == (9, 10.0)
    assert googlenet["mean_batch_size"] == pytest.approx(33 / 9, abs=1e-3)
    assert results["phases_ms"]["forward"] == {**summary([3.0] * 10)}
    assert results["by_user"]["BulkUser"]["latency_ms"]["p50"] == 90.0


def test_only_an_answer_in_time_meets_a_budget() -> None:
    measured, budget = Measured(), Budget("latency_ms=150", 150)
    ends = [
        (answer("googlenet"), 150.0),
        (answer("googlenet"), 150.1),
        (Outcome("refused", 429, refusals=["/problems/overloaded"]), 1.0),
        (Outcome("failed", 504, failure="504 /problems/deadline-missed"), 1.0),
    ]
    for outcome, latency_ms in ends:
        measured.sent(request("budget", budget), None)
        measured.ended(request("budget", budget), outcome, latency_ms)
    measured.sent(request("budget", budget), None)
    found = measured.results(1.0)["by_budget"]["latency_ms=150"]
    latency = found.pop("latency_ms")
    assert found == {"budget_ms": 150, "sent": 5, "accepted": 3, "refused": 1, "met": 1}
    assert latency["count"] == 2


def test_a_window_of_no_length_has_no_throughput() -> None:
    assert Measured().results(0.0)["pictures_per_second"] == 0.0
    assert math.isfinite(Measured().results(1.0)["pictures_per_second"])


def test_refusals_of_a_bulk_request_count_one_by_one() -> None:
    measured = Measured()
    measured.ended(request("bulk"), Outcome("refused", 200, refusals=["/problems/overloaded"] * 8), 5.0)
    assert measured.results(1.0)["refused"] == {"/problems/overloaded": 8}
    assert measured.results(1.0)["by_user"]["BulkUser"]["refused"] == 1


def test_a_request_that_was_not_late_has_a_lag_of_zero() -> None:
    measured = Measured()
    measured.sent(request(), 0.0)
    measured.sent(request(), None)
    assert measured.results(1.0)["lag_ms"]["count"] == 1


def test_a_summary_has_the_mean_and_not_the_median() -> None:
    found = summary([1.0, 2.0, 9.0])
    assert (found["mean"], found["p50"], found["p90"], found["max"]) == (4.0, 2.0, 9.0, 9.0)
