"""The figures of a report, by hand."""

from __future__ import annotations

import pytest

from service.twin.report import accepted, report
from service.twin.running import Outcome, Sent
from service.twin.scenario import Budget, Scenario

SCENARIO = Scenario(mix=(Budget(query="latency_ms=100", name="hasty"), Budget(query="", name="patient")))


def sent(row: int = 0, due: float = 0.0, took: float = 0.05, **fields: object) -> Sent:
    fields = {"tries": 1, "reason": "ok", "model": "alexnet", "top1": 50.0, "told_s": None, **fields}
    return Sent(row, due, took_s=took, **fields)  # type: ignore[arg-type]


def refused(due: float, told_s: float | None = 3.0, reason: str = "overloaded", **fields: object) -> Sent:
    return sent(due=due, took=0.0, reason=reason, model="", top1=0.0, told_s=told_s, **fields)


def outcome(*every: Sent, **fields: object) -> Outcome:
    return Outcome(SCENARIO, list(every), simulated_s=10.0, **fields)  # type: ignore[arg-type]


def test_attainment_counts_those_who_came_for_the_first_time() -> None:
    """Of six: one answered in time by 50 %, one by 70 %, one dropped in the queue, two refused, one too late for the
    router. One comes back and is answered."""
    made = report(
        outcome(
            sent(took=0.04),
            sent(took=0.08, model="googlenet", top1=70.0),
            sent(took=0.1, reason="deadline-missed", top1=0.0),
            refused(1.0),
            refused(2.0, None, "no-model-fits"),
            refused(2.0, None, "deadline-missed"),
            sent(due=4.0, tries=2, took=0.06, top1=90.0, model="vgg16"),
        )
    )
    found = made.classes["hasty"]
    assert (found.offered, found.accepted, found.attained) == (6, 3, 2)
    assert found.attainment == pytest.approx(2 / 6)
    assert found.attainment_accepted == pytest.approx(2 / 3)
    assert found.goodput == pytest.approx(3 / 10)
    assert found.top1 == pytest.approx((50 + 70 + 90) / 3)
    assert found.refused == {"deadline-missed": 1, "no-model-fits": 1, "overloaded": 1}
    assert (found.came_back, found.kept) == (1, 1.0)
    assert found.networks == {name: pytest.approx(1 / 3) for name in ("alexnet", "googlenet", "vgg16")}
    assert (found.p50_ms, found.p95_ms) == (pytest.approx(60), pytest.approx(78))
    assert made.total == found
    nobody = made.classes["patient"]
    assert (nobody.offered, nobody.attainment, nobody.top1, nobody.p95_ms) == (0, 0.0, 0.0, 0.0)


def test_an_answer_after_its_budget_does_not_count() -> None:
    made = report(outcome(sent(took=0.1), sent(took=0.101), sent(row=1, took=29.0)))
    assert made.classes["hasty"].attained == 1
    assert made.classes["patient"].attained == 1
    assert made.total.attainment == pytest.approx(2 / 3)


def test_who_comes_back_in_vain_has_not_been_told_well() -> None:
    again = sent(due=9.0, tries=2, reason="deadline-missed", top1=0.0)
    assert report(outcome(refused(1.0), refused(2.0), again, sent(due=9.0, tries=2))).total.kept == 0.5


def test_a_wave_of_refusals_ends_before_two_calm_seconds() -> None:
    """Waves end at 2.5 and at 9: the refusals at 1, 2, 2.5, 8 and 9 have 1.5, 0.5, 0, 1 and 0 seconds left."""
    made = report(outcome(*(refused(at, told) for at, told in ((1, 4), (2, 5), (2.5, 9), (8, 2), (9, 1)))))
    assert (made.total.told_s, made.total.wave_s) == (4.0, 0.5)


def test_choices_that_change_back_at_once_are_flips() -> None:
    """A A B A C C A: B is undone at once, and C lasts. The other class, and the other owner, do not count."""
    first = [(0, name) for name in "AABACCA"]
    mixed = [pair for choice in first for pair in (choice, (1, "Z"))]
    made = report(outcome(sent(), choices=[mixed, [(0, "B")]]))
    assert (made.classes["hasty"].changes, made.classes["hasty"].flips) == (4, 1)
    assert made.classes["patient"].changes == 0
    assert made.total.flips == 1


def test_devices_are_busy_for_a_share_of_the_time() -> None:
    made = report(outcome(sent(), busy_s=4.0, evictions=3, loads=2, decisions_s=[1e-6, 2e-6, 9e-6]))
    assert (made.busy, made.evictions, made.loads) == (0.4, 3, 2)
    assert made.decision_us == {"p50": pytest.approx(2), "p95": pytest.approx(8.3), "mean": pytest.approx(4)}
    assert "decision_us" not in made.repeatable
    assert made.repeatable["scenario"]["mix"][0]["name"] == "hasty"


@pytest.mark.parametrize(
    ("reason", "model", "expected"),
    [
        ("ok", "alexnet", True),
        ("deadline-missed", "alexnet", True),
        ("deadline-missed", "", False),
        ("overloaded", "alexnet", False),
        ("no-model-fits", "", False),
    ],
)
def test_only_who_was_in_the_queue_was_let_in(reason: str, model: str, expected: bool) -> None:
    assert accepted(sent(reason=reason, model=model)) is expected
