"""The table of results on the console."""

from __future__ import annotations

from typing import Any

from loadtest._measured import Measured
from loadtest._outcomes import Outcome, Picture
from loadtest._requests import BUDGETS, Request
from loadtest._summary import table

LONE = Request("classify", "", "/classify", b"")
BUDGET = Request("budget", "", "/classify", b"", budget=BUDGETS[0])


def results(*, lag_ms: float | None = None, partial: bool = False, bottleneck: bool = False) -> dict[str, Any]:
    measured = Measured()
    for request, outcome, latency_ms in (
        (LONE, Outcome("answered", 200, [Picture("googlenet", 4, 1.0, 2.0, 3.0)]), 20.0),
        (LONE, Outcome("failed", failure="timed out"), 900.0),
        (LONE, Outcome("failed", failure="timed out"), 900.0),
        (BUDGET, Outcome("refused", 429, refusals=["/problems/overloaded"]), 1.0),
    ):
        measured.sent(request, lag_ms)
        measured.ended(request, outcome, latency_ms)
    measured.unsent = 5
    generator = {"cpu_share": 0.5, "bottleneck": bottleneck}
    return {"host": "http://here", "window_s": 2.0, "partial": partial, **measured.results(2.0), "generator": generator}


def test_counts_and_times_stand_in_their_lines() -> None:
    assert table(results()).splitlines() == [
        "",
        "http://here: 2.0 s measured",
        "  requests  4 sent, 1 answered, 1 refused, 2 failed, 0 unanswered, 5 unsent",
        "  pictures  1, 0.5 a second",
        "  latency   p50 20.0 ms, p99 20.0 ms of 1",
        "  googlenet       1 pictures, p50 20.0 ms, p99 20.0 ms of 1, batches of 4.0",
        "  latency_ms=150  0 of 1 met, 1 refused, no times",
        "       1 x /problems/overloaded",
        "       2 x timed out",
    ]


def test_an_open_loop_has_a_lag() -> None:
    assert "  lag       p50 7.0 ms, p99 7.0 ms of 4" in table(results(lag_ms=7.0)).splitlines()


def test_an_interrupted_run_and_a_slow_generator_say_so() -> None:
    assert "http://here: 2.0 s measured, then interrupted" in table(results(partial=True)).splitlines()
    assert "the load generator was the bottleneck" in table(results(bottleneck=True))
    assert "bottleneck" not in table(results())


def test_a_run_without_answers_is_a_table_too() -> None:
    generator = {"cpu_share": None, "bottleneck": False}
    empty = {"host": "h", "window_s": 0.0, "partial": True, **Measured().results(0.0), "generator": generator}
    assert "  latency   no times" in table(empty).splitlines()
