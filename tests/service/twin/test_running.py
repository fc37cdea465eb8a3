"""The twin against queueing theory, and against arithmetic."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from statistics import fmean

import pytest

from models.checkpoints.catalogue import Catalogue
from models.images.cost import price
from service.twin.durations import Durations
from service.twin.report import report
from service.twin.running import NOWHERE, Outcome, device_profiles, due_times, simulate
from service.twin.scenario import PICTURES, Budget, Scenario, ScenarioError
from tests.twins import in_batches, network, profiles_in, scenario

#: Long enough for every queue here.
PATIENT = "latency_ms=3000000"


def lone(folder: Path, forward_ms: float = 20.0, **options: float) -> str:
    """A device that serves one network, one picture at a time."""
    return profiles_in(folder, network("alexnet", forward_ms, **options))


def waited_s(outcome: Outcome) -> float:
    """The mean wait for the device: whoever found it free took no longer than anybody must."""
    took = [sent.took_s for sent in outcome.sent]
    return fmean(took) - min(took)


def test_waits_are_those_of_a_queue_with_equal_services(tmp_path: Path) -> None:
    """M/D/1: utilisation x service / (2 (1 - utilisation)), by Pollaczek and Khinchine."""
    outcome = simulate(
        scenario(lone(tmp_path), PATIENT, policy="constant:alexnet", rate=30.0, seconds=500.0, max_batch_size=1)
    )
    assert len(outcome.sent) == pytest.approx(15_000, rel=0.01)
    assert waited_s(outcome) == pytest.approx(0.6 * 0.02 / (2 * 0.4), rel=0.07)
    assert outcome.busy_s / outcome.simulated_s == pytest.approx(0.6, rel=0.02)


def test_waits_are_those_of_a_queue_with_lognormal_services(tmp_path: Path) -> None:
    """M/G/1: rate x E[S^2] / (2 (1 - utilisation)). A 95th percentile of twice the mean means that ln S has a deviation
    of 0.580 (the smaller root of 1.645 x - x^2 / 2 = ln 2), so that E[S^2] = exp(0.580^2) E[S]^2."""
    device = lone(tmp_path, spread=2.0)
    outcome = simulate(
        scenario(
            device, PATIENT, policy="constant:alexnet", rate=25.0, seconds=800.0, max_batch_size=1, spread=True, seed=2
        )
    )
    service_s = [sent.took_s for sent in outcome.sent]
    waited = fmean(service_s) - 0.02
    assert waited == pytest.approx(25 * math.exp(0.580**2) * 0.02**2 / (2 * 0.5), rel=0.1)


def test_waits_are_those_of_a_queue_with_exponential_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """M/M/1: utilisation x service / (1 - utilisation)."""
    source = random.Random(5)
    monkeypatch.setattr(Durations, "draw", lambda self, size: source.expovariate(1 / self.mean_s(size)))
    outcome = simulate(
        scenario(lone(tmp_path), PATIENT, policy="constant:alexnet", rate=25.0, seconds=800.0, max_batch_size=1)
    )
    assert waited_s(outcome) == pytest.approx(0.5 * 0.02 / 0.5 + 0.02, rel=0.1)  # the shortest service is about 0


def test_two_devices_answer_what_is_too_much_for_one(tmp_path: Path) -> None:
    device = lone(tmp_path)
    options = {"policy": "constant:alexnet", "rate": 75.0, "seconds": 40.0, "max_batch_size": 1, "retries": "never"}
    alone = simulate(scenario(device, "latency_ms=500", **options))
    both = simulate(scenario(device, "latency_ms=500", count=2, **options))
    answered = [sum(sent.reason == "ok" for sent in outcome.sent) for outcome in (alone, both)]
    assert answered[0] == pytest.approx(50 * 40, rel=0.05)
    assert answered[1] == len(both.sent)
    assert both.busy_s == pytest.approx(75 * 40 * 0.02, rel=0.02)


@pytest.mark.parametrize(("shared", "threads", "slower"), [(False, 2, 0.0), (True, 2, 0.5), (True, 0, 0.0)])
def test_a_decode_slows_down_a_pass_on_the_same_cores(
    tmp_path: Path, shared: bool, threads: int, slower: float
) -> None:
    """The second picture comes when the first one's pass begins. While it is decoded, three threads share two cores, so
    that its decode and what the pass does meanwhile take half as long again. A GPU's passes use no cores."""
    photograph = PICTURES["photograph"]
    preprocess = Catalogue(NOWHERE, untrained=True).find("alexnet").preprocess
    decode_s, pass_s = price(photograph.outline, preprocess).seconds, 0.1
    trace = tmp_path / "trace.csv"
    trace.write_text(f"seconds\n0\n{decode_s!r}\n")
    device = lone(tmp_path, 1000 * pass_s, threads=threads)
    asked = scenario(device, PATIENT, policy="constant:alexnet", max_batch_size=1, arrivals="trace", trace=trace)
    mix = (Budget(query=PATIENT, picture=photograph),)
    first, second = sorted(simulate(asked.but(shared=shared, mix=mix)).sent, key=lambda sent: sent.due)
    assert first.took_s == pytest.approx((1 + slower) * decode_s + pass_s)
    assert second.took_s == pytest.approx(2 * pass_s + slower * decode_s)


