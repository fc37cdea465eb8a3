"""A comparison has every policy under every load, each with the same pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.twin import comparison
from service.twin.comparison import POLICIES, Comparison, Point, compare, markdown, peak_of, resolved
from service.twin.running import simulate
from service.twin.scenario import Scenario
from tests.pages import table
from tests.twins import network, profiles_in, scenario


@pytest.fixture
def device(tmp_path: Path) -> str:
    return profiles_in(tmp_path, network("alexnet", 10.0), network("vgg16", 60.0))


def test_the_peak_is_what_the_device_answers(device: str) -> None:
    """One network, one at a time, whose time is 10 ms, and a budget in which twenty can wait."""
    asked = scenario(device, "latency_ms=200", variants=("alexnet",), max_batch_size=1, rate=20.0)
    assert peak_of(asked) == pytest.approx(100, rel=0.05)


def test_the_best_constant_stands_for_networks(device: str) -> None:
    asked = scenario(device, "latency_ms=500", rate=2.0, seconds=10.0)
    assert resolved(asked.but(policy="best-constant")).policy == "classes:vgg16"
    assert resolved(asked.but(policy="best-guarded")).policy == "guarded-classes:vgg16"
    assert resolved(asked.but(policy="infaas")).policy == "infaas"


def test_every_policy_is_under_every_load(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_LEAST_S", 3.0)
    monkeypatch.setattr(comparison, "_PICTURES", 50.0)
    monkeypatch.setattr(comparison, "ProcessPoolExecutor", Here)
    ran: list[Scenario] = []
    monkeypatch.setattr(comparison, "simulate", lambda asked: ran.append(asked) or simulate(asked))
    ended: list[tuple[int, int]] = []
    found = compare(
        scenario(device, "latency_ms=300", rate=4.0),
        loads=(0.1, 2.0),
        arrivals=("poisson", "markov"),
        cases=2,
        ended=lambda *counts: ended.append(counts),
    )
    assert [(p.arrivals, p.load, p.policy) for p in found.points] == [
        (kind, load, policy) for kind in ("poisson", "markov") for load in (0.1, 2.0) for policy in POLICIES
    ]
    assert ended == [(n, 24) for n in range(1, 25)]
    assert all(p.rate == pytest.approx(found.peak * p.load) for p in found.points)
    at = {(p.load, p.policy): p for p in found.points if p.arrivals == "poisson"}
    assert at[0.1, "constant:alexnet"].attainment == 1 > at[2.0, "constant:vgg16"].attainment
    assert at[0.1, "best-constant"].stands_for == "classes:vgg16"
    # What is refused is gone: otherwise each policy would get other pictures.
    assert {asked.retries for asked in ran} == {"never"}
    assert {asked.seed for asked in ran} == {1}
    assert list(found.regrets) == ["router", "infaas"]
    assert found.regrets["router"]["cases"] == 2


class Here:
    """A pool that works here, where the tests have changed things."""

    def __init__(self, *_arguments: object) -> None: ...

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_error: object) -> None: ...

    def submit(self, work, *arguments):  # type: ignore[no-untyped-def]
        class Done:
            @staticmethod
            def result():  # type: ignore[no-untyped-def]
                return work(*arguments)

        return Done()

    map = staticmethod(map)


def test_the_page_has_a_cell_for_each_run(device: str) -> None:
    def point(policy: str, load: float, attainment: float) -> Point:
        return Point(
            arrivals="gamma",
            load=load,
            rate=9.0,
            policy=policy,
            stands_for=policy,
            attainment=attainment,
            attainment_accepted=1.0,
            top1=60.04,
            goodput=4.0,
            flips=0,
        )

    points = [point("router", 0.5, 0.999), point("router", 2.0, 0.5), point("infaas", 2.0, 0.25)]
    regrets = {
        "router": {"cases": 9, "median": 0, "mean": 0.01, "p95": 0.25, "as_many": 0.9, "top1": 70, "top1_oracle": 71.5}
    }
    page = markdown(Comparison(scenario=scenario(device, ""), peak=18.0, points=points, regrets=regrets))
    assert "The peak is 18.0 pictures a second." in page
    assert table(page, "gamma arrivals") == [["router", "99.9%, 60.0", "50.0%, 60.0"], ["infaas", "", "25.0%, 60.0"]]
    assert table(page, "regret to the oracle") == [["router", "9", "0.0%", "1.0%", "25.0%", "90.0%", "70.00", "71.50"]]
