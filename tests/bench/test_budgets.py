"""Which promises a run keeps, by what became of its requests."""

from __future__ import annotations

import os
from typing import Any

import budgets
import pytest
from budgets import burst, overload, rude, steady
from open_loop import Outcome


def many(count: int, status: int, took_ms: float = 50.0, **fields: Any) -> list[Outcome]:
    """The same again and again; predicted and actual times agree."""
    made = {"predicted_ms": 40.0, "actual_ms": 40.0} if status == 200 else {}
    return [Outcome(0.0, "latency_ms=100", 100.0, status, took_ms, **{**made, **fields}) for _ in range(count)]


class Canned:
    """In a bench's place: each phase has had these outcomes, one after the other."""

    port = 0
    pid = os.getpid()

    def __init__(self, *phases: list[Outcome]) -> None:
        self._phases = list(phases)
        self.asked: list[Any] = []

    def run(self, *phases: tuple[float, float], **options: Any) -> list[Outcome]:
        self.asked.append((phases, options))
        return self._phases.pop(0)

    def beside(self, attack: str, port: int, load: tuple[float, float]) -> list[Outcome]:
        return self.run(load, attack=attack)


def bench(*phases: list[Outcome]) -> Any:
    return Canned(*phases)


@pytest.mark.parametrize(
    ("outcomes", "kept"),
    [
        (many(99, 200) + many(1, 504) + many(50, 429) + many(50, 422), True),
        (many(98, 200) + many(2, 504), False),
        (many(98, 200) + many(2, 200, took_ms=101.0), False),
        (many(100, 200, actual_ms=30.0), False),
    ],
)
def test_at_70_percent_of_the_peak_99_in_100_accepted_are_in_time(outcomes: list[Outcome], kept: bool) -> None:
    made = bench(outcomes)
    assert steady(made, 10.0, 60.0) == kept
    assert made.asked == [(((pytest.approx(7.0), 60.0),), {})]


def refused(at: float, told_s: int) -> list[Outcome]:
    """At this moment."""
    (one,) = many(1, 429, 0.0, retry_after_s=told_s)
    one.due = at
    return [one]


@pytest.mark.parametrize(
    ("outcomes", "kept"),
    [
        (refused(0, 8) + refused(2, 8) + refused(4, 8) + many(19, 200, again=True) + many(1, 429, again=True), False),
        # Told 4 s; nobody was refused any more 2 s after the one in the middle.
        (refused(0, 4) + refused(2, 4) + refused(4, 4) + many(19, 200, again=True) + many(1, 504, again=True), True),
        (refused(0, 4) + refused(2, 4) + refused(4, 4) + many(18, 200, again=True) + many(2, 504, again=True), False),
        (many(100, 200) + many(1, 200, took_ms=201.0), False),
        (many(100, 200), True),
    ],
)
def test_after_a_burst_callers_are_told_what_holds(outcomes: list[Outcome], kept: bool) -> None:
    made = bench(outcomes)
    assert burst(made, 10.0, 30.0) == kept
    assert made.asked == [(((30.0, 5.0), (3.0, 30.0)), {"resend": True})]


@pytest.mark.parametrize(
    ("outcomes", "kept"),
    [
        (many(199, 200) + many(1, 504) + many(400, 429), True),
        (many(188, 200) + many(400, 429), False),
        (many(300, 200) + many(2, 504) + many(400, 429), False),
    ],
)
def test_a_minute_of_three_times_as_much_costs_nothing(
    outcomes: list[Outcome], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets.Memory, "mean", lambda self, start, end: 100.0)
    made = bench(outcomes)
    assert overload(made, 3.3, 60.0) == kept  # 95 % of 198 in a minute are 188.1
    assert made.asked == [(((pytest.approx(9.9), 60.0),), {})]


@pytest.mark.parametrize(("beside", "kept"), [(96, True), (94, False)])
def test_the_polite_are_compared_with_themselves_alone(
    beside: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the attacker takes of the machine is shown, and does not count."""
    sinks = []

    class Sink:
        def __init__(self, seconds: float) -> None:
            sinks.append(seconds)

        def __enter__(self) -> int:
            return 1

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(budgets, "sink", Sink)
    phases = [many(share, 200) + many(100 - share, 429) for share in (100, 50, beside)]
    made = bench(*phases)
    assert rude(made, 10.0, 30.0) == kept
    assert [phase for (phase,), _ in made.asked] == 3 * [(5.0, 30.0)]
    assert len(sinks) == 1
