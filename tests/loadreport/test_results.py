"""The results file, as the load generator writes it and the report reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadreport.results import ResultsError, read_results
from loadtest._measured import Measured
from loadtest._outcomes import Outcome, Picture
from loadtest._requests import BUDGETS, Request
from tests.reports import results


def test_files_that_are_not_results_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(ResultsError, match="no results"):
        read_results(path)
    for text in ("", "[]", '{"format": 1}', '{"format": 2}'):
        path.write_text(text)
        with pytest.raises(ResultsError, match="an unknown form") as told:
            read_results(path)
        assert "\n" not in str(told.value)


def test_what_the_generator_counts_is_what_the_report_reads(tmp_path: Path) -> None:
    measured = Measured()
    lone = Request("classify", "", "/classify", b"")
    budget = Request("budget", "", "/classify", b"", budget=BUDGETS[0])
    answer = Outcome("answered", 200, [Picture("googlenet", 3, 1.0, 2.0, 30.0)])
    for request, outcome, latency_ms in (
        (lone, answer, 40.0),
        (lone, Outcome("failed", 504, failure="504 /problems/deadline-missed"), 90.0),
        (budget, answer, 60.0),
        (budget, Outcome("refused", 429, refusals=["/problems/overloaded"]), 1.0),
    ):
        measured.sent(request, 0.5)
        measured.ended(request, outcome, latency_ms)
    measured.sent(lone, 0.5)
    measured.unsent = 7
    written = measured.results(2.0)
    path = tmp_path / "results.json"
    generator = {"cpu_share": 0.5, "bottleneck": True}
    path.write_text(json.dumps({"format": 1, "partial": True, "window_s": 2.0, **written, "generator": generator}))
    found = read_results(path)
    assert (found.sent, found.answered, found.failed, found.unsent, found.unanswered) == (5, 2, 1, 7, 1)
    assert (found.pictures, found.pictures_per_second, found.mean_batch_size) == (2, 1.0, 3.0)
    assert (found.latency_ms.count, found.latency_ms.p50, found.latency_ms.p99) == (2, 40.0, 60.0)
    assert found.lag_ms.p99 == 0.5
    assert {name: phase.p50 for name, phase in found.phases_ms.items()} == {
        "decode": 1.0,
        "queue": 2.0,
        "forward": 30.0,
    }
    assert found.refused == {"/problems/overloaded": 1}
    tally = found.by_budget[BUDGETS[0].query]
    assert (tally.budget_ms, tally.sent, tally.accepted, tally.refused, tally.met) == (150, 2, 1, 1, 1)
    assert (found.partial, found.generator.bottleneck) == (True, True)


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(results().model_dump_json())
    assert read_results(path) == results()
    path.write_text(results().model_dump_json().replace('"format":1', '"format":2'))
    with pytest.raises(ResultsError, match="format"):
        read_results(path)


def test_the_batch_size_is_that_of_the_network_that_answered_most() -> None:
    by_model = {
        "alexnet": {"pictures": 3, "mean_batch_size": 1.0},
        "googlenet": {"pictures": 9, "mean_batch_size": 4.0},
        "vgg16": {"pictures": 1, "mean_batch_size": 8.0},
    }
    assert results(by_model=by_model).mean_batch_size == 4.0
    assert results().mean_batch_size is None


def test_failures_of_all_kinds_add_up() -> None:
    assert results(failures={"503": 2, "connection refused": 3}).failed == 5
    assert results(refused={"/problems/overloaded": 4}).failed == 0