def test_a_device_may_be_slower_than_its_profile_and_the_router_learns_it(tmp_path: Path) -> None:
    """Passes of 20 ms by the profile take 60. Of ten pictures a second six in ten find the device busy, and most
    of these cannot be answered within 100 ms, though by the profile they could: once that is learned, they are sent
    away."""
    device = lone(tmp_path)
    asked = scenario(device, "latency_ms=100", rate=10.0, seconds=100.0, max_batch_size=1, retries="never")
    slow = asked.but(device=(asked.device[0].model_copy(update={"pace": {"alexnet": 3.0}}),))
    usual, found = report(simulate(asked)).total, simulate(slow)
    assert usual.attainment > 0.98
    assert min(sent.took_s for sent in found.sent if sent.reason == "ok") == pytest.approx(0.06, abs=0.002)
    assert report(found).total.attainment_accepted > 0.9
    assert 0.4 < report(found).total.attainment < 0.8


def test_decodes_may_take_longer_than_their_price(tmp_path: Path) -> None:
    mix = (Budget(query=PATIENT, picture=PICTURES["photograph"]),)
    asked = scenario(lone(tmp_path), PATIENT, policy="constant:alexnet", rate=0.5, seconds=20.0).but(mix=mix)
    took = [simulate(asked.but(decode_pace=pace)).sent[0].took_s for pace in (1.0, 3.0, 5.0)]
    assert took[2] - took[1] == pytest.approx(took[1] - took[0])
    assert took[1] - took[0] > 0.001


def test_batches_answer_more_than_single_pictures(tmp_path: Path) -> None:
    """Four take as long as one and a half."""
    device = profiles_in(tmp_path, in_batches("alexnet", {1: 20.0, 4: 30.0}))
    options = {"policy": "constant:alexnet", "rate": 100.0, "seconds": 20.0, "retries": "never"}
    single = simulate(scenario(device, "latency_ms=400", max_batch_size=1, **options))
    batched = simulate(scenario(device, "latency_ms=400", max_batch_size=4, **options))
    answered = [sum(sent.reason == "ok" for sent in outcome.sent) for outcome in (single, batched)]
    assert answered[0] < 0.55 * len(single.sent)
    assert answered[1] > 0.97 * len(batched.sent)


@pytest.mark.parametrize("policy", ["router", "constant:alexnet", "guarded:alexnet", "infaas"])
def test_nobody_is_lost(tmp_path: Path, policy: str) -> None:
    """Offered = accepted + refused, in each class, far above what the device computes."""
    device = profiles_in(tmp_path, network("alexnet", 20.0), network("googlenet", 40.0))
    asked = scenario(
        device, "latency_ms=200", "latency_ms=90", "model=alexnet", policy=policy, rate=120.0, seconds=10.0
    )
    made = report(simulate(asked))
    due = len(list(due_times(asked)))
    assert made.total.offered == due == sum(figures.offered for figures in made.classes.values())
    for figures in (made.total, *made.classes.values()):
        assert figures.offered == figures.accepted + sum(figures.refused.values())
        assert figures.attained <= figures.accepted
    assert made.total.attained < due


