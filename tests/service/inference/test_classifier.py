"""Classification without HTTP: what is predicted, learned and counted, over fake predictors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.domain.classified import Classified
from service.domain.decision import Decision, Routing
from service.domain.ensemble import Ensemble
from service.domain.errors import DeadlineMissedError, Failure, OverloadedError, UnknownModelError
from service.domain.prediction import Prediction
from service.domain.query import Query
from service.inference.classifier import Classifier
from tests.clock import Clock

CATALOGUE = Catalogue(Path("/nonexistent"), untrained=True)
GOOGLENET, VGG = CATALOGUE.find("googlenet"), CATALOGUE.find("vgg16")
ANSWER = Prediction((0.75, 0.25), (3, 1), 2, decode_s=0.001, queue_s=0.002, forward_s=0.003)
ROUTING = Routing(reason="the most accurate", predicted_ms=500.0, considered=[])
BROKEN = Failure("load-failed", "broken", {"retry_after_ms": 1000.0})


class Scene:
    """A router, a placement and metrics in one, which remember their calls."""

    def __init__(self) -> None:
        self.clock = Clock(100.0)
        self.outcomes: dict[str, Prediction | Failure] = {"googlenet": ANSWER, "vgg16": ANSWER}
        self.found: Sequence[Checkpoint | Ensemble] = [GOOGLENET, VGG]
        self.unknown: Exception | None = None
        self.looked_up: list[Query] = []
        self.refusal: Exception | None = None
        self.predicted_s: float | None = 0.5
        self.told: list[tuple[Any, ...]] = []
        self.callers: list[str] = []
        self.asking: list[str] = []
        self.classifier = Classifier(self, self, self, self.clock)  # type: ignore[arg-type]

    # The router.
    def candidates(self, query: Query) -> Sequence[Checkpoint | Ensemble]:
        if self.unknown is not None:
            raise self.unknown
        self.looked_up.append(query)
        return self.found

    def decide(
        self,
        _query: Query,
        candidates: Sequence[Checkpoint | Ensemble],
        _arrived: float,
        size: int,
        caller: str,
        *,
        picture: bytes,
    ) -> Decision:
        self.callers.append(caller)
        if self.refusal is not None:
            raise self.refusal
        self.told.append(("decided", candidates[0].model, size))
        routing = None if isinstance(candidates[0], Ensemble) else ROUTING
        return Decision(candidates[0], routing, predicted_s=self.predicted_s)

    def allowed_s(self, _query: Query) -> float:
        return 4.0

    def admit(self, _decision: Decision, deadline: float, _caller: str) -> Any:
        self.told.append(("admitted", deadline))
        return nullcontext()

    def learn(self, _decision: Decision, took_s: float, *, missed: bool) -> None:
        self.told.append(("learned", took_s, missed))

    # The placement.
    def predictor(self, checkpoint: Checkpoint) -> Any:
        scene = self

        class Predictor:
            async def predict(
                self, image: bytes, deadline: float, _whole: bool = False, caller: str = ""
            ) -> Prediction | Failure:
                scene.asking.append(caller)
                scene.told.append(("asked", image, deadline))
                scene.clock.now += 1.0
                return scene.outcomes[checkpoint.variant.name]

        return Predictor()

    # The metrics.
    def routed(self, decision: Decision) -> None:
        self.told.append(("routed", decision.checkpoint.model))

    def kept(self, model: str, used_ratio: float, *, late: bool) -> None:
        self.told.append(("kept", model, used_ratio, late))

    def predicted(self, model: str, ratio: float) -> None:
        self.told.append(("ratio", model, ratio))

    def answered(self, model: str, *seconds: float) -> None:
        self.told.append(("answered", model, *seconds))

    def shed(self, by: str) -> None:
        self.told.append(("shed", by))

    async def classify(self, query: Query | None = None, arrived: float = 99.0) -> Classified | Failure:
        return await self.classifier.classify(b"four", query or Query(), [GOOGLENET, VGG], arrived)


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_the_budget_is_counted_from_the_arrival_and_the_prediction_from_the_decision(scene: Scene) -> None:
    done = await scene.classify()
    assert isinstance(done, Classified)
    assert done == Classified(ANSWER, GOOGLENET, ROUTING, 2.0)
    assert scene.told == [
        ("decided", "googlenet", 4),
        ("routed", "googlenet"),
        ("admitted", 103.0),
        ("asked", b"four", 103.0),
        ("kept", "googlenet", 0.5, False),
        ("learned", 1.0, False),
        ("ratio", "googlenet", 2.0),
        ("answered", "googlenet", 0.001, 0.002, 0.003),
    ]


@pytest.mark.parametrize(
    ("slug", "told"),
    [
        ("overloaded", [("shed", "queue")]),
        ("deadline-missed", [("kept", "googlenet", 0.5, True), ("learned", 1.0, True), ("ratio", "googlenet", 2.0),
                             ("shed", "deadline")]),
        ("undecodable", []),
    ],
)  # fmt: skip
async def test_a_failure_of_the_predictor_names_the_model_and_is_counted_by_its_slug(
    scene: Scene, slug: str, told: list[tuple[Any, ...]]
) -> None:
    scene.outcomes["googlenet"] = Failure(slug, "text")
    done = await scene.classify()
    assert done == Failure(slug, "text")
    assert isinstance(done, Failure)
    assert done.model == "googlenet"
    assert scene.told[4:] == told


async def test_a_refusal_is_counted_as_the_routers(scene: Scene) -> None:
    scene.refusal = OverloadedError("full", 1.0)
    done = await scene.classify()
    assert isinstance(done, Failure)
    assert (done.slug, done.model) == ("overloaded", None)
    assert scene.told == [("shed", "router")]


async def test_a_defect_hides_its_text_from_the_client(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.refusal = KeyError("secret")
    done = await scene.classify()
    assert isinstance(done, Failure)
    assert (done.slug, "secret" in done.detail, "secret" in caplog.text) == ("internal", False, True)
    assert scene.told == []


async def test_without_a_prediction_nothing_is_learned(scene: Scene) -> None:
    scene.predicted_s = None
    assert isinstance(await scene.classify(), Classified)
    assert not [told for told in scene.told if told[0] in ("learned", "ratio")]


async def test_the_next_best_network_answers_for_one_that_cannot_be_loaded(scene: Scene) -> None:
    scene.outcomes["googlenet"] = BROKEN
    done = await scene.classify()
    assert isinstance(done, Classified)
    assert done.served is VGG
    assert [told[1] for told in scene.told if told[0] == "decided"] == ["googlenet", "vgg16"]


async def test_where_no_network_can_be_loaded_the_first_failure_is_returned(scene: Scene) -> None:
    scene.outcomes = {"googlenet": BROKEN, "vgg16": Failure("load-failed", "another", {"retry_after_ms": 5.0})}
    assert await scene.classify() == BROKEN
    assert len([told for told in scene.told if told[0] == "decided"]) == 2


async def test_a_named_network_that_cannot_be_loaded_is_not_replaced(scene: Scene) -> None:
    scene.outcomes["googlenet"] = BROKEN
    assert await scene.classify(Query(model="googlenet")) == BROKEN
    assert len([told for told in scene.told if told[0] == "decided"]) == 1


async def test_a_router_that_finds_a_picture_late_is_counted_as_the_deadlines(scene: Scene) -> None:
    scene.refusal = DeadlineMissedError("late")
    done = await scene.classify()
    assert isinstance(done, Failure)
    assert (done.slug, scene.told) == ("deadline-missed", [("shed", "deadline")])


async def test_after_two_failed_loads_the_second_network_is_not_asked_again(scene: Scene) -> None:
    """The failed networks stay out, although the placement still counts them as loadable."""
    scene.outcomes = {"googlenet": BROKEN, "vgg16": BROKEN}
    await scene.classify()
    assert [told[1] for told in scene.told if told[0] == "decided"] == ["googlenet", "vgg16"]


async def test_a_failure_that_is_not_of_a_load_is_not_tried_elsewhere(scene: Scene) -> None:
    scene.outcomes["googlenet"] = Failure("out-of-memory", "in the forward pass")
    done = await scene.classify()
    assert isinstance(done, Failure)
    assert done.slug == "out-of-memory"
    assert len([told for told in scene.told if told[0] == "decided"]) == 1


async def test_an_ensemble_is_decided_on_after_the_members_of_the_one_before_have_joined_their_queues(
    scene: Scene,
) -> None:
    ensemble = [Ensemble((GOOGLENET, VGG))]
    whole = replace(ANSWER, distribution=np.array([0.75, 0.25], np.float32).tobytes())
    scene.outcomes = {"googlenet": whole, "vgg16": whole}
    calls = (scene.classifier.classify(b"four", Query(), ensemble, 99.0) for _ in range(2))
    done = await asyncio.gather(*calls)
    assert all(isinstance(one, Classified) for one in done)
    # Both members of the first are asked before the second is decided on.
    assert [told[0] for told in scene.told if told[0] in ("decided", "asked")] == [
        *("decided", "asked", "asked"),
        *("decided", "asked", "asked"),
    ]


async def test_a_failure_of_the_second_network_that_is_not_of_a_load_is_returned(scene: Scene) -> None:
    scene.outcomes = {"googlenet": BROKEN, "vgg16": Failure("undecodable", "text")}
    done = await scene.classify()
    assert isinstance(done, Failure)
    assert (done.slug, done.model) == ("undecodable", "vgg16")


async def test_a_network_without_weights_is_not_asked_in_the_place_of_another(scene: Scene) -> None:
    scene.outcomes["googlenet"] = BROKEN
    scene.found = [GOOGLENET, replace(VGG, trained=True, path=None)]
    assert await scene.classify() == BROKEN
    assert [told[1] for told in scene.told if told[0] == "decided"] == ["googlenet"]


async def test_the_first_failure_is_returned_if_the_second_decision_is_a_refusal(scene: Scene) -> None:
    scene.outcomes["googlenet"] = BROKEN
    decide = scene.classifier._router.decide

    def once(*arguments: Any, **options: Any) -> Decision:
        decision = decide(*arguments, **options)
        scene.refusal = OverloadedError("full", 1.0)
        return decision

    scene.classifier._router.decide = once  # type: ignore[method-assign]
    assert await scene.classify() == BROKEN
    # The caller sees a failed load, so no refusal is counted.
    assert not [told for told in scene.told if told[0] == "shed"]


async def test_a_request_has_the_time_of_its_arrival_and_its_candidates_for_each_picture(scene: Scene) -> None:
    query = Query(k=3)
    asking = scene.classifier.begin(query, 99.0)
    scene.found = [VGG]  # found once, at the beginning
    first, second = [await asking.classify(picture) for picture in (b"four", b"fifth")]
    assert scene.looked_up == [query]
    assert isinstance(first, Classified)
    assert isinstance(second, Classified)
    # The clock moves on by a second during each picture.
    assert (first.total_s, second.total_s) == (2.0, 3.0)
    assert [told for told in scene.told if told[0] in ("decided", "asked")] == [
        *(("decided", "googlenet", 4), ("asked", b"four", 103.0)),
        *(("decided", "googlenet", 5), ("asked", b"fifth", 103.0)),
    ]


@pytest.mark.parametrize(
    ("query", "found", "named"),
    [
        (Query(), [GOOGLENET, VGG], None),
        (Query(model="inception_v1"), [GOOGLENET], "googlenet"),
        (Query(model="ensemble:vgg,googlenet"), [Ensemble((VGG, GOOGLENET))], "ensemble:vgg16,googlenet"),
    ],
)
def test_a_request_tells_the_name_of_its_model_if_its_caller_named_one(
    scene: Scene, query: Query, found: Any, named: str | None
) -> None:
    scene.found = found
    assert scene.classifier.begin(query, 99.0).named == named


def test_an_error_of_the_query_is_raised_before_any_picture(scene: Scene) -> None:
    scene.unknown = UnknownModelError("x")
    with pytest.raises(UnknownModelError):
        scene.classifier.begin(Query(model="x"), 99.0)
    assert scene.told == []


async def test_an_ensemble_answers_as_itself(scene: Scene) -> None:
    whole = replace(ANSWER, distribution=np.array([0.75, 0.25], np.float32).tobytes())
    scene.outcomes = {"googlenet": whole, "vgg16": whole}
    scene.found = ensemble = [Ensemble((GOOGLENET, VGG))]
    done = await scene.classifier.begin(Query(model="ensemble:googlenet,vgg16"), 99.0).classify(b"four")
    assert isinstance(done, Classified)
    assert (done.served, done.routing) == (ensemble[0], None)


async def test_the_router_is_told_who_asks_at_each_decision(scene: Scene) -> None:
    scene.outcomes["googlenet"] = BROKEN
    await scene.classifier.begin(Query(), 99.0, "192.0.2.7").classify(b"four")
    assert scene.callers == scene.asking == ["192.0.2.7"] * 2
