"""The best constant networks are those that trying by hand finds."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from service.twin.best import _searched, best_constant, candidates
from service.twin.report import report
from service.twin.running import simulate
from service.twin.scenario import Budget, Scenario
from tests.twins import network, profiles_in, scenario


@pytest.fixture
def device(tmp_path: Path) -> str:
    """Accuracy has its price; GoogLeNet is beaten by its successor, which is as fast."""
    return profiles_in(
        tmp_path,
        network("alexnet", 10.0),
        network("googlenet", 25.0),
        network("inception_v2", 25.0),
        network("inception_v3", 60.0),
    )


@pytest.mark.parametrize(("rate", "guarded"), [(5.0, False), (22.0, False), (60.0, False), (22.0, True)])
def test_it_is_what_trying_all_finds(device: str, rate: float, guarded: bool) -> None:
    """Attainment in whole percents first, then the mean accuracy; each picture counts once."""
    asked = scenario(
        device, "latency_ms=150", "latency_ms=900&min_top1=60", rate=rate, seconds=10.0, retries="never"
    ).but(seed=3)
    kind = "guarded-classes" if guarded else "classes"
    tried = {}
    for names in itertools.product(("alexnet", "googlenet", "inception_v2", "inception_v3"), repeat=2):
        policy = f"{kind}:{','.join(names)}"
        sent = simulate(asked.but(policy=policy)).sent
        good = [s for s in sent if s.reason == "ok"]
        tried[policy] = round(len(good) / len(sent), 2), round(sum(s.top1 for s in good) / max(1, len(good)), 6)
    found = best_constant(asked, guarded=guarded).policy
    assert tried[found] == max(tried.values())


def test_more_load_asks_for_smaller_networks(device: str) -> None:
    chosen = [best_constant(scenario(device, "latency_ms=400", rate=rate, seconds=20.0)).policy for rate in (5, 30, 80)]
    assert chosen == ["classes:inception_v3", "classes:inception_v2", "classes:alexnet"]


def test_many_classes_are_searched_one_at_a_time(device: str) -> None:
    """Five classes have 243 combinations. With little load, each gets the most accurate that it allows."""
    queries = ("latency_ms=900", "latency_ms=901", "latency_ms=902", "latency_ms=40", "latency_ms=904", "model=alexnet")
    found = best_constant(scenario(device, *queries, rate=2.0, seconds=20.0)).policy
    assert found == "classes:inception_v3,inception_v3,inception_v3,inception_v2,inception_v3,-"


def test_one_change_may_make_another_one_worthwhile() -> None:
    """The first class gains nothing before the last has changed."""
    table = {("a", "d", "a"): 3, ("a", "d", "b"): 4, ("c", "d", "b"): 5}
    choices = [["a", "c"], ["a", "d"], ["a", "b"]]
    assert _searched(choices, lambda names: (table.get(names, 0), 0)) == ("c", "d", "b")


def test_candidates_are_what_the_class_allows_or_what_nothing_beats(device: str) -> None:
    def of(query: str) -> list[str]:
        return candidates(scenario(device, query), Budget(query=query), front=True)

    assert candidates(scenario(device, ""), Budget(query="")) == [
        "inception_v3",
        "inception_v2",
        "googlenet",
        "alexnet",
    ]
    assert of("") == ["inception_v3", "inception_v2", "alexnet"]
    assert of("min_top1=70") == ["inception_v3", "inception_v2"]
    assert of("model=googlenet") == ["-"]
    assert len(of("memory_mb=0.5")) == 1


def test_what_is_tried_is_a_part_of_a_long_scenario(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lasted: list[float] = []

    def noted(asked: Scenario) -> object:
        lasted.append(asked.seconds)
        return simulate(asked.but(seconds=1.0))

    monkeypatch.setattr("service.twin.best.simulate", noted)
    found = best_constant(scenario(device, "latency_ms=400", rate=50.0, seconds=86_400.0))
    assert set(lasted) == {20.0}
    assert found.seconds == 86_400


def test_the_report_of_the_best_is_like_any_other(device: str) -> None:
    found = best_constant(scenario(device, "latency_ms=400", rate=5.0, seconds=10.0))
    assert list(report(simulate(found)).total.networks) == ["inception_v3"]
