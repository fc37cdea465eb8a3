"""Baselines choose what they are named for, and never what the caller has ruled out."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.twin.running import Outcome, simulate
from service.twin.scenario import ScenarioError
from tests.twins import network, profiles_in, scenario

#: Top-1, as published: 54.8, 67.8, 74.8 %.
NETWORKS = ("alexnet", "googlenet", "inception_v2")


@pytest.fixture
def device(tmp_path: Path) -> str:
    """AlexNet is slow here, and GoogLeNet large."""
    return profiles_in(
        tmp_path,
        network("alexnet", 40.0, footprint_mb=30),
        network("googlenet", 20.0, footprint_mb=300),
        network("inception_v2", 80.0, footprint_mb=100),
    )


def run(device: str, policy: str, *queries: str, **fields: object) -> Outcome:
    return simulate(scenario(device, *queries, **{"policy": policy, "rate": 2.0, "seconds": 20.0, **fields}))


def answers(outcome: Outcome, row: int = 0) -> set[tuple[str, str]]:
    return {(sent.reason, sent.model) for sent in outcome.sent if sent.row == row}


def test_a_constant_policy_answers_with_its_network(device: str) -> None:
    assert answers(run(device, "constant:alexnet", "latency_ms=9000")) == {("ok", "alexnet")}


def test_whoever_names_a_network_gets_it(device: str) -> None:
    for policy in ("router", "constant:alexnet", "guarded:alexnet", "infaas"):
        assert answers(run(device, policy, "model=googlenet&latency_ms=9000")) == {("ok", "googlenet")}


@pytest.mark.parametrize("query", ["min_top1=60", "memory_mb=20"])
def test_a_constant_policy_refuses_what_the_caller_has_ruled_out(device: str, query: str) -> None:
    assert answers(run(device, "constant:alexnet", query)) == {("no-model-fits", "")}


def test_a_constant_policy_lets_everybody_in_and_a_guarded_one_does_not(device: str) -> None:
    """Three times what AlexNet computes: whoever was let in too late is dropped when its time is over."""
    options = {"rate": 75.0, "seconds": 4.0, "max_batch_size": 1, "retries": "never"}
    assert answers(run(device, "constant:alexnet", "latency_ms=400", **options)) == {
        ("ok", "alexnet"),
        ("deadline-missed", "alexnet"),
    }
    assert {reason for reason, _ in answers(run(device, "guarded:alexnet", "latency_ms=400", **options))} == {
        "ok",
        "overloaded",
    }


def test_infaas_takes_the_cheapest_that_fits_by_its_profile(device: str) -> None:
    """The fastest of all, if it is allowed; then the next."""
    queries = ("latency_ms=9000", "latency_ms=9000&memory_mb=200", "latency_ms=9000&min_top1=70", "latency_ms=10")
    outcome = run(device, "infaas", *queries)
    assert answers(outcome, 0) == {("ok", "googlenet")}
    assert answers(outcome, 1) == {("ok", "alexnet")}
    assert answers(outcome, 2) == {("ok", "inception_v2")}
    assert answers(outcome, 3) == {("no-model-fits", "")}


def test_infaas_is_blind_to_queues(device: str) -> None:
    outcome = run(device, "infaas", "latency_ms=300", rate=200.0, seconds=3.0, max_batch_size=1, retries="never")
    assert {model for _, model in answers(outcome)} == {"googlenet"}
    assert {reason for reason, _ in answers(outcome)} == {"ok", "deadline-missed"}


def test_classes_may_have_a_network_each(device: str) -> None:
    policy = "classes:alexnet,-,inception_v2"
    outcome = run(device, policy, "latency_ms=9000", "model=googlenet", "latency_ms=8000")
    assert [answers(outcome, row) for row in range(3)] == [
        {("ok", "alexnet")},
        {("ok", "googlenet")},
        {("ok", "inception_v2")},
    ]


def test_the_router_takes_the_most_accurate_that_fits(device: str) -> None:
    outcome = run(device, "router", "latency_ms=9000", "latency_ms=60")
    assert answers(outcome, 0) == {("ok", "inception_v2")}
    assert answers(outcome, 1) <= {("ok", "googlenet"), ("overloaded", "")}


def test_each_decision_is_timed_and_noted(device: str) -> None:
    outcome = run(device, "router", "latency_ms=9000")
    assert len(outcome.decisions_s) == len(outcome.sent)
    assert all(0 < seconds < 1 for seconds in outcome.decisions_s)
    (choices,) = outcome.choices
    assert choices == [(0, "inception_v2")] * len(outcome.sent)


@pytest.mark.parametrize(
    "policy", ["", "clever", "router:fast", "infaas:x", "constant:", "constant:resnet50", "classes:alexnet,alexnet"]
)
def test_unknown_policies_are_refused(device: str, policy: str) -> None:
    with pytest.raises(ScenarioError):
        run(device, policy, "latency_ms=9000")


@pytest.fixture
def two(tmp_path: Path) -> str:
    """VGG-16 is accurate (71.6 %) and answers a dozen pictures a second, AlexNet a hundred."""
    return profiles_in(tmp_path, network("alexnet", 10.0), network("vgg16", 80.0))


def test_callers_are_answered_by_a_smaller_network_before_others_are_refused(two: str) -> None:
    """Five times what VGG-16 computes, half of what AlexNet does."""

    def share(policy: str) -> float:
        outcome = run(two, policy, "latency_ms=400", rate=50.0, seconds=60.0, retries="never")
        return sum(sent.reason == "ok" for sent in outcome.sent) / len(outcome.sent)

    assert share("constant:vgg16") < 0.4
    assert share("guarded:vgg16") < 0.4
    assert share("router") > 0.97


def test_whoever_needs_the_accuracy_gets_it_all_the_same(two: str) -> None:
    queries = ("latency_ms=400", "latency_ms=1000&min_top1=70")
    outcome = run(two, "router", *queries, rate=16.0, seconds=60.0, retries="never")
    assert {model for reason, model in answers(outcome, 1) if reason == "ok"} == {"vgg16"}
    for row in (0, 1):
        reasons = [sent.reason for sent in outcome.sent if sent.row == row]
        assert reasons.count("ok") / len(reasons) > 0.9


def test_after_a_rush_the_accurate_network_answers_again(two: str) -> None:
    """Ten seconds of six times the rate at which VGG-16 answers everybody. The price that they leave is gone a minute
    later, and in between no caller is answered worse than by AlexNet."""
    rush = {"arrivals": "spike", "times": 12.0, "from_s": 20.0, "for_s": 10.0, "seconds": 150.0, "rate": 5.0}
    outcome = run(two, "router", "latency_ms=400", retries="never", **rush)

    def accurate(since: float, until: float) -> float:
        models = [sent.model for sent in outcome.sent if since <= sent.due < until and sent.reason == "ok"]
        return models.count("vgg16") / len(models)

    assert accurate(0, 20) > 0.9
    assert accurate(24, 30) < 0.2
    assert accurate(110, 150) > 0.9
