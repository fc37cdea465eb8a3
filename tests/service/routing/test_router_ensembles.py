"""The router and ensembles: admission, bookings, loads and safety factors are those of the members combined."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.config.settings import Settings
from service.domain.decision import LEAST_SAFETY
from service.domain.ensemble import Ensemble
from service.domain.errors import OverloadedError
from service.domain.placement import Survey
from service.domain.query import Query
from service.domain.snapshot import DeviceLoad, Snapshot
from service.routing import router as module
from service.routing.retry_after import RetryQueue
from service.routing.router import Router
from tests.clock import Clock

CATALOGUE = Catalogue(untrained=True)
MODEL = "ensemble:googlenet,inception_v2"
#: The mean of a forward pass is half of its 95th percentile.
GOOGLENET = Snapshot((0.0, 1.0), 0.0, 20_000_000, "one", spread=2.0)
INCEPTION = GOOGLENET._replace(forward_s=(0.0, 3.0), footprint_bytes=30_000_000)


CLOCK = Clock()


class Placed:
    """The part of a placement that the router uses."""

    def __init__(self) -> None:
        self.snapshots: dict[str, Snapshot | None] = {"googlenet": GOOGLENET, "inception_v2": INCEPTION}
        self.loaded: list[str] = []

    def at_once(self, _checkpoint: Checkpoint, _within_s: float) -> Checkpoint | None:
        """Single networks are decided on here, so that what was learned of them shows; ensembles always are."""
        return None

    def survey(self, checkpoints: Sequence[Checkpoint], *_picture: object) -> Survey:
        return Survey([(c, self.snapshots[c.variant.name]) for c in checkpoints], DeviceLoad())

    def serves(self, _checkpoint: Checkpoint) -> bool:
        return True

    async def load(self, checkpoint: Checkpoint) -> None:
        self.loaded.append(checkpoint.variant.name)


class Booked(RetryQueue):
    """Remembers its calls."""

    said: list[tuple[str, float]]

    def admitted(self, device_s: float, caller: str = "", used_s: float | None = None) -> None:
        self.said.append(("admitted", device_s))
        super().admitted(device_s, caller, used_s)

    def book(self, room_in_s: float, device_s: float, caller: str = "", used_s: float | None = None) -> float:
        self.said.append(("book", device_s))
        return super().book(room_in_s, device_s, caller, used_s)


@pytest.fixture
def booked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    Booked.said = []
    monkeypatch.setattr(module, "RetryQueue", Booked)
    return Booked.said


@pytest.fixture
def placed() -> Placed:
    return Placed()


@pytest.fixture
def router(placed: Placed, tmp_path: Path) -> Router:
    return Router(CATALOGUE, placed, Settings(cache_dir=tmp_path, default_latency_ms=60_000), CLOCK)  # type: ignore[arg-type]


def decide(router: Router, model: str = MODEL, **query: Any) -> Any:
    asked, now = Query(model=model, **query), CLOCK()
    return router.decide(asked, router.candidates(asked), now, 1000)


def test_a_decision_names_the_ensemble_and_predicts_the_sum(router: Router, booked: list[tuple[str, float]]) -> None:
    decision = decide(router)
    assert isinstance(decision.checkpoint, Ensemble)
    assert decision.predicted_s == 4.0
    assert decision.routing is None
    assert booked == [("admitted", 2.0)]


def test_each_of_two_devices_is_booked_with_its_own_member(
    router: Router, placed: Placed, booked: list[tuple[str, float]]
) -> None:
    placed.snapshots["inception_v2"] = INCEPTION._replace(device="two")
    decision = decide(router)
    assert decision.predicted_s == 3.0
    assert booked == [("admitted", 0.5), ("admitted", 1.5)]
    deadline = CLOCK() + 20
    with router.admit(decision, deadline):
        for device in ("one", "two"):
            slack_s = router._admitted[device].slack_s(deadline - 1)
            assert slack_s == pytest.approx(20 / LEAST_SAFETY - 3)


def test_an_admitted_picture_delays_those_behind_it_by_the_sum_until_it_is_answered(
    router: Router,
) -> None:
    deadline = CLOCK() + 20
    later, sooner = decide(router), decide(router)
    with router.admit(later, deadline):
        before = router._admitted["one"].slack_s(deadline - 1)
        with router.admit(sooner, deadline - 2):
            assert before - router._admitted["one"].slack_s(deadline - 1) == pytest.approx(2.0)
    assert router._admitted["one"].slack_s(0.0) == float("inf")


async def test_a_refused_caller_is_booked_with_the_sum_and_absent_members_are_loaded(
    router: Router, placed: Placed, booked: list[tuple[str, float]]
) -> None:
    placed.snapshots |= {"googlenet": GOOGLENET._replace(load_s=8.0), "inception_v2": INCEPTION._replace(load_s=9.0)}
    with pytest.raises(OverloadedError) as raised:
        decide(router, latency_ms=10_000)
    assert raised.value.considered[0].model == MODEL
    assert raised.value.considered[0].predicted_ms == pytest.approx(21_000)
    assert raised.value.retry_after_s >= 8 + 9
    assert booked == [("book", 2.0)]
    await asyncio.sleep(0)
    assert placed.loaded == ["googlenet", "inception_v2"]


def test_late_answers_raise_the_safety_factor_of_ensembles_and_of_no_network(router: Router, placed: Placed) -> None:
    decision = decide(router, latency_ms=60_000)
    router.learn(decision, 61.0)
    assert decide(router, "ensemble:inception_v2,googlenet").safety > LEAST_SAFETY
    single = decide(router, "googlenet", latency_ms=60_000)
    assert single.safety == LEAST_SAFETY
    router.learn(single, 61.0)
    assert decide(router, "googlenet").safety > LEAST_SAFETY
    assert decide(router, "inception_v2").safety == LEAST_SAFETY


def test_with_a_member_of_which_nothing_is_known_nothing_is_predicted(router: Router, placed: Placed) -> None:
    placed.snapshots["inception_v2"] = None
    decision = decide(router, latency_ms=1)
    assert (decision.checkpoint.model, decision.snapshot, decision.predicted_s) == (MODEL, None, None)


def test_a_member_that_the_fleet_does_not_host_is_unknown(tmp_path: Path, placed: Placed) -> None:
    hosting = Router(Catalogue(tmp_path, untrained=True, variants=["googlenet"]), placed, Settings(cache_dir=tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown model 'inception_v2'; known: googlenet"):
        decide(hosting)


def test_an_ensemble_is_trusted_no_more_than_its_least_trusted_member(router: Router) -> None:
    single = decide(router, "googlenet", latency_ms=60_000)
    router.learn(single, 61.0)
    factor = decide(router, "googlenet").safety
    assert factor == pytest.approx(1.2)
    assert decide(router).safety == factor


def test_an_ensemble_is_tried_only_if_all_its_members_may_be(router: Router, placed: Placed) -> None:
    # What was learned refuses both; by their profiles they would take 0.2 s each.
    for name, snapshot in list(placed.snapshots.items()):
        assert snapshot is not None
        placed.snapshots[name] = snapshot._replace(profiled_forward_s=0.2)
    assert decide(router, latency_ms=500).trial
    alone = decide(router, "googlenet", latency_ms=500)
    assert alone.trial
    router.learn(alone, 1.0)
    with pytest.raises(OverloadedError):
        decide(router, latency_ms=500)
    assert decide(router, "inception_v2", latency_ms=500).trial


def test_both_members_are_in_use_until_the_picture_is_answered(router: Router) -> None:
    decision = decide(router)
    quiets = [router.safety(member).quiet for member in decision.checkpoint.members]
    with router.admit(decision, CLOCK() + 20):
        assert [quiet.in_use for quiet in quiets] == [True, True]
    assert [quiet.in_use for quiet in quiets] == [False, False]


def test_an_ensemble_named_without_a_budget_is_decided_on_even_if_its_members_answer_at_once(
    router: Router, placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed, "at_once", lambda checkpoint, _within_s: checkpoint)
    assert decide(router, "googlenet").predicted_s is None
    assert decide(router).predicted_s == 4.0
