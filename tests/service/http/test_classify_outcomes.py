"""The handler of ``POST /classify`` by itself: what it counts and from when, over a fake router and classifier."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi import Request, Response

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.config.settings import Settings
from service.domain.decision import Decision
from service.domain.ensemble import Ensemble
from service.domain.errors import Failure, UnknownModelError
from service.domain.outcome import Outcome
from service.domain.prediction import Prediction
from service.domain.query import Query
from service.http import classify as module
from service.http.classify import ClassifyEndpoint, outcome_of
from service.http.uploads import Upload
from service.inference.classifier import Classified
from tests.clock import Clock

CATALOGUE = Catalogue(untrained=True)
GOOGLENET, VGG = CATALOGUE.find("googlenet"), CATALOGUE.find("vgg16")
ANSWER = Prediction((0.75, 0.25), (3, 1), 2, decode_s=0.001, queue_s=0.002, forward_s=0.003)
BROKEN = Failure("undecodable", "text", model="vgg16")


class Scene:
    """A router, a classifier, metrics and the upload in one, which remember their calls."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock(100.0)
        self.candidates_found: list[Checkpoint] | Ensemble = [GOOGLENET, VGG]
        self.error: Exception | None = None
        self.results: dict[bytes, Classified | Failure | asyncio.Event] = {}
        self.asked: list[tuple[Any, ...]] = []
        self.in_flight = 0
        self.counted: list[tuple[Any, ...]] = []
        self.handler = ClassifyEndpoint(self, self, Settings(**settings), self, self.clock)  # type: ignore[arg-type]
        self.handler._uploads = self  # type: ignore[assignment]

    # The upload: the body takes ten seconds to arrive.
    async def read(self, _receive: Any, _max_bytes: int) -> Upload:
        self.clock.now += 10
        return Upload([b"picture"], 7, self.clock.now)

    # The router.
    def candidates(self, _query: Query, arrived: float) -> list[Checkpoint] | Ensemble:
        self.asked.append(("candidates", arrived))
        if self.error is not None:
            raise self.error
        return self.candidates_found

    # The classifier.
    async def classify(self, picture: bytes, _query: Query, _candidates: Any, arrived: float) -> Any:
        self.asked.append((picture, arrived))
        self.clock.now += 1
        result = self.results.get(picture, Classified(ANSWER, Decision(GOOGLENET), 1.0))
        if isinstance(result, asyncio.Event):
            await result.wait()
            return Classified(ANSWER, Decision(VGG), 1.0)
        return result

    # The metrics.
    def arrived(self) -> None:
        self.in_flight += 1

    def left(self, request: Outcome, pictures: list[Outcome], took_s: float) -> None:
        self.in_flight -= 1
        self.counted.append((tuple(request), [tuple(picture) for picture in pictures], took_s))

    async def post(self, query: str = "") -> Response:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/classify",
            "query_string": query.encode(),
            "headers": [(b"content-type", b"image/png")],
        }

        async def receive() -> Any:
            await asyncio.sleep(60)

        return await self.handler.classify(Request(scope, receive))


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(module, "tracing", lambda: None)
    return Scene()


async def test_budget_and_duration_begin_when_the_body_has_arrived(scene: Scene) -> None:
    response = await scene.post()
    assert response.status_code == 200
    assert scene.asked == [("candidates", 110.0), (b"picture", 110.0)]
    assert scene.counted == [(("googlenet", "ok"), [("googlenet", "ok")], 1.0)]
    assert scene.in_flight == 0


async def test_an_error_before_the_candidates_is_the_requests_alone(scene: Scene) -> None:
    response = await scene.post("colour=red")
    assert response.status_code == 400
    assert scene.counted == [(("none", "bad-parameter"), [], 0.0)]
    scene.error = UnknownModelError("x")
    assert (await scene.post("model=x")).status_code == 404
    assert scene.counted[1] == (("none", "unknown-model"), [], 0.0)
    assert scene.in_flight == 0


