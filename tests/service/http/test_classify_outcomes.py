"""The endpoint ``POST /classify`` by itself: what it counts and from when, over a classifier that tests direct."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest

from models.checkpoints.catalogue import Catalogue
from service.config.settings import Settings
from service.domain.classified import Classified
from service.domain.errors import Failure, OverloadedError, UnknownModelError, failure_of
from service.domain.outcome import Outcome
from service.domain.prediction import Prediction
from service.domain.query import Query
from service.http import classify as module
from service.http.classify import ClassifyEndpoint, outcome_of
from service.http.reply import Reply
from service.http.uploads import Upload
from service.telemetry.logs import Access
from tests.clock import Clock

CATALOGUE = Catalogue(untrained=True)
GOOGLENET, VGG = CATALOGUE.find("googlenet"), CATALOGUE.find("vgg16")
ANSWER = Prediction((0.75, 0.25), (3, 1), 2, decode_s=0.001, queue_s=0.002, forward_s=0.003)
BROKEN = Failure("undecodable", "text", model="vgg16")
SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/classify",
    "query_string": b"",
    "headers": [(b"content-type", b"image/png"), (b"x-request-id", b"abc")],
}


class Scene:
    """What classifies, one of its requests, metrics and the upload in one, which remember their calls."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock(100.0)
        self.error: Exception | None = None
        self.named: str | None = None
        self.learned: str | None = None
        """The named model, where it becomes known with the pictures."""
        self.at_first = True
        """Whether the named model is known before the pictures."""
        self.results: dict[bytes, Classified | Failure | Exception | asyncio.Event] = {}
        self.asked: list[tuple[Any, ...]] = []
        self.caller: str | None = None
        self.cancelled: list[bytes] = []
        self.in_flight = 0
        self.counted: list[tuple[Any, ...]] = []
        self.endpoint = ClassifyEndpoint(self, Settings(**settings), self, clock=self.clock)  # type: ignore[arg-type]
        self.endpoint._uploads = self  # type: ignore[assignment]

    # The upload: the body takes ten seconds to arrive.
    async def read(self, *_arguments: Any) -> Upload:
        self.clock.now += 10
        return Upload([b"picture"], 7, self.clock.now)

    # What classifies.
    def begin(self, query: Query, arrived: float, caller: str = "") -> Scene:
        self.asked.append(("begin", query.model, arrived))
        self.caller = caller
        if self.error is not None:
            raise self.error
        self.named = query.model if self.at_first else None
        return self

    # One of its requests.
    async def classify(self, picture: bytes) -> Classified | Failure:
        self.asked.append((picture,))
        self.named = self.learned or self.named
        self.clock.now += 1
        result = self.results.get(picture, Classified(ANSWER, GOOGLENET, None, 1.0))
        if isinstance(result, Exception):
            raise result
        if isinstance(result, asyncio.Event):
            try:
                await result.wait()
            except asyncio.CancelledError:
                self.cancelled.append(picture)
                raise
            return Classified(ANSWER, VGG, None, 1.0)
        return result

    # The metrics.
    def arrived(self) -> None:
        self.in_flight += 1

    def left(self, request: Outcome, pictures: list[Outcome], took_s: float) -> None:
        self.in_flight -= 1
        self.counted.append((tuple(request), [tuple(picture) for picture in pictures], took_s))

    async def post(self, query: str = "") -> Reply:
        return await self.endpoint.reply({**SCOPE, "query_string": query.encode()}, connected)


async def connected() -> Any:
    """The client says nothing more, and stays."""
    await asyncio.Event().wait()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(module, "tracing", lambda: None)
    return Scene()


async def test_budget_and_duration_begin_when_the_body_has_arrived(scene: Scene) -> None:
    reply = await scene.post()
    assert reply.status == 200
    assert scene.asked == [("begin", None, 110.0), (b"picture",)]
    assert scene.counted == [(("googlenet", "ok"), [("googlenet", "ok")], 1.0)]
    assert scene.in_flight == 0


async def test_an_error_before_any_picture_is_the_requests_alone(scene: Scene) -> None:
    reply = await scene.post("colour=red")
    assert reply.status == 400
    assert scene.counted == [(("none", "bad-parameter"), [], 0.0)]
    scene.error = UnknownModelError("x")
    assert (await scene.post("model=x")).status == 404
    assert scene.counted[1] == (("none", "unknown-model"), [], 0.0)
    assert scene.in_flight == 0


async def test_a_failure_is_counted_under_the_model_that_was_decided_on(scene: Scene) -> None:
    scene.results[b"picture"] = BROKEN
    assert (await scene.post()).status == 422
    assert scene.counted == [(("vgg16", "undecodable"), [("vgg16", "undecodable")], 1.0)]


@pytest.mark.parametrize(("query", "model"), [("", "none"), ("model=googlenet", "googlenet")])
async def test_without_a_decision_a_failure_is_counted_under_the_named_model(
    scene: Scene, query: str, model: str
) -> None:
    scene.results[b"picture"] = Failure("overloaded", "text")
    assert (await scene.post(query)).status == 429
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
    reply = await scene.post()
    assert [entry["status"] for entry in json.loads(reply.body)["results"]] == [200, 400, 422]
    assert [asked for asked in scene.asked if asked[0] != "begin"] == [(b"picture",)]
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
    results = json.loads((await running).body)["results"]
    assert [entry["model"] for entry in results] == ["vgg16", "googlenet"]
    assert scene.counted[0][:2] == (("several", "ok"), [("vgg16", "ok"), ("googlenet", "ok")])