def test_the_same_seed_gives_the_same_report(tmp_path: Path) -> None:
    device = profiles_in(tmp_path, network("alexnet", 20.0, spread=1.5), network("googlenet", 40.0, spread=1.5))

    def made(seed: int) -> dict[str, object]:
        fields = {"rate": 60.0, "seconds": 10.0, "spread": True, "seed": seed, "fronts": 2, "count": 2}
        return report(simulate(scenario(device, "latency_ms=200", "latency_ms=90", **fields))).repeatable

    first = made(1)
    assert made(1) == first
    other = made(2)
    assert other.pop("scenario") != first.pop("scenario")
    assert other != first


def test_whoever_is_told_to_come_back_does_so_then_once(tmp_path: Path) -> None:
    asked = scenario(lone(tmp_path), "latency_ms=200", rate=100.0, seconds=10.0, max_batch_size=1)
    outcome = simulate(asked)
    again = sorted(sent.due for sent in outcome.sent if sent.tries == 2)
    told = sorted(
        sent.due + sent.took_s + sent.told_s for sent in outcome.sent if sent.tries == 1 and sent.told_s is not None
    )
    assert len(again) > 100
    assert again == pytest.approx(told)
    assert {sent.tries for sent in outcome.sent} == {1, 2}
    assert all(sent.told_s == round(sent.told_s) >= 1 for sent in outcome.sent if sent.told_s is not None)


def test_callers_may_give_up_or_insist(tmp_path: Path) -> None:
    asked = scenario(lone(tmp_path), "latency_ms=200", rate=100.0, seconds=10.0, max_batch_size=1)
    assert {sent.tries for sent in simulate(asked.but(retries="never")).sent} == {1}
    insisting = Counter(sent.tries for sent in simulate(asked.but(retries="ignore")).sent)
    assert max(insisting) == 10
    assert list(insisting.values()) == sorted(insisting.values(), reverse=True)


def test_networks_take_turns_in_memory_that_has_room_for_one(tmp_path: Path) -> None:
    """Each load takes half a second, so that it pays to answer several pictures before the next."""
    device = profiles_in(
        tmp_path,
        network("alexnet", 5.0, footprint_mb=100, load_ms=500),
        network("googlenet", 5.0, footprint_mb=100, load_ms=500),
    )
    asked = scenario(device, "model=alexnet", "model=googlenet", rate=2.0, seconds=60.0, memory_mb=150)
    narrow, wide = simulate(asked), simulate(asked.but(device=(asked.device[0].model_copy(update={"memory_mb": 250}),)))
    assert wide.evictions == wide.loads == 0
    assert narrow.evictions > 10
    # One of the two is in memory at the end, as at the beginning.
    assert abs(narrow.loads - narrow.evictions) <= 1
    assert max(sent.took_s for sent in narrow.sent) > 0.5 > max(sent.took_s for sent in wide.sent)


def test_devices_serve_their_own_networks(tmp_path: Path) -> None:
    device = profiles_in(tmp_path, network("alexnet", 5.0), network("googlenet", 5.0))
    outcome = simulate(scenario(device, "latency_ms=900", variants=("alexnet",), rate=5.0, seconds=10.0))
    assert {sent.model for sent in outcome.sent} == {"alexnet"}


def test_rows_come_as_often_as_their_weights_say(tmp_path: Path) -> None:
    asked = scenario(lone(tmp_path, 1.0), PATIENT, "latency_ms=900000", rate=50.0, seconds=60.0)
    heavy = asked.mix[0].model_copy(update={"weight": 3.0})
    rows = Counter(sent.row for sent in simulate(asked.but(mix=(heavy, asked.mix[1]))).sent)
    assert rows[0] / sum(rows.values()) == pytest.approx(0.75, abs=0.03)


