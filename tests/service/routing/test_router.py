"""The router: what it asks, books, loads and learns, over a fake placement and a clock that tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.config.settings import Settings
from service.domain.decision import LEAST_SAFETY, Decision
from service.domain.errors import DeadlineMissedError, LoadFailedError, NoModelFitsError, OverloadedError
from service.domain.placement import Survey
from service.domain.query import Query
from service.domain.snapshot import DeviceLoad, Snapshot
from service.routing.router import Router
from tests.clock import Clock

CATALOGUE = Catalogue(untrained=True)
#: An eighth of a second, no decoding. The mean of a pass is half of its 95th percentile.
QUICK = Snapshot((0.0, 0.125, 0.25), 0.0, 20_000_000, "one", spread=2.0, profiled_forward_s=0.125)


class Placed:
    """The part of a placement that the router uses."""

    def __init__(self) -> None:
        self.snapshots: dict[str, Snapshot | None] = {"googlenet": QUICK, "vgg16": QUICK, "vgg19": QUICK}
        self.load_now = DeviceLoad()
        self.failures: dict[str, LoadFailedError] = {}
        self.loads: list[str] = []
        self.loaded = asyncio.Event()
        self.surveys = 0
        self.at_hand: Checkpoint | None = None
        """The answer to ``at_once``."""
        self.asked: list[tuple[Checkpoint, float]] = []

    def at_once(self, checkpoint: Checkpoint, within_s: float) -> Checkpoint | None:
        self.asked.append((checkpoint, within_s))
        return self.at_hand

    def survey(self, checkpoints: Sequence[Checkpoint], *_picture: object) -> Survey:
        self.surveys += 1
        return Survey([(c, self.snapshots.get(c.variant.name)) for c in checkpoints], self.load_now)

    def serves(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.variant.name not in self.failures

    def failure(self, checkpoint: Checkpoint) -> LoadFailedError | None:
        return self.failures.get(checkpoint.variant.name)

    async def load(self, checkpoint: Checkpoint) -> None:
        self.loads.append(checkpoint.variant.name)
        await self.loaded.wait()


class Rows(Catalogue):
    """A catalogue of these checkpoints alone, which counts how often it is read."""

    def __init__(self, cache: Path, *rows: Checkpoint) -> None:
        super().__init__(cache)
        self.rows, self.reads = list(rows), 0

    def checkpoints(self) -> list[Checkpoint]:
        self.reads += 1
        return self.rows

    def find(self, name: str, _labels: Any = None, _serves: Any = None) -> Checkpoint:
        self.reads += 1
        return next(row for row in self.rows if row.variant.name == name)


def network(name: str, top1: float, **changes: Any) -> Checkpoint:
    return replace(CATALOGUE.find(name), top1=top1, labels="imagenet1k", **changes)


@pytest.fixture
def placed() -> Placed:
    return Placed()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalogue(tmp_path: Path) -> Rows:
    return Rows(tmp_path, network("googlenet", 68.0), network("vgg16", 71.5), network("vgg19", 72.5))


@pytest.fixture
def router(catalogue: Rows, placed: Placed, clock: Clock, tmp_path: Path) -> Router:
    settings = Settings(cache_dir=tmp_path, default_latency_ms=60_000)
    return Router(catalogue, placed, settings, clock)  # type: ignore[arg-type]


def decide(
    router: Router,
    clock: Clock,
    arrived: float | None = None,
    *,
    supposing: bool = False,
    caller: str = "",
    **query: Any,
) -> Decision:
    asked, arrived = Query(**query), clock.now if arrived is None else arrived
    return router.decide(asked, router.candidates(asked), arrived, 1000, caller, supposing=supposing)


def booked(router: Router) -> list[tuple[Any, ...]]:
    """Everything that the router remembers of callers."""
    return [tuple(sorted(vars(device).items())) for device in router._retries.values()]


def test_a_supposed_picture_changes_nothing(router: Router, clock: Clock, placed: Placed) -> None:
    decide(router, clock)
    before = booked(router)
    for _ in range(5):
        decide(router, clock, supposing=True)
    full = placed.snapshots
    placed.snapshots = {name: QUICK._replace(queued=512) for name in full}
    for _ in range(5):
        with pytest.raises(OverloadedError):
            decide(router, clock, supposing=True)
    assert booked(router) == before
    placed.snapshots = full
    decide(router, clock)
    assert booked(router) != before


def test_time_that_has_passed_since_the_arrival_is_taken_off_the_budget(
    router: Router, clock: Clock, placed: Placed
) -> None:
    arrived = clock.now
    clock.now += 0.25
    # 125 ms times the least safety factor just fit into the 150 ms that are left; 62.5 ms more do not.
    decision = decide(router, clock, arrived, model="googlenet", latency_ms=400)
    assert decision.predicted_s == 0.125
    assert decision.routing is not None
    assert decision.routing.predicted_ms == 375
    placed.load_now = DeviceLoad({"one": 0.0625})
    with pytest.raises(OverloadedError):
        decide(router, clock, arrived, model="googlenet", latency_ms=400)


def test_a_picture_whose_budget_ran_out_before_the_decision_is_late_not_refused(router: Router, clock: Clock) -> None:
    arrived = clock.now
    clock.now += 0.3
    with pytest.raises(DeadlineMissedError, match="300 of 400 ms had passed"):
        decide(router, clock, arrived, model="googlenet", latency_ms=400)


@pytest.mark.parametrize(("binding", "allowed_s"), [({"strict": True}, 0.5), ({"strict": False}, 60.0)])
def test_a_budget_that_does_not_bind_allows_the_default(router: Router, binding: Any, allowed_s: float) -> None:
    assert router.allowed_s(Query(model="googlenet", latency_ms=500, **binding)) == allowed_s
    assert router.allowed_s(Query(latency_ms=500, **binding)) == 0.5
    assert router.allowed_s(Query(**binding)) == 60.0


async def test_refused_callers_cause_one_load_at_a_time(router: Router, clock: Clock, placed: Placed) -> None:
    placed.snapshots = {name: QUICK._replace(load_s=8.0) for name in placed.snapshots}
    for model in ("googlenet", "vgg16"):
        with pytest.raises(OverloadedError):
            decide(router, clock, model=model, latency_ms=1000)
    await asyncio.sleep(0)
    assert placed.loads == ["googlenet"]
    placed.loaded.set()
    for _ in range(3):
        await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        decide(router, clock, model="vgg16", latency_ms=1000)
    await asyncio.sleep(0)
    assert placed.loads == ["googlenet", "vgg16"]


async def test_the_most_accurate_network_that_would_be_in_time_is_loaded(
    router: Router, clock: Clock, placed: Placed
) -> None:
    absent = QUICK._replace(load_s=8.0)
    placed.snapshots = {"googlenet": absent, "vgg16": absent, "vgg19": absent._replace(profiled_forward_s=0.95)}
    with pytest.raises(OverloadedError):
        decide(router, clock, latency_ms=1000)
    await asyncio.sleep(0)
    assert placed.loads == ["vgg16"]


def test_a_refused_caller_is_booked_with_the_device_time_of_the_cheapest_network(
    catalogue: Rows, placed: Placed, clock: Clock, tmp_path: Path
) -> None:
    cheap = QUICK._replace(queued=512)
    dear = cheap._replace(forward_s=(0.0, 1.0, 2.0), profiled_forward_s=1.0)

    def waits_s(*snapshots: Snapshot) -> list[float]:
        placed.snapshots = dict(zip(("googlenet", "vgg16", "vgg19"), snapshots, strict=True))
        router = Router(catalogue, placed, Settings(cache_dir=tmp_path, default_latency_ms=60_000), clock)  # type: ignore[arg-type]
        waits = []
        for _ in range(3):
            with pytest.raises(OverloadedError) as refused:
                decide(router, clock)
            waits.append(refused.value.retry_after_s)
        return waits

    assert waits_s(dear, cheap, dear) == waits_s(cheap, cheap, cheap) < waits_s(dear, dear, dear)


def test_late_answers_raise_the_safety_factor_of_that_checkpoint_alone(router: Router, clock: Clock) -> None:
    decision = decide(router, clock, model="googlenet", latency_ms=200)
    assert decision.safety == LEAST_SAFETY
    assert router.safety(decision.checkpoint).errors() == (0, None, None)  # type: ignore[arg-type]
    router.learn(decision, 0.25)
    assert router.safety(decision.checkpoint).errors() == (1, 2.0, 0.5)  # type: ignore[arg-type]
    assert decide(router, clock, model="googlenet").safety > LEAST_SAFETY
    assert decide(router, clock, model="vgg16").safety == LEAST_SAFETY


def test_a_trial_that_missed_is_not_repeated_at_once(router: Router, clock: Clock, placed: Placed) -> None:
    placed.snapshots["googlenet"] = QUICK._replace(forward_s=(0.0, 0.5, 1.0))
    decision = decide(router, clock, model="googlenet", latency_ms=200)
    assert (decision.predicted_s, decision.within_s, decision.trial) == (0.125, pytest.approx(0.2), True)
    router.learn(decision, 0.5)
    with pytest.raises(OverloadedError):
        decide(router, clock, model="googlenet", latency_ms=200)
    placed.snapshots["vgg16"] = placed.snapshots["googlenet"]
    assert decide(router, clock, model="vgg16", latency_ms=200).trial


def test_another_file_of_the_same_name_starts_with_the_least_safety_factor(
    router: Router, clock: Clock, catalogue: Rows
) -> None:
    router.learn(decide(router, clock, model="googlenet", latency_ms=200), 0.25)
    catalogue.rows[0] = replace(catalogue.rows[0], modified_ns=1)
    clock.now += 2
    assert decide(router, clock, model="googlenet").safety == LEAST_SAFETY


def test_a_checkpoint_whose_accuracy_was_measured_meanwhile_keeps_its_safety_factor(
    router: Router, clock: Clock, catalogue: Rows
) -> None:
    router.learn(decide(router, clock, model="googlenet", latency_ms=200), 0.25)
    before = decide(router, clock, model="googlenet").safety
    catalogue.rows[0] = replace(catalogue.rows[0], top1=12.0, accuracy_source="measured here on 10 pictures")
    assert decide(router, clock, model="googlenet").safety == before > LEAST_SAFETY


def test_a_checkpoint_is_in_use_until_its_admitted_picture_is_answered(router: Router, clock: Clock) -> None:
    decision = decide(router, clock, model="googlenet", latency_ms=1000)
    quiet = router.safety(decision.checkpoint).quiet  # type: ignore[arg-type]
    assert not quiet.in_use
    with suppress(ZeroDivisionError), router.admit(decision, clock.now + 1):
        assert quiet.in_use
        # A second over the safety factor, less the predicted time.
        assert router._admitted["one"].slack_s(0.0) == pytest.approx(1 / LEAST_SAFETY - 0.125)
        assert router._admitted["one"].slack_s(clock.now + 1) == float("inf")
        raise ZeroDivisionError
    assert not quiet.in_use
    assert router._admitted["one"].slack_s(0.0) == float("inf")


def test_a_picture_that_would_make_another_late_is_not_admitted(router: Router, clock: Clock) -> None:
    first = decide(router, clock, model="googlenet", latency_ms=138)
    with router.admit(first, clock.now + 0.138):
        # A picture with a later deadline runs after it; one with an earlier deadline would delay it.
        assert decide(router, clock, model="vgg16", latency_ms=139).predicted_s == 0.125
        with pytest.raises(OverloadedError, match="admitted before"):
            decide(router, clock, clock.now - 0.0001, model="vgg16", latency_ms=138)


def test_where_no_network_could_be_loaded_the_error_has_the_earliest_next_attempt(
    router: Router, clock: Clock, placed: Placed
) -> None:
    placed.failures = {
        "googlenet": LoadFailedError("for good", None),
        "vgg16": LoadFailedError("in 9 s", 9.0),
        "vgg19": LoadFailedError("in 3 s", 3.0),
    }
    with pytest.raises(LoadFailedError, match="in 3 s"):
        router.candidates(Query())


def test_a_label_set_without_checkpoints_is_an_error(router: Router, clock: Clock) -> None:
    with pytest.raises(NoModelFitsError, match="no checkpoint for cifar10; GET /models"):
        router.candidates(Query(labels="cifar10"))


def test_without_strict_a_named_model_answers_beyond_the_budget(router: Router, clock: Clock) -> None:
    decision = decide(router, clock, model="googlenet", latency_ms=10, strict=False)
    assert decision.routing is not None
    assert decision.routing.reason.startswith("named, and not held to the budget (strict=false): none answers within")
    assert decide(router, clock, model="googlenet", latency_ms=500, strict=False).predicted_s == 0.125


def test_a_picture_is_late_if_what_is_left_is_too_little_by_the_profile_alone(
    router: Router, clock: Clock, placed: Placed
) -> None:
    arrived = clock.now
    # 125 ms by the profile, times 1.1, are 137.5 ms. The queue refuses the picture in both cases.
    placed.load_now = DeviceLoad({"one": 9.0})
    clock.now += 0.262
    with pytest.raises(OverloadedError):
        decide(router, clock, arrived, model="googlenet", latency_ms=400)
    clock.now += 0.001
    with pytest.raises(DeadlineMissedError, match="263 of 400 ms had passed"):
        decide(router, clock, arrived, model="googlenet", latency_ms=400)


def test_the_last_moment_of_a_budget_is_not_before_its_end(router: Router, clock: Clock) -> None:
    arrived = clock.now
    clock.now += 5.0
    with pytest.raises(DeadlineMissedError):
        decide(router, clock, arrived, latency_ms=400)


def test_only_networks_that_could_be_loaded_are_candidates(
    router: Router, clock: Clock, catalogue: Rows, placed: Placed
) -> None:
    # A placement does not serve what has no weights either.
    placed.failures = {"googlenet": LoadFailedError("broken", 3.0), "vgg16": LoadFailedError("no weights", 3.0)}
    catalogue.rows[1] = replace(catalogue.rows[1], trained=True, path=None)
    found = router.candidates(Query())
    # One without weights is listed, one that failed is not.
    assert [row.model for row in found] == ["vgg16", "vgg19"]


def test_admitted_pictures_count_and_a_refused_one_is_booked_on_its_caller(
    router: Router, clock: Clock, placed: Placed
) -> None:
    for _ in range(4):
        decide(router, clock)
    # The mean device time of a picture in the largest batch is 0.25 / 2 / 2 s.
    assert router._retries["one"]._admitted_s == pytest.approx(4 * 0.0625)
    placed.snapshots = {name: QUICK._replace(queued=512) for name in placed.snapshots}
    with pytest.raises(OverloadedError):
        router.decide(Query(), router.candidates(Query()), clock.now, 1000, "192.0.2.7")
    assert list(router._retries["one"]._booked) == ["192.0.2.7"]
    assert router._retries["one"]._admitted_s == pytest.approx(4 * 0.0625)


def test_what_a_device_has_computed_for_whomever_counts_where_it_is_known(
    router: Router, clock: Clock, placed: Placed
) -> None:
    """Pictures that were named without a budget are not decided on."""
    decide(router, clock)
    clock.now += 100.0
    placed.snapshots = {name: QUICK._replace(queued=512) for name in placed.snapshots}
    placed.load_now = placed.load_now._replace(used_s={"one": 75.0})
    with pytest.raises(OverloadedError):
        decide(router, clock)
    assert router._retries["one"]._left == pytest.approx(0.25)


def test_the_settings_decide_the_label_set_where_the_query_does_not(
    catalogue: Rows, placed: Placed, clock: Clock, tmp_path: Path
) -> None:
    catalogue.rows[0] = replace(catalogue.rows[0], labels="cifar10")
    settings = Settings(cache_dir=tmp_path, labels="cifar10")
    router = Router(catalogue, placed, settings, clock)  # type: ignore[arg-type]
    for query, names in ((Query(), ["googlenet"]), (Query(labels="imagenet1k"), ["vgg16", "vgg19"])):
        found = router.candidates(query)
        assert [row.model for row in found] == names


@pytest.mark.parametrize(("memory_mb", "fits"), [(20, True), (19.99, False)])
def test_memory_is_stated_in_megabytes(router: Router, clock: Clock, memory_mb: float, fits: bool) -> None:
    if fits:
        assert decide(router, clock, memory_mb=memory_mb)
    else:
        with pytest.raises(NoModelFitsError, match=r"none fits into 19.99 MB; .* needs 20 MB"):
            decide(router, clock, memory_mb=memory_mb)


async def test_a_network_that_the_budget_rules_out_is_neither_booked_nor_loaded(
    router: Router, clock: Clock, placed: Placed
) -> None:
    """The cheapest network, and the most accurate one, are too inaccurate and too large for the budget."""
    cheap, large = QUICK._replace(forward_s=(0.0, 0.01)), QUICK._replace(footprint_bytes=10**9, load_s=8.0)
    placed.snapshots = {"googlenet": cheap, "vgg16": QUICK._replace(queued=512), "vgg19": large}
    with pytest.raises(OverloadedError) as refused:
        decide(router, clock, memory_mb=100, min_top1=70)
    assert refused.value.retry_after_s == pytest.approx(0.0625 * (1 + 0.618) / 0.85, rel=0.01)
    await asyncio.sleep(0)
    assert placed.loads == []


async def test_a_network_that_would_be_late_even_in_memory_is_not_loaded(
    router: Router, clock: Clock, placed: Placed
) -> None:
    absent, arrived = QUICK._replace(load_s=8.0), clock.now
    placed.snapshots = {"googlenet": absent, "vgg16": absent, "vgg19": absent._replace(profiled_forward_s=0.5)}
    # Half of the second has passed: a network that takes half a second would be late.
    clock.now += 0.5
    with pytest.raises(OverloadedError):
        decide(router, clock, arrived, latency_ms=1000)
    await asyncio.sleep(0)
    assert placed.loads == ["vgg16"]


def test_a_model_named_without_a_budget_needs_no_survey_if_it_answers_at_once(
    router: Router, clock: Clock, catalogue: Rows, placed: Placed
) -> None:
    arrived = clock.now
    clock.now += 2.5
    # The placement may know a newer file, which it serves.
    placed.at_hand = replace(catalogue.rows[0], modified_ns=1)
    assert decide(router, clock, arrived, model="googlenet") == Decision(placed.at_hand)
    # A minute is allowed, and some of it has passed.
    assert placed.asked == [(catalogue.rows[0], 57.5)]
    assert (placed.surveys, booked(router)) == (0, [])


def test_a_model_that_does_not_answer_at_once_is_decided_on(
    router: Router, clock: Clock, catalogue: Rows, placed: Placed
) -> None:
    decision = decide(router, clock, model="googlenet")
    assert (placed.asked, placed.surveys) == ([(catalogue.rows[0], 60.0)], 1)
    assert (decision.checkpoint, decision.routing, decision.predicted_s) == (catalogue.rows[0], None, 0.125)
    assert decision.snapshot == QUICK
    assert booked(router) != []


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"model": "googlenet", "latency_ms": 30_000},
        {"model": "googlenet", "memory_mb": 100},
        {"model": "googlenet", "min_top1": 50},
        {"model": "googlenet", "latency_ms": 30_000, "strict": False},
    ],
)
def test_budgets_and_callers_who_name_no_model_need_a_decision(
    router: Router, clock: Clock, catalogue: Rows, placed: Placed, query: dict[str, Any]
) -> None:
    placed.at_hand = catalogue.rows[0]
    assert decide(router, clock, **query).routing is not None
    assert (placed.asked, placed.surveys) == ([], 1)


def test_whoever_supposes_a_picture_is_told_the_prediction(
    router: Router, clock: Clock, catalogue: Rows, placed: Placed
) -> None:
    placed.at_hand = catalogue.rows[0]
    assert decide(router, clock, supposing=True, model="googlenet").predicted_s == 0.125
    assert placed.asked == []


def test_a_picture_that_was_not_predicted_is_admitted_without_slack(
    router: Router, clock: Clock, catalogue: Rows, placed: Placed
) -> None:
    placed.at_hand = catalogue.rows[0]
    with router.admit(decide(router, clock, model="googlenet"), clock.now + 60):
        assert router._admitted == {}


def test_the_network_that_answered_a_budget_answers_it_again_unless_another_fits_by_a_margin(
    router: Router, clock: Clock, placed: Placed
) -> None:
    """VGG-19 takes 125 ms, 137.5 with the safety factor, and has to fit into 144 ms. A tenth of that is no margin."""
    busy, free = DeviceLoad({"one": 0.01}), DeviceLoad()
    placed.snapshots["vgg16"] = placed.snapshots["googlenet"] = QUICK._replace(forward_s=(0.0, 0.05, 0.1))

    def chosen(load: DeviceLoad, latency_ms: float = 144, *, supposing: bool = False) -> str:
        placed.load_now = load
        return decide(router, clock, latency_ms=latency_ms, supposing=supposing).checkpoint.model

    assert chosen(free) == "vgg19"
    assert chosen(busy, supposing=True) == "vgg16"
    assert chosen(free) == "vgg19"
    assert chosen(busy) == "vgg16"
    assert chosen(free) == "vgg16"
    assert chosen(free, supposing=True) == "vgg16"
    assert chosen(free, 145) == "vgg19"
    # Behind a longer queue it took clearly more than now.
    assert chosen(DeviceLoad({"one": 0.03})) == "vgg16"
    assert chosen(free) == "vgg19"
    assert chosen(busy) == "vgg16"
    clock.now += 3
    assert chosen(free) == "vgg19"


@pytest.mark.parametrize(
    ("took_s", "missed", "raises"),
    [(0.2, False, False), (0.2001, False, True), (0.1, True, True)],
    ids=["exactly in time", "late", "given up before its deadline"],
)
def test_an_answer_is_late_beyond_its_budget_or_if_it_was_given_up(
    router: Router, clock: Clock, took_s: float, missed: bool, raises: bool
) -> None:
    decision = decide(router, clock, model="googlenet", latency_ms=200)
    assert decision.within_s is not None
    router.learn(decision, took_s * decision.within_s / 0.2, missed=missed)
    assert (decide(router, clock, model="googlenet").safety > LEAST_SAFETY) is raises


def test_without_a_budget_nothing_is_late(router: Router, clock: Clock) -> None:
    router.learn(decide(router, clock, model="googlenet")._replace(within_s=None), 1e6)
    assert decide(router, clock, model="googlenet").safety == LEAST_SAFETY


def test_refusals_make_device_time_dear_and_a_smaller_network_answers(
    router: Router, clock: Clock, placed: Placed, catalogue: Rows
) -> None:
    """VGG-16 is more accurate and takes ten times as long; others are refused meanwhile."""
    placed.snapshots["vgg16"] = QUICK._replace(forward_s=(0.0, 0.5, 1.0))
    catalogue.rows.pop()
    placed.snapshots["googlenet"] = QUICK._replace(forward_s=(0.0, 0.05, 0.1))
    assert decide(router, clock, latency_ms=10_000).checkpoint.model == "vgg16"
    placed.snapshots["vgg16"] = placed.snapshots["vgg16"]._replace(queued=512)
    for number in range(10):
        with pytest.raises(OverloadedError):
            decide(router, clock, model="vgg16", latency_ms=10_000, caller=f"caller {number}")
    placed.snapshots["vgg16"] = placed.snapshots["vgg16"]._replace(queued=0)
    decision = decide(router, clock, latency_ms=9_000)
    assert (decision.checkpoint.model, decision.routed_for) == ("googlenet", "overloaded")
    clock.now += 120
    assert decide(router, clock, latency_ms=9_000).checkpoint.model == "vgg16"


def test_who_asks_what_would_be_raises_no_price(router: Router, clock: Clock, placed: Placed) -> None:
    full = QUICK._replace(queued=512)
    placed.snapshots.update(vgg16=full, vgg19=full, googlenet=full)
    for _ in range(10):
        with pytest.raises(OverloadedError):
            decide(router, clock, latency_ms=10_000, supposing=True)
    assert router._pressure == {}