async def test_other_requests_have_their_turn_while_a_bulk_request_begins(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small pictures are decoded on the event loop: four of them in a turn."""
    pictures = [b"%d" % n for n in range(64)]

    async def read_body(*_arguments: Any) -> Any:
        return module.Body(pictures, True)

    monkeypatch.setattr(module, "read_body", read_body)
    begun: list[int] = []

    async def other() -> None:
        while len(scene.asked) < 1 + len(pictures):
            begun.append(len(scene.asked))
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    assert len(json.loads((await scene.post()).body)["results"]) == 64
    await beside
    assert max(after - before for before, after in pairwise(begun)) <= 5
    assert len(begun) >= 16


@pytest.mark.parametrize("logged", [True, False])
async def test_accesses_are_logged_if_the_settings_say_so(logged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[Access] = []
    monkeypatch.setattr(module, "tracing", lambda: None)
    monkeypatch.setattr(module, "log_access", lines.append)
    scene = Scene(access_log=logged)
    await scene.post()
    scene.results[b"picture"] = BROKEN
    await scene.post()
    timings = "decode;dur=1.0, queue;dur=2.0, forward;dur=3.0, total;dur=1000.0"
    wanted = [
        Access("abc", "POST", "/classify", 200, timings, Outcome("googlenet", "ok"), 1, 1.0),
        Access("abc", "POST", "/classify", 422, "", Outcome("vgg16", "undecodable"), 1, 1.0),
    ]
    assert lines == (wanted if logged else [])


def test_the_outcome_of_an_answer_is_ok_under_the_model_that_answered() -> None:
    assert outcome_of(Classified(ANSWER, VGG, None, 1.0), "none") == ("vgg16", "ok")
    assert outcome_of(Failure("overloaded", ""), "none") == ("none", "overloaded")
    assert outcome_of(BROKEN, "none") == ("vgg16", "undecodable")


@pytest.mark.parametrize(("query", "count"), [("", 2), ("k=2", 2), ("k=1", 1)])
async def test_an_answer_has_as_many_labels_as_the_query_says(scene: Scene, query: str, count: int) -> None:
    assert len(json.loads((await scene.post(query)).body)["top5"]) == count


async def test_the_reply_is_sent_whole(scene: Scene) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await scene.endpoint(SCOPE, connected, send)
    start, body = sent
    assert (start["type"], start["status"]) == ("http.response.start", 200)
    assert (b"x-model-served", b"googlenet") in start["headers"]
    assert json.loads(body.pop("body"))["model"] == "googlenet"
    assert body == {"type": "http.response.body"}


async def test_the_clients_headers_are_found_by_their_names(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    types: list[str] = []

    async def read_body(_upload: Any, head: Any, *_arguments: Any) -> Any:
        types.append(head.content_type)
        return module.Body([b"picture"], False)

    monkeypatch.setattr(module, "read_body", read_body)
    for headers in ([(b"accept", b"*/*"), (b"content-type", b"image/png")], [(b"accept", b"image/png")]):
        await scene.endpoint.reply({**SCOPE, "headers": headers}, connected)
    assert types == ["image/png", ""]


async def test_a_model_that_becomes_known_with_the_pictures_is_counted(scene: Scene) -> None:
    """A process that asks another one learns the model's name from the answer."""
    scene.at_first, scene.learned = False, "vgg16"
    scene.results[b"picture"] = Failure("overloaded", "text")
    await scene.post("model=vgg")
    assert scene.counted[0][:2] == (("vgg16", "overloaded"), [("vgg16", "overloaded")])


async def test_an_error_of_the_query_that_shows_with_a_picture_fails_the_request_and_ends_its_other_pictures(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_body(*_arguments: Any) -> Any:
        return module.Body([b"first", b"second"], True)

    monkeypatch.setattr(module, "read_body", read_body)
    scene.at_first, scene.results = False, {b"first": asyncio.Event(), b"second": UnknownModelError("x")}
    reply = await scene.post("model=x")
    assert (reply.status, json.loads(reply.body)["type"]) == (404, "/problems/unknown-model")
    await asyncio.sleep(0)
    assert scene.cancelled == [b"first"]
    # As if the error had come before any picture; and no label's value comes from a client.
    assert scene.counted[0][:2] == (("none", "unknown-model"), [])


async def test_who_asks_is_told_to_whatever_classifies() -> None:
    scene = Scene()
    forwarded = {**SCOPE, "client": None, "headers": [(b"x-forwarded-for", b"192.0.2.7")], "query_string": b""}
    await scene.endpoint.reply(forwarded, connected)
    assert scene.caller == "192.0.2.7"
    await scene.endpoint.reply({**forwarded, "client": ("192.0.2.8", 5000)}, connected)
    assert scene.caller == "192.0.2.8"


async def test_a_caller_who_is_refused_over_and_over_is_refused_before_its_body_is_read(scene: Scene) -> None:
    asked: list[bytes] = []

    async def refused(picture: bytes) -> Failure:
        asked.append(picture)
        return failure_of(OverloadedError("its queue is full", retry_after_s=5.0))

    async def read(*_arguments: Any) -> Upload:
        return Upload([b"picture"], 7, scene.clock.now)

    async def post(address: str) -> Reply:
        headers = [(b"content-length", b"7")]
        return await scene.endpoint.reply({**SCOPE, "headers": headers, "client": (address, 1)}, connected)

    scene.classify, scene.read = refused, read  # type: ignore[method-assign]
    for address in ("192.0.2.1", *16 * ["192.0.2.2"]):
        reply = await post(address)
        assert (reply.status, reply.header("connection")) == (429, None)
    assert len(asked) == 17
    reply = await post("192.0.2.2")
    assert (reply.status, reply.header("retry-after"), reply.header("connection")) == (429, "5", "close")
    assert len(asked) == 17
    await post("192.0.2.1")
    assert len(asked) == 18