async def test_a_failure_is_counted_under_the_model_that_was_decided_on(scene: Scene) -> None:
    scene.results[b"picture"] = BROKEN
    assert (await scene.post()).status_code == 422
    assert scene.counted == [(("vgg16", "undecodable"), [("vgg16", "undecodable")], 1.0)]


@pytest.mark.parametrize(("query", "model"), [("", "none"), ("model=googlenet", "googlenet")])
async def test_without_a_decision_a_failure_is_counted_under_the_named_model(
    scene: Scene, query: str, model: str
) -> None:
    scene.results[b"picture"] = Failure("overloaded", "text")
    assert (await scene.post(query)).status_code == 429
    assert scene.counted[0][:2] == ((model, "overloaded"), [(model, "overloaded")])


@pytest.mark.parametrize(("query", "model"), [("", "none"), ("model=googlenet", "googlenet")])
async def test_a_request_that_is_cancelled_is_counted_as_gone(scene: Scene, query: str, model: str) -> None:
    scene.results[b"picture"] = asyncio.Event()
    running = asyncio.create_task(scene.post(query))
    await asyncio.sleep(0.01)
    assert (scene.in_flight, scene.counted) == (1, [])
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert scene.counted == [((model, "gone"), [(model, "gone")], 1.0)]
    assert scene.in_flight == 0


async def test_an_empty_picture_fails_without_the_classifier(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read_body(*_arguments: Any) -> Any:
        return module.Body([b"picture", b"", BROKEN], True)

    monkeypatch.setattr(module, "read_body", read_body)
    response = await scene.post()
    assert [entry["status"] for entry in json.loads(bytes(response.body))["results"]] == [200, 400, 422]
    assert [asked for asked in scene.asked if asked[0] != "candidates"] == [(b"picture", 110.0)]
    pictures = [("googlenet", "ok"), ("none", "no-picture"), ("vgg16", "undecodable")]
    assert scene.counted[0][:2] == (("several", "partial"), pictures)


async def test_pictures_of_a_bulk_request_are_classified_together_and_answered_in_order(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_body(*_arguments: Any) -> Any:
        return module.Body([b"first", b"second"], True)

    monkeypatch.setattr(module, "read_body", read_body)
    scene.results[b"first"] = held = asyncio.Event()
    running = asyncio.create_task(scene.post())
    await asyncio.sleep(0.01)
    # The first picture does not keep the second one waiting.
    assert [asked[0] for asked in scene.asked[1:]] == [b"first", b"second"]
    held.set()
    results = json.loads(bytes((await running).body))["results"]
    assert [entry["model"] for entry in results] == ["vgg16", "googlenet"]
    assert scene.counted[0][:2] == (("several", "ok"), [("vgg16", "ok"), ("googlenet", "ok")])


@pytest.mark.parametrize("logged", [True, False])
async def test_accesses_are_logged_if_the_settings_say_so(logged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[Any, ...]] = []
    monkeypatch.setattr(module, "tracing", lambda: None)
    monkeypatch.setattr(module, "log_access", lambda _request, _response, *rest: lines.append(rest))
    await Scene(access_log=logged).post()
    assert lines == ([(("googlenet", "ok"), 1, 1.0, None)] if logged else [])


def test_the_outcome_of_an_answer_is_ok_under_the_model_that_answered() -> None:
    assert outcome_of(Classified(ANSWER, Decision(VGG), 1.0), "none") == ("vgg16", "ok")
    assert outcome_of(Failure("overloaded", ""), "none") == ("none", "overloaded")
    assert outcome_of(BROKEN, "none") == ("vgg16", "undecodable")


@pytest.mark.parametrize(("query", "count"), [("", 2), ("k=2", 2), ("k=1", 1)])
async def test_an_answer_has_as_many_labels_as_the_query_says(scene: Scene, query: str, count: int) -> None:
    assert len(json.loads(bytes((await scene.post(query)).body))["top5"]) == count
