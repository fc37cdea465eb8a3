"""No policy does better than the oracle, and each regret is what it should be."""

from __future__ import annotations

import pytest

from service.twin.oracle import Best
from service.twin.regret import Regret, regret, small_case, summary


@pytest.mark.parametrize("seed", range(25))
def test_nobody_beats_the_oracle(seed: int) -> None:
    case = small_case(seed)
    for policy in ("router", "infaas"):
        found = regret(case, policy)
        assert found.pictures == len(case.pictures) == len(case.scenario.mix)
        assert (found.answered, round(found.top1, 6)) <= (found.best.answered, round(found.best.top1, 6))
        assert 0 <= found.attainment <= 1


def test_a_case_is_the_same_each_time() -> None:
    assert small_case(3) == small_case(3)
    assert small_case(3) != small_case(4)
    assert len({len(small_case(seed).pictures) for seed in range(60)}) == 6


def test_the_oracle_and_the_twin_have_the_same_case() -> None:
    """The deadlines are the rows' budgets, and the networks those that they allow."""
    for seed in range(20):
        case = small_case(seed)
        for (at, label), row, picture in zip(case.arrivals, case.scenario.mix, case.pictures, strict=True):
            assert label == row.label
            assert picture.deadline - at == pytest.approx(row.asked.latency_ms / 1000)  # type: ignore[operator]
            least = row.asked.min_top1
            allowed = [n for n, network in enumerate(case.networks) if least is None or network.top1 >= least]
            assert picture.networks == frozenset(allowed)


def test_the_summary_is_that_of_the_cases() -> None:
    """Of four cases: three as good as the oracle's, of which one has lower accuracies, and one with a picture less of
    four."""
    found = summary(
        [
            Regret(2, Best(2, 120.0), 2, 120.0),
            Regret(2, Best(2, 140.0), 2, 120.0),
            Regret(1, Best(0, 0.0), 0, 0.0),
            Regret(4, Best(4, 200.0), 3, 200.0),
        ]
    )
    assert found == {
        "cases": 4,
        "median": 0.0,
        "mean": 0.0625,
        "p95": pytest.approx(0.2125),
        "as_many": 0.75,
        "top1": 60.0,
        "top1_oracle": 65.0,
    }
