"""The HTTP contract through a front and a device owner: the same requests get the same answers as from one process; and
what a front answers by itself."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.config.settings import Settings
from service.domain.prediction import Limits
from service.http.edge import Edge
from service.http.front import FrontApp
from service.http.reply import Reply
from service.link import messages
from tests.cards import put
from tests.fakes import Fakes, until_resident
from tests.fronting import fronted
from tests.left_over import no_loop_errors, nothing_left
from tests.pictures import photo, picture
from tests.profiles import profile
from tests.spans import traced
from tests.waiting import soon

PAIR = "ensemble:googlenet,inception_v2"


MEASURED = ("timings_ms", "batch_size", "retry_after_ms", "predicted_ms")


def scene(folder: Path) -> Fakes:
    """LeNet-5, two networks for CIFAR-10, three for ImageNet, and what they take by pretended profiles."""
    fakes = Fakes(folder)
    for name in ("googlenet@cifar10", "inception_v2@cifar10"):
        put(folder, *name.split("@"))
    fakes.profiles = [
        profile("lenet5@mnist", forward_ms=1),
        profile("googlenet@cifar10", forward_ms=100, footprint_mb=20),
        profile("inception_v2@cifar10", forward_ms=300, footprint_mb=30),
        profile("googlenet@imagenet1k", forward_ms=5_000, footprint_mb=100, load_ms=10_000),
        profile("alexnet@imagenet1k", forward_ms=100, footprint_mb=300, load_ms=10_000),
        profile("vgg16@imagenet1k", forward_ms=20_000, footprint_mb=1_000, load_ms=25_000),
    ]
    fakes.loadable = {found.checkpoint for found in fakes.profiles}
    fakes.limits = Limits(max_pixels=1_000_000)
    fakes.settings = Settings(cache_dir=folder, max_body_mb=1, max_pixels=1_000_000)
    return fakes


@pytest.fixture(autouse=True)
async def all_is_left_as_it_was(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    with nothing_left(caplog), no_loop_errors():
        yield


def predictions(document: Any) -> list[float | None]:
    """All predicted times in a JSON document, in its order. They have the milliseconds in them that passed before the
    decision."""
    if isinstance(document, list):
        return [found for entry in document for found in predictions(entry)]
    if not isinstance(document, dict):
        return []
    own = [document["predicted_ms"]] if "predicted_ms" in document else []
    return own + [found for entry in document.values() for found in predictions(entry)]


def bare(document: Any) -> Any:
    """JSON without what differs from run to run: measured times, and the batch that a picture happened to be in."""
    if isinstance(document, dict):
        return {k: bare(v) for k, v in document.items() if k not in MEASURED}
    if isinstance(document, str):
        return re.sub(r"[\d,.]+ m?s\b", "some ms", document)
    return [bare(entry) for entry in document] if isinstance(document, list) else document


def files(*contents: bytes) -> dict[str, Any]:
    return {"files": [("image", (f"{number}.png", content)) for number, content in enumerate(contents)]}


def images(*contents: bytes) -> dict[str, Any]:
    return {"json": {"images": [base64.b64encode(content).decode() for content in contents]}}


BROKEN_BASE64 = {"json": {"images": ["!", "?"]}}
RAW = {"content": picture(5)}
PHOTO = {"content": photo()}
GIF, BMP, WEBP, JPEG = (picture(9, side=40, format=name) for name in ("GIF", "BMP", "WEBP", "JPEG"))
#: More than the event loop decodes, and as large as a body may be in few bytes.
WIDE = picture(3, side=1_001)
#: Query, and what is sent with it. None of them depends on how long anything takes.
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a digit": ("model=lenet5", RAW),
    "an alias": ("model=bn_inception@cifar10", PHOTO),
    "a label set": ("model=googlenet&labels=cifar10", PHOTO),
    "three labels": ("model=lenet5&k=3", RAW),
    "no model": ("", PHOTO),
    "no model, but labels": ("labels=mnist", RAW),
    "a GIF": ("model=lenet5", {"content": GIF}),
    "a BMP": ("model=lenet5", {"content": BMP}),
    "a WebP": ("model=lenet5", {"content": WEBP}),
    "a JPEG": ("model=lenet5", {"content": JPEG}),
    "one file": ("model=lenet5", files(picture(4))),
    "two files": ("model=lenet5", files(picture(4), picture(6))),
    "base64": ("model=lenet5", {"json": {"image": base64.b64encode(picture(4)).decode()}}),
    "sixty-four": ("model=lenet5&k=1", images(*(picture(n % 100) for n in range(64)))),
    "sixty-four of two kinds": ("model=googlenet@cifar10", images(*([photo(), picture(8)] * 32))),
    "sixty-five": ("model=lenet5", images(*[picture()] * 65)),
    "good and bad files": ("model=lenet5", files(picture(1), b"", b"text", photo(), picture(2))),
    "good and bad base64": ("model=lenet5", {"json": {"images": [base64.b64encode(picture()).decode(), "!", ""]}}),
    "only bad": ("model=lenet5", files(b"", b"text")),
    "an ensemble": (f"model={PAIR}", PHOTO),
    "several by an ensemble": (f"model={PAIR}", files(photo(), b"text", picture(7))),
    "an ensemble with a budget": (f"model={PAIR}&latency_ms=100000", PHOTO),
    "an ensemble that cannot be in time": (f"model={PAIR}&latency_ms=200", PHOTO),
    "an ensemble of two label sets": ("model=ensemble:lenet5,googlenet@cifar10", PHOTO),
    "latency": ("latency_ms=100000", PHOTO),
    "less latency": ("latency_ms=15000", PHOTO),
    "little latency": ("latency_ms=3500", PHOTO),
    "too little latency": ("latency_ms=50&labels=imagenet1k", PHOTO),
    "memory": ("memory_mb=500&latency_ms=3500", PHOTO),
    "too little memory": ("memory_mb=1&labels=imagenet1k", PHOTO),
    "accuracy": ("min_top1=60&latency_ms=15000", PHOTO),
    "a name with a budget": ("model=alexnet&latency_ms=3500", PHOTO),
    "a name that cannot": ("model=vgg16&latency_ms=50", PHOTO),
    "a name that answers anyway": ("model=googlenet@cifar10&memory_mb=1&strict=false", PHOTO),
    "several with a budget": ("latency_ms=100000", files(photo(), photo(200))),
    "text": ("model=lenet5", {"content": b"text"}),
    "cut short": ("model=lenet5", {"content": photo()[:900]}),
    "a PDF": ("model=lenet5", {"content": b"%PDF-1.7 and so on"}),
    "too many pixels": ("model=lenet5", {"content": WIDE}),
    "text to a budget": ("latency_ms=100000", {"content": b"text"}),
    "too large a body": ("model=lenet5", {"content": b"x" * 1_000_001}),
    "no body": ("model=lenet5", {}),
    "an empty file": ("model=lenet5", files(b"")),
    "broken JSON": ("model=lenet5", {"content": b"{", "headers": {"content-type": "application/json"}}),
    "multipart without a file": ("model=lenet5", {"data": {"a": "b"}, "files": {"x": (None, b"y")}}),
    "an unknown model": ("model=nonsense", RAW),
    "an unknown model for several": ("model=nonsense", files(picture(1), picture(2), b"text")),
    "an unknown model for nothing": ("model=nonsense", files(b"", b"")),
    "an unknown model for broken base64": ("model=nonsense", BROKEN_BASE64),
    "missing weights for broken base64": ("model=zfnet", BROKEN_BASE64),
    "nothing but broken base64": ("model=lenet5", BROKEN_BASE64),
    "weights that are missing": ("model=zfnet", PHOTO),
    "weights that are missing for several": ("model=zfnet", files(photo(), photo())),
    "an unknown parameter": ("colour=red", RAW),
    "a wrong value": ("k=11", RAW),
    "an unknown label set": ("labels=nonsense", RAW),
}


#: Those whose answer does not depend on what was learned from others.
NAMED = [what for what, (query, _) in REQUESTS.items() if "model=" in query and "_m" not in query]


def told(reply: httpx.Response) -> tuple[int, dict[str, str], bool, Any]:
    """What must be the same, whoever answers: status, headers, and the body without measured times."""
    return reply.status_code, fixed(reply), "server-timing" in reply.headers, bare(reply.json())


async def test_requests_that_name_a_model_get_the_answers_of_one_process(tmp_path: Path) -> None:
    alone, behind = scene(tmp_path / "alone"), scene(tmp_path / "behind")
    async with alone.client() as client, fronted(behind, tmp_path) as front:
        # The second time the front knows what is wanted.
        for time in ("at first", "again"):
            expected, found = [
                {what: told(await asked.post(f"/classify?{REQUESTS[what][0]}", **REQUESTS[what][1])) for what in NAMED}
                for asked in (client, front.client)
            ]
            for what in NAMED:
                assert found[what] == expected[what], f"{what}, {time}"
            assert front.slots_used == 0
    assert len(NAMED) >= 30
    assert {status for status, _, _, _ in expected.values()} == {200, 400, 404, 413, 415, 422, 503}


@pytest.mark.parametrize("what", [what for what in REQUESTS if what not in NAMED])
async def test_requests_with_a_budget_get_the_answers_of_one_process(tmp_path: Path, what: str) -> None:
    query, body = REQUESTS[what]
    alone, behind = scene(tmp_path / "alone"), scene(tmp_path / "behind")
    async with alone.client() as client, fronted(behind, tmp_path) as front:
        expected, reply = [await asked.post(f"/classify?{query}", **body) for asked in (client, front.client)]
        assert front.slots_used == 0
    assert told(reply) == told(expected)
    assert predictions(reply.json()) == pytest.approx(predictions(expected.json()), rel=0.2, abs=80)


def fixed(reply: httpx.Response) -> dict[str, str]:
    """The headers without what follows from measured times."""
    if "content-length" in reply.headers and reply.request.method != "HEAD":
        assert int(reply.headers["content-length"]) == len(reply.content)
    return {name: value for name, value in reply.headers.items() if name not in ("server-timing", "content-length")}


OTHERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "live": ("GET", "/healthz", {}),
    "ready": ("GET", "/readyz", {}),
    "all models": ("GET", "/models", {}),
    "a model": ("GET", "/models/googlenet", {}),
    "an unknown model": ("GET", "/models/nonsense", {}),
    "a route": ("POST", "/route?latency_ms=15000", {}),
    "a wrong route": ("POST", "/route?k=x", {}),
    "OpenAPI": ("GET", "/openapi.json", {}),
    "documentation": ("GET", "/docs", {}),
    "all problems": ("GET", "/problems", {}),
    "a problem": ("GET", "/problems/overloaded", {}),
    "no such problem": ("GET", "/problems/nonsense", {}),
    "nothing": ("GET", "/nonsense", {}),
    "nothing with umlauts": ("GET", "/nönsense%20/%2e", {}),
    "another method": ("GET", "/classify", {}),
    "yet another": ("DELETE", "/models/lenet5", {}),
    "one of classify": ("PUT", "/classify?model=lenet5", {"content": b"x"}),
    "only the head": ("HEAD", "/models", {}),
    "a load": ("POST", "/models/lenet5/load", {}),
    "an unload": ("POST", "/models/lenet5/unload?wait=true", {}),
    "a load with a body": ("POST", "/models/lenet5/load", {"content": b"x"}),
    "a load through a proxy": ("POST", "/models/lenet5/load", {"headers": {"x-forwarded-for": "192.0.2.7"}}),
    "a load by another site": ("POST", "/models/lenet5/load", {"headers": {"origin": "https://example.com"}}),
    "a load by another name": ("POST", "/models/lenet5/load", {"headers": {"host": "example.com"}}),
    "a slash too many": ("GET", "/models/", {}),
}


async def test_all_other_requests_are_the_owners(tmp_path: Path) -> None:
    alone, behind = scene(tmp_path / "alone"), scene(tmp_path / "behind")
    statuses = set()
    async with alone.client() as client, fronted(behind, tmp_path) as front:
        for what, (method, url, options) in OTHERS.items():
            expected, reply = [await asked.request(method, url, **options) for asked in (client, front.client)]
            assert (reply.status_code, fixed(reply)) == (expected.status_code, fixed(expected)), what
            if "json" in reply.headers.get("content-type", "") and reply.content:
                assert bare(reply.json()) == bare(expected.json()), what
            else:
                assert reply.content == expected.content, what
            statuses.add(reply.status_code)
    assert statuses >= {200, 400, 403, 404, 405}


async def test_networks_are_loaded_only_for_callers_on_this_machine(tmp_path: Path) -> None:
    async with fronted(scene(tmp_path), tmp_path) as front:
        statuses = []
        for client in (("127.0.0.1", 1), ("192.0.2.7", 1), ("::1", 1), ("::ffff:192.0.2.7", 1)):
            transport = httpx.ASGITransport(front.app, client=client)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as caller:
                statuses.append((await caller.post("/models/lenet5/load")).status_code)
        assert statuses == [200, 403, 200, 403]
        # A front that is reached over a Unix socket has no address of its caller, and the edge before it knows that.
        edge = httpx.ASGITransport(Edge(_without_client(front.app)), client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=edge, base_url="http://localhost") as caller:
            assert (await caller.post("/models/lenet5/load")).status_code == 403


def _without_client(app: FrontApp) -> Any:
    async def passed(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "client": None}, receive, send)

    return passed


async def test_a_load_reaches_the_owner(tmp_path: Path) -> None:
    fakes = scene(tmp_path)
    async with fronted(fakes, tmp_path, warm=False) as front:
        assert fakes.engines == {}
        assert (await front.client.post("/models/alexnet/load")).status_code in (200, 202)
        await until_resident(front.client, "alexnet")
        assert list(fakes.engines) == ["alexnet@imagenet1k"]


async def test_an_error_of_the_query_ends_all_pictures_of_a_request(tmp_path: Path) -> None:
    async with fronted(scene(tmp_path), tmp_path) as front:
        reply = await front.client.post("/classify?model=nonsense", **files(*[picture()] * 64))
        assert (reply.status_code, reply.json()["type"]) == (404, "/problems/unknown-model")
        assert front.slots_used == 0
        await soon(lambda: front.owners.one() is not None and front.owners.one().waiting == 0)  # type: ignore[union-attr]


async def test_a_full_queue_is_told_to_the_caller(tmp_path: Path) -> None:
    fakes = scene(tmp_path)
    fakes.limits = Limits(max_batch_size=1, max_queue=2)
    async with fronted(fakes, tmp_path) as front, fakes.busy(front.client, "lenet5@mnist"):
        ask = "/classify?model=lenet5"
        waiting = [asyncio.create_task(front.client.post(ask, content=picture(n))) for n in (1, 2)]
        await soon(lambda: fakes.queued("lenet5@mnist") == 2)
        refused = await front.client.post(ask, content=picture())
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["retry_after_ms"] > 0
        for task in waiting:
            task.cancel()
        await soon(lambda: fakes.queued("lenet5@mnist") == 0)
        assert front.slots_used == 1


class Client:
    """A client over raw ASGI that disconnects when the test says so."""

    def __init__(self, app: Any, query: bytes, body: bytes, content_type: bytes = b"") -> None:
        self._app, self._body = app, body
        self._sent = False
        self.goes = asyncio.Event()
        self.status = 0
        headers = [(b"content-type", content_type)] if content_type else []
        scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": query, "headers": headers}
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.goes.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)


@pytest.mark.parametrize("bulk", [False, True])
async def test_a_caller_who_disconnects_frees_the_places_in_the_owners_queue(tmp_path: Path, bulk: bool) -> None:
    fakes = scene(tmp_path)
    fakes.limits = Limits(max_batch_size=1)
    body = json.dumps(images(*[picture()] * 5)["json"]).encode() if bulk else picture()
    async with fronted(fakes, tmp_path) as front, fakes.busy(front.client, "lenet5@mnist"):
        caller = Client(front.app, b"model=lenet5", body, b"application/json" if bulk else b"")
        await soon(lambda: fakes.queued("lenet5@mnist") == (5 if bulk else 1))
        caller.goes.set()
        await asyncio.wait_for(caller.task, 10)
        await soon(lambda: fakes.queued("lenet5@mnist") == 0)
        assert (caller.status, front.slots_used) == (499, 1)


@pytest.mark.parametrize("sampled", [True, False])
async def test_a_trace_goes_on_in_the_owner(fakes: Fakes, tmp_path: Path, sampled: bool) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with traced() as spans:
        async with fronted(fakes, tmp_path) as front:
            parent = f"00-{trace}-b7ad6b7169203331-0{int(sampled)}"
            for body in (RAW, files(picture(1), picture(2))):
                reply = await front.client.post("/classify?model=lenet5", headers={"traceparent": parent}, **body)
                assert reply.status_code == 200
        if not sampled:
            assert len(spans) == 0
            return
        one, several = spans.requests
        assert {f"{span.context.trace_id:032x}" for span in (one, several)} == {trace}
        phases = [("decode", None), ("queue", None), ("forward", None)]
        assert spans.tree(one) == phases
        assert [spans.tree(span) for span in spans.below(several)] == [phases] * 2


class Calls:
    """Answers calls as a test says."""

    def __init__(self, reply: messages.Reply | None) -> None:
        self.reply = reply
        self.calls: list[messages.Call] = []

    async def call(self, call: messages.Call) -> messages.Reply | None:
        self.calls.append(call)
        return self.reply


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


async def classify(scope: Any, receive: Any, send: Any) -> None:
    await Reply.of(200, "text/plain", b"classified").send(send)


@asynccontextmanager
async def alone(calls: Calls) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a front over pretended calls."""
    app = FrontApp(classify, calls, nothing)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize(("method", "path"), [("GET", "/readyz"), ("GET", "/classify"), ("POST", "/healthz")])
