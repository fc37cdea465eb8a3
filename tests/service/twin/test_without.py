"""Each correction that is switched off corrects nothing, and the others go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.config.settings import Settings
from service.domain.decision import LEAST_SAFETY
from service.domain.errors import OverloadedError
from service.profiling.forecast import Forecast
from service.twin.running import Outcome, simulate
from service.twin.scenario import ScenarioError
from service.twin.without import CORRECTIONS, Without
from tests.clock import Clock
from tests.service.profiling.test_forecast import CURVE_S, FLAT, GOOGLENET, MEASURED, SPREAD
from tests.service.routing.test_router import CATALOGUE, QUICK, Placed, decide
from tests.twins import network, profiles_in, scenario

ALEXNET, VGG = CATALOGUE.find("alexnet"), CATALOGUE.find("vgg16")


class Served:
    """A router without some corrections, its clock, its placement and the forecast of one network."""

    def __init__(self, *off: str, profile: object = MEASURED) -> None:
        self.clock, self.placed = Clock(), Placed()
        settings = Settings(cache_dir=Path("/nonexistent"), default_latency_ms=60_000)
        self.router = Without(off, CATALOGUE, self.placed, settings, self.clock)  # type: ignore[arg-type]
        self.forecast = Forecast(GOOGLENET, profile, 16, self.clock)  # type: ignore[arg-type]
        self.router.warmed([self.forecast])

    def batches(self, slower: Callable[[int], float]) -> None:
        for number in range(400):
            self.clock.now += 0.1
            size = (1, 16)[number % 2]
            expected_s = self.forecast.profiled_s(size)
            assert expected_s is not None
            self.forecast.learn(size, slower(size) * expected_s)

    def decodes(self) -> float:
        for _ in range(400):
            self.forecast.learn_decode(100_000, 0.024)
        return self.forecast.decode_s(100_000)[0]


def test_without_the_spread_a_pass_takes_its_mean() -> None:
    served = Served("spread")
    assert served.forecast.forward_s == pytest.approx(CURVE_S[:17])
    assert served.forecast.profiled_forward_s == pytest.approx(CURVE_S[1])
    assert Served("trials").forecast.forward_s == pytest.approx([SPREAD * seconds for seconds in CURVE_S[:17]])


def test_without_passes_nothing_is_learned_from_them() -> None:
    served, whole = Served("passes", "spread"), Served("decodes", "spread")
    for one in (served, whole):
        one.batches(lambda _: 3.0)
    assert served.forecast.forward_s == pytest.approx(CURVE_S[:17])
    assert served.decodes() == pytest.approx(0.024, rel=0.01)
    assert whole.forecast.forward_s[16] > 2.5 * CURVE_S[16]


def test_without_decodes_nothing_is_learned_from_them() -> None:
    assert Served("decodes").decodes() == pytest.approx(0.008)
    assert Served("passes").decodes() == pytest.approx(0.024, rel=0.01)


def test_without_fading_nothing_is_forgotten_in_quiet_times() -> None:
    served, whole = (Served(*off, profile=FLAT) for off in (("fading",), ("price",)))
    for one in (served, whole):
        one.batches(lambda _: 3.0)
        one.router.safety(ALEXNET).learn(1.0, 9.0, late=True)
        one.clock.now += 10
    assert served.forecast.forward_s[1] > 2.5 * 0.01 * SPREAD
    assert whole.forecast.forward_s[1] == pytest.approx(0.01 * SPREAD)
    assert served.router.safety(ALEXNET).factor > LEAST_SAFETY == whole.router.safety(ALEXNET).factor


def test_without_safety_late_answers_raise_no_factor() -> None:
    served, whole = Served("safety"), Served("trials")
    for one in (served, whole):
        for _ in range(5):
            one.router.safety(ALEXNET).learn(1.0, 9.0, late=True)
    assert served.router.safety(ALEXNET).factor == LEAST_SAFETY
    assert whole.router.safety(ALEXNET).factor == pytest.approx(LEAST_SAFETY + 0.5)
    assert whole.router.safety(VGG).factor == LEAST_SAFETY
    assert served.router.safety(ALEXNET).trial
    assert not whole.router.safety(ALEXNET).trial


def behind_another(*off: str) -> None:
    """A picture with an earlier deadline would take what another one has to spare."""
    served = Served(*off)
    patient = decide(served.router, served.clock, model="googlenet", latency_ms=175)
    with served.router.admit(patient, served.clock.now + 0.175):
        decide(served.router, served.clock, model="googlenet", latency_ms=150)


def test_without_promises_others_may_be_made_late() -> None:
    behind_another("promises")
    with pytest.raises(OverloadedError, match="make pictures late"):
        behind_another("price")


def test_without_last_choices_and_price_nothing_is_remembered_of_decisions() -> None:
    served, whole = Served("last choice", "price"), Served("passes")
    for one in (served, whole):
        decide(one.router, one.clock, latency_ms=1000)
        one.placed.snapshots = {name: QUICK._replace(queued=512) for name in one.placed.snapshots}
        with pytest.raises(OverloadedError):
            decide(one.router, one.clock, latency_ms=1000)
    asked = (None, 1000, None, None)
    assert (served.router._last.get(asked), served.router._pressure) == (None, {})
    assert whole.router._last.get(asked) is not None
    assert whole.router._pressure["one"].price > 0


def test_all_are_switched_off_by_one_word() -> None:
    assert Served("all").router._off == CORRECTIONS.keys()
    with pytest.raises(ScenarioError, match="no correction 'luck'; known: spread, "):
        Served("luck")


def test_a_simulation_runs_without_corrections(tmp_path: Path) -> None:
    """On a device that takes thrice its profile, whoever believes the profile lets everybody in, and all are late."""
    device = profiles_in(tmp_path, network("alexnet", 30.0))

    def run(policy: str) -> Outcome:
        asked = scenario(device, "model=alexnet&latency_ms=80", policy=policy, rate=2.0, seconds=60.0)
        slow = asked.device[0].model_copy(update={"slower": 3.0})
        return simulate(asked.but(device=(slow,), retries="never"))

    assert {sent.reason for sent in run("without:passes,safety,promises").sent} == {"deadline-missed"}
    assert "overloaded" in {sent.reason for sent in run("without:trials").sent}