def test_arrivals_follow_the_scenario() -> None:
    asked = Scenario(rate=100.0, seconds=30.0, from_s=10, for_s=5, times=3)

    def times(**changes: object) -> list[float]:
        return [at for at, row in due_times(asked.but(**changes)) if row is None]

    steady, step, spike = times(), times(arrivals="step"), times(arrivals="spike")
    assert len(steady) == pytest.approx(3000, rel=0.02)
    assert len(step) == pytest.approx(1000 + 3 * 2000, rel=0.02)
    assert len(spike) == pytest.approx(1000 + 3 * 500 + 1500, rel=0.02)
    assert len(times(arrivals="gamma")) == pytest.approx(3000, rel=0.1)
    assert len(times(arrivals="markov", seconds=2000)) == pytest.approx(200_000, rel=0.1)
    assert max(*steady, *step, *spike) < 30


def test_a_trace_may_name_the_classes(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    asked = Scenario(arrivals="trace", trace=trace, seconds=30.0)
    label = asked.mix[3].label
    trace.write_text(f"seconds,user\n0.5,{label}\n2,\n31,\n")
    assert list(due_times(asked)) == [(0.5, 3), (2.0, None)]
    for content, said in (("seconds\n", "there are no requests"), ("seconds,user\n1,stranger\n", "user is 'stranger'")):
        trace.write_text(content)
        with pytest.raises(ScenarioError, match=said):
            due_times(asked)


def test_profiles_are_shipped_ones_or_files(tmp_path: Path) -> None:
    assert device_profiles("cpu-2-cores").max_batch_size == 16
    assert device_profiles(lone(tmp_path)).max_batch_size == 16
    with pytest.raises(ScenarioError, match="shipped are cpu-2-cores, nvidia"):
        device_profiles("abacus")


def test_what_was_sent_says_what_became_of_it(tmp_path: Path) -> None:
    outcome = simulate(scenario(lone(tmp_path), "latency_ms=900", rate=1.0, seconds=5.0, max_batch_size=1))
    for sent in outcome.sent:
        assert (sent.row, sent.tries, sent.reason, sent.model, sent.told_s) == (0, 1, "ok", "alexnet", None)
        assert sent.took_s == pytest.approx(0.02, rel=0.1)
        assert sent.top1 == 54.8


def test_a_slower_device_decodes_loads_and_computes_more_slowly(tmp_path: Path) -> None:
    """One picture, alone, whose network is in memory or has to be loaded in the other one's place."""
    options = {"footprint_mb": 30, "load_ms": 500.0}
    file = profiles_in(tmp_path, network("alexnet", 40.0, **options), network("vgg16", 40.0, **options))

    def took_s(model: str, slower: float) -> float:
        asked = scenario(file, f"model={model}&latency_ms=9000", rate=0.5, seconds=4.0, memory_mb=40)
        device = asked.device[0].model_copy(update={"slower": slower})
        return simulate(asked.but(device=(device,))).sent[0].took_s

    for model, least_s in (("alexnet", 0.04), ("vgg16", 0.54)):
        assert took_s(model, 1.0) == pytest.approx(least_s, rel=0.02)
        assert took_s(model, 2.0) == pytest.approx(2 * took_s(model, 1.0))


def test_a_service_without_profiles_guesses(tmp_path: Path) -> None:
    """AlexNet takes a millisecond; its guess, by its 0.7 billion multiply-adds, is above 30 ms."""
    asked = scenario(lone(tmp_path, 1.0), "model=alexnet&latency_ms=20", rate=200.0, seconds=0.5, retries="never")
    unmeasured = asked.but(device=(asked.device[0].model_copy(update={"measured": False}),))
    assert {sent.reason for sent in simulate(asked).sent} == {"ok"}
    assert "overloaded" in {sent.reason for sent in simulate(unmeasured).sent}


def test_a_device_may_be_slower_for_a_time(tmp_path: Path) -> None:
    """Until ten seconds after the first picture is due."""
    asked = scenario(lone(tmp_path, 40.0), PATIENT, rate=1.0, seconds=30.0)
    device = asked.device[0].model_copy(update={"slower": 3.0, "slower_for_s": 10.0})
    for sent in simulate(asked.but(device=(device,))).sent:
        assert sent.took_s >= (0.12 if sent.due < 10 else 0.04)
        assert sent.due < 11 or sent.took_s < 0.09