async def test_without_an_owner_all_else_is_not_ready(method: str, path: str) -> None:
    async with alone(Calls(None)) as client:
        for live in ("GET", "HEAD"):
            reply = await client.request(live, "/healthz")
            assert reply.status_code == 200
        assert (await client.get("/healthz")).json() == {"status": "live"}
        reply = await client.request(method, path)
        assert (reply.status_code, reply.json()["type"]) == (503, "/problems/not-ready")
        assert "starting" in reply.json()["detail"]
        assert reply.headers["connection"] == "close"
        assert (await client.post("/classify", content=b"x")).text == "classified"


async def test_a_call_has_all_of_the_request_and_the_answer_all_of_the_reply() -> None:
    headers = [(b"x-a", b"1"), (b"x-a", b"2"), (b"content-type", b"text/plain; charset=utf-8")]
    calls = Calls(messages.Reply(5, 418, headers, b"\x00\xff"))
    async with alone(calls) as client:
        reply = await client.patch("/a%20b/ä?q=%20", headers={"x-b": "c"})
    assert (reply.status_code, reply.content, reply.headers.raw) == (418, b"\x00\xff", headers)
    (call,) = calls.calls
    assert (call.method, call.path, call.query, call.client) == ("PATCH", "/a b/ä", b"q=%20", ("127.0.0.1", 123))
    assert (b"x-b", b"c") in call.headers
    assert (b"host", b"localhost") in call.headers


async def test_the_lifespan_is_the_fronts() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        events.append("begins")
        yield
        events.append("ends")

    told = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        events.append("asked")
        return next(told)

    async def send(message: Any) -> None:
        events.append(message["type"])

    await FrontApp(classify, Calls(None), lifespan)({"type": "lifespan"}, receive, send)
    assert events == [
        "asked",
        "begins",
        "lifespan.startup.complete",
        "asked",
        "ends",
        "lifespan.shutdown.complete",
    ]
