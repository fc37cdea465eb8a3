"""The spans of pictures: one by one, and in the traces of requests."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from models.checkpoints.catalogue import Catalogue
from service.batching.slot import DeviceSlot
from service.domain.errors import Failure
from service.domain.prediction import Limits
from service.engines.fake import FakeEngine
from service.inference.decoders import Decoders
from service.runtime.predictor import Predictor
from service.telemetry.picture_spans import Phases, forward_over, phases_here
from service.telemetry.tracing import continued, epoch_ns, tracing
from tests.fakes import Fakes
from tests.pictures import picture
from tests.spans import Spans, traced

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> Iterator[Spans]:
    with traced() as found:
        yield found


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


def phases(model: str = "lenet5") -> Phases:
    """The phases of a picture whose request has a span of its own."""
    making = tracing()
    assert making is not None
    caller = making.parsed(CALLER)
    assert caller is not None
    return Phases(making, making.told("POST /classify", caller, (0.0, 9.0), {}), model)


def test_a_picture_that_is_not_traced_has_no_phases() -> None:
    with continued(CALLER):
        assert phases_here("lenet5") is None
    with traced():
        assert phases_here("lenet5") is None
        with continued(CALLER):
            found = phases_here("lenet5")
            assert found is not None
            assert f"{found.place.span_id:016x}" == CALLER.split("-")[2]


def test_phases_follow_each_other(spans: Spans) -> None:
    picture = phases()
    picture.begin("load", 1.0)
    picture.begin("decode", 2.0)
    picture.over(2.5)
    picture.queued(3.0)
    picture.taken(4.0)
    picture.forwarded(6.0, None, "ok", {})
    picture.end(None)
    (request,) = spans.requests
    told = [(s.name, s.start_time - epoch_ns(0.0), s.end_time - epoch_ns(0.0)) for s in spans.below(request)]
    assert told == [
        ("load", 1_000_000_000, 2_000_000_000),
        ("decode", 2_000_000_000, 2_500_000_000),
        ("queue", 3_000_000_000, 4_000_000_000),
        # The forward pass's span is the batch's own, which exists already.
    ]
    assert {span.attributes["topfive.model"] for span in spans.below(request)} == {"lenet5"}


@pytest.mark.parametrize(
    ("outcome", "reason", "status"),
    [
        (None, "gone", StatusCode.UNSET),
        (Failure("deadline-missed", "late"), "deadline-missed", StatusCode.ERROR),
        (Failure("undecodable", "junk"), "undecodable", StatusCode.UNSET),
    ],
)
def test_a_phase_that_has_not_ended_has_the_outcome(
    spans: Spans, outcome: Failure | None, reason: str, status: StatusCode
) -> None:
    picture = phases()
    picture.begin("decode", time.monotonic())
    picture.queued(time.monotonic())
    picture.end(outcome)
    (request,) = spans.requests
    assert spans.tree(request) == [("decode", None), ("queue", reason)]
    decode, queue = spans.below(request)
    assert decode.end_time == queue.start_time <= queue.end_time
    assert (decode.status.status_code, queue.status.status_code) == (StatusCode.UNSET, status)


def test_one_forward_span_stands_for_the_batch_and_the_others_link_to_it(spans: Spans) -> None:
    first, second = phases("googlenet"), phases("googlenet")
    for each in (first, second):
        each.taken(1.0)
    forward_over([None, first, object(), second], "full", 1.0, 0.5, None)
    (batch,) = spans.named("forward")
    assert dict(batch.attributes) == {
        "topfive.model": "googlenet",
        "topfive.batch.size": 4,
        "topfive.batch.cut": "full",
    }
    assert (batch.start_time, batch.end_time) == (epoch_ns(1.0), epoch_ns(1.5))
    assert batch.parent.span_id == first.place.span_id
    assert [link.context.span_id for link in batch.links] == [first.place.span_id, second.place.span_id]
    for each in (first, second):
        each.end(None)
    _, other = spans.named("forward")
    assert other.parent.span_id == second.place.span_id
    assert [link.context for link in other.links] == [batch.context]
    assert (other.start_time, other.end_time) == (batch.start_time, batch.end_time)
    assert dict(other.attributes) == dict(batch.attributes)


def test_a_forward_pass_that_fails_is_an_error_of_each_picture_with_one_traceback(spans: Spans) -> None:
    pictures = [phases(), phases()]
    for each in pictures:
        each.taken(1.0)
    forward_over(pictures, "drained", 1.0, 0.5, ValueError("no luck"))
    for each in pictures:
        each.end(None)
    batch, other = spans.named("forward")
    for span in (batch, other):
        assert (span.attributes["topfive.reason"], span.status.status_code) == ("internal", StatusCode.ERROR)
    (event,) = batch.events
    assert event.attributes["exception.message"] == "no luck"
    assert not other.events


def test_a_batch_without_traced_pictures_makes_no_span(spans: Spans) -> None:
    forward_over([None, object()], "full", 1.0, 0.5, None)
    assert len(spans) == 0


async def post(client: Any, headers: dict[str, str] | None = None, content: bytes | None = None) -> Any:
    return await client.post("/classify?model=lenet5", content=content or picture(), headers=headers)


async def test_a_request_is_a_trace_of_its_phases(spans: Spans, fakes: Fakes) -> None:
    async with fakes.client() as client:
        answer = await post(client, headers={"x-request-id": "abc"})
    (request,) = spans.requests
    assert request.parent is None
    assert request.kind.name == "SERVER"
    assert dict(request.attributes) == {
        "http.request.method": "POST",
        "http.route": "/classify",
        "url.path": "/classify",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "topfive.request_id": "abc",
        "topfive.model": "lenet5",
        "topfive.reason": "ok",
    }
    phases = spans.below(request)
    assert [phase.name for phase in phases] == ["decode", "queue", "forward"]
    moments = [request.start_time, *(moment for p in phases for moment in (p.start_time, p.end_time)), request.end_time]
    assert moments == sorted(moments)
    # What the caller is told, in microseconds.
    for phase in phases:
        told_ms = answer.json()["timings_ms"][phase.name]
        assert (phase.end_time - phase.start_time) / 1e6 == pytest.approx(told_ms, abs=0.0011)
    # And by the time of day.
    assert abs(request.end_time - time.time_ns()) < 60e9


async def test_a_batch_and_its_requests_link_to_each_other(spans: Spans, fakes: Fakes) -> None:
    async with fakes.client() as client:
        async with fakes.busy(client, "lenet5@mnist"):
            posts = [asyncio.create_task(post(client)) for _ in range(3)]
            await asyncio.sleep(0.05)
        await asyncio.gather(*posts)
    assert fakes.engines["lenet5@mnist"].batches == [1, 3]
    assert len(spans.requests) == 4
    batched = [span for span in spans.named("forward") if span.attributes["topfive.batch.size"] == 3]
    (batch,) = [span for span in batched if len(span.links) == 3]
    assert batch.attributes["topfive.batch.cut"] == "drained"
    together = [r for r in spans.requests if any(link.context.span_id == r.context.span_id for link in batch.links)]
    assert len(together) == 3
    for request in together:
        phases = spans.below(request)
        assert [phase.name for phase in phases] == ["decode", "queue", "forward"]
        forward = phases[-1]
        assert (forward.start_time, forward.end_time) == (batch.start_time, batch.end_time)
        if forward is not batch:
            assert [link.context for link in forward.links] == [batch.context]
    assert batch in [spans.below(request)[-1] for request in together]
    # Whoever is first has the batch itself, and no second copy of it.
    assert len(batched) == 3


async def test_a_request_continues_the_callers_trace(spans: Spans, fakes: Fakes) -> None:
    headers = {"traceparent": CALLER, "tracestate": "vendor=1"}
    async with fakes.client() as client:
        await post(client, headers=headers)
    (request,) = spans.requests
    assert f"{request.parent.span_id:016x}" == "b7ad6b7169203331"
    for span in (request, *spans.below(request)):
        assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
        assert span.context.trace_state.get("vendor") == "1"


@pytest.mark.parametrize("junk", ["", "junk", "00-0-0-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ÿ" * 3000])
async def test_an_invalid_traceparent_begins_a_new_trace(spans: Spans, fakes: Fakes, junk: str) -> None:
    async with fakes.client() as client:
        answer = await client.post(
            "/classify?model=lenet5", content=picture(), headers={"traceparent": junk.encode("latin-1")}
        )
    assert answer.status_code == 200
    assert spans.requests[0].parent is None
    assert len(spans.below(spans.requests[0])) == 3


async def test_a_request_that_is_not_sampled_has_no_spans(spans: Spans, fakes: Fakes) -> None:
    async with fakes.client() as client:
        async with fakes.busy(client, "lenet5@mnist"):
            posts = [asyncio.create_task(post(client, headers={"traceparent": CALLER[:-1] + "0"})) for _ in range(2)]
            posts.append(asyncio.create_task(post(client)))
            await asyncio.sleep(0.05)
        await asyncio.gather(*posts)
    assert len(spans.requests) == 2
    (of_three,) = [span for span in spans.named("forward") if span.attributes["topfive.batch.size"] == 3]
    # Its links lead to traces that there are.
    assert [link.context for link in of_three.links] == [spans.requests[-1].context]


async def test_several_pictures_have_a_span_each(spans: Spans, fakes: Fakes) -> None:
    good, junk = base64.b64encode(picture()).decode(), base64.b64encode(b"junk").decode()
    async with fakes.client() as client:
        await client.post("/classify?model=lenet5", json={"images": [good, junk, good]})
    (request,) = spans.requests
    assert request.attributes["topfive.reason"] == "partial"
    pictures = sorted(spans.below(request), key=lambda span: span.attributes["topfive.picture"])
    assert [span.name for span in pictures] == ["picture"] * 3
    whole = [("decode", None), ("queue", None), ("forward", None)]
    assert [spans.tree(one) for one in pictures] == [whole, [("decode", "undecodable")], whole]
    assert [one.attributes.get("topfive.reason") for one in pictures] == [None, "undecodable", None]
    assert [one.attributes["topfive.model"] for one in pictures] == ["lenet5"] * 3


async def test_only_a_failure_of_the_service_is_an_error(spans: Spans, fakes: Fakes) -> None:
    async with fakes.client() as client:
        await client.post("/classify?model=lenet5", content=b"junk")
        await client.post("/classify?model=nobody", content=picture())
        await client.post("/classify?model=vgg16", content=picture())
    junk, unknown, missing = spans.requests
    assert [r.attributes["topfive.reason"] for r in spans.requests] == [
        "undecodable",
        "unknown-model",
        "weights-missing",
    ]
    assert [r.attributes["http.response.status_code"] for r in spans.requests] == [422, 404, 503]
    assert spans.tree(junk) == [("decode", "undecodable")]
    assert {span.status.status_code for span in (junk, unknown, *spans.below(junk))} == {StatusCode.UNSET}
    assert (missing.status.status_code, missing.attributes["error.type"]) == (StatusCode.ERROR, "weights-missing")


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_batch_that_fails_and_the_pass_after_it_are_seen(spans: Spans, fakes: Fakes, failures: int) -> None:
    async with fakes.client() as client:
        engine = fakes.engines["lenet5@mnist"]
        run, failed = engine.run, list[int]()

        def fails(*batch: Any) -> Any:
            if len(batch[0]) == 2 and len(failed) < failures:
                failed.append(len(batch[0]))
                raise RuntimeError("bad luck")
            return run(*batch)

        engine.run = fails  # type: ignore[method-assign]
        async with fakes.busy(client, "lenet5@mnist"):
            posts = [asyncio.create_task(post(client, content=picture(value))) for value in (5, 9)]
            await asyncio.sleep(0.05)
        answers = await asyncio.gather(*posts)
    reason, status = (None, StatusCode.UNSET) if failures == 1 else ("internal", StatusCode.ERROR)
    assert [answer.status_code for answer in answers] == [200 if failures == 1 else 500] * 2
    together = [request for request in spans.requests if len(spans.below(request)) == 4]
    assert len(together) == 2
    for request in together:
        assert spans.tree(request) == [("decode", None), ("queue", None), ("forward", "internal"), ("forward", reason)]
        first, second = spans.below(request)[2:]
        assert [span.attributes["topfive.batch.size"] for span in (first, second)] == [2, 2]
        assert [span.attributes["topfive.batch.cut"] for span in (first, second)] == ["drained", "drained"]
        assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, status)
        assert request.status.status_code == status
    # Once for each pass, not for each picture.
    said = [event.attributes["exception.message"] for span in spans.named("forward") for event in span.events]
    assert said == ["bad luck"] * failures


async def test_the_wait_for_a_load_has_a_span(spans: Spans, fakes: Fakes) -> None:
    async with fakes.client(warm=False) as client:
        await post(client)
        await post(client)
    first, second = ([span.name for span in spans.below(request)] for request in spans.requests)
    assert first == ["load", "decode", "queue", "forward"]
    assert second == ["decode", "queue", "forward"]


async def test_the_phase_in_which_a_picture_is_late_or_given_up_says_so(spans: Spans) -> None:
    running, release = threading.Event(), threading.Event()

    class Held(FakeEngine):
        def run(self, *batch: Any) -> Any:
            running.set()
            assert release.wait(30)
            return super().run(*batch)

    served = Predictor(Catalogue().find("lenet5"), Held, DeviceSlot(), Decoders(2), Limits(max_batch_size=1))

    def predict(allowed_s: float) -> Any:
        return asyncio.create_task(served.predict(picture(), time.monotonic() + allowed_s))

    await served.load()
    with continued(CALLER):
        computed = predict(60)
        assert await asyncio.to_thread(running.wait, 30)
        late, waits = predict(0.05), predict(60)
        outcome = await late
        assert isinstance(outcome, Failure)
        assert outcome.slug == "deadline-missed"
        for task in (computed, waits):
            task.cancel()
        await asyncio.wait([computed, waits])
    release.set()
    await served.close()
    of_late, of_computed, of_waiting = spans.named("queue")
    assert of_late.attributes["topfive.reason"] == of_late.attributes["error.type"] == "deadline-missed"
    assert "topfive.reason" not in of_computed.attributes
    assert of_waiting.attributes["topfive.reason"] == "gone"
    assert of_waiting.status.status_code is StatusCode.UNSET
    abandoned, batch = spans.named("forward")
    # The device went on after its caller had gone.
    assert (abandoned.attributes["topfive.reason"], "topfive.reason" in batch.attributes) == ("gone", False)
    assert abandoned.end_time < batch.end_time
