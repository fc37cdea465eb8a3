"""The handler of ``POST /classify``. Microseconds count on this path alone, so it reads the plain request itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from models.checkpoints.catalogue import Checkpoint
from service.config.settings import Settings
from service.domain.decision import Decision
from service.domain.ensemble import Ensemble
from service.domain.errors import (
    DEADLINE_MISSED,
    OVERLOADED,
    Failure,
    NoPictureError,
    known_failure,
    of_a_load,
)
from service.domain.outcome import GONE, GONE_STATUS, NO_MODEL, OK, Outcome, summary
from service.domain.placement import Placement
from service.domain.query import Query
from service.http.disconnects import Watch
from service.http.problems import problem
from service.http.requests import read_body, read_query
from service.http.responses import answer, bulk, single
from service.http.schemas import Answer
from service.http.uploads import Uploads
from service.inference.ensemble import predictor
from service.routing.router import Router
from service.telemetry.logs import log_access
from service.telemetry.recorder import RequestMetrics
from service.telemetry.tracing import RequestSpan, tracing

log = logging.getLogger(__name__)


class Classifier:
    """``POST /classify``."""

    def __init__(self, router: Router, placement: Placement, settings: Settings, metrics: RequestMetrics) -> None:
        self._router = router
        self._placement = placement
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing()
        self._uploads = Uploads()
        self._one_at_a_time = asyncio.Lock()

    async def classify(self, request: Request) -> Response:
        """Read the query, read the body, pick the checkpoint, predict, answer."""
        began = time.monotonic()
        self._metrics.arrived()
        span = None if self._tracing is None else self._tracing.request(request, began)
        # Whatever does not come to an end was cancelled: by us or by the server, since nobody waits for it any more.
        fate, response = _Fate(Outcome(NO_MODEL, GONE), began), Response(status_code=GONE_STATUS)
        try:
            response = await self._answer(request, span, fate)
        except Exception as error:
            failure = known_failure(error)
            fate.request, response = Outcome(fate.request.model, failure.slug), problem(failure)
        finally:
            took_s = time.monotonic() - fate.arrived
            self._metrics.left(fate.request, fate.pictures, took_s)
            if span is not None:
                span.end(fate.request)
            if self._settings.access_log:
                trace_id = None if span is None else span.trace_id
                log_access(request, response, fate.request, len(fate.pictures), took_s, trace_id)
        return response

    async def _answer(self, request: Request, span: RequestSpan | None, fate: _Fate) -> Response:
        try:
            query = read_query(Query, request.scope["query_string"])
            upload = await self._uploads.read(request.receive, self._settings.max_body_bytes)
            # Budgets and timings begin here: how long a client takes to send its body is not the service's doing.
            arrived = fate.arrived = upload.ended
            body = await read_body(upload, request.headers.get("content-type", ""))
            # What is wrong with the query is so for all of its pictures.
            candidates = self._router.candidates(query, arrived)
        except ClientDisconnect:
            return Response(status_code=GONE_STATUS)
        named = NO_MODEL if query.model is None else _named(candidates)
        fate.request = Outcome(named, GONE)
        fate.pictures = [fate.request] * len(body.pictures)
        with Watch(request.receive):
            ones = [partial(self._one, picture, query, candidates, arrived, named) for picture in body.pictures]
            if body.bulk and span is not None:
                ones = [partial(span.picture, index, one) for index, one in enumerate(ones)]
            # A task for a lone picture would be one more turn of the event loop.
            results = await asyncio.gather(*(one() for one in ones)) if body.bulk else [await ones[0]()]
            fate.pictures, answers = [outcome for outcome, _ in results], [answer for _, answer in results]
            fate.request = summary(fate.pictures) if body.bulk else fate.pictures[0]
            return bulk(answers) if body.bulk else single(answers[0])
        return Response(status_code=GONE_STATUS)

    async def _one(
        self,
        picture: bytes | Failure,
        query: Query,
        candidates: Sequence[Checkpoint] | Ensemble,
        arrived: float,
        named: str,
    ) -> tuple[Outcome, Answer | Failure]:
        """What became of a picture, which is never an error: its neighbours in a bulk request have answers of their
        own."""
        try:
            if isinstance(picture, Failure):
                return Outcome(named, picture.slug), picture
            if not picture:
                raise NoPictureError("the file is empty")
            if isinstance(candidates, Ensemble):
                # Its members queue up a turn of the event loop after the decision.
                async with self._one_at_a_time:
                    await asyncio.sleep(0)
            # Nothing is awaited between the decision and the picture's place in the queue: the next one sees it.
            decision = self._router.decide(query, candidates, arrived, len(picture))
            done = await self._predicted(picture, query, decision, arrived)
            if query.model is None and of_a_load(done[1]):
                done = await self._among_the_rest(picture, query, decision, arrived, done)
            return done
        except Exception as error:
            failure = known_failure(error)
            if failure.slug in (OVERLOADED, DEADLINE_MISSED):
                self._metrics.shed("router" if failure.slug == OVERLOADED else "deadline")
            return Outcome(named, failure.slug), failure

    async def _among_the_rest(
        self,
        picture: bytes,
        query: Query,
        decision: Decision,
        arrived: float,
        done: tuple[Outcome, Answer | Failure],
    ) -> tuple[Outcome, Answer | Failure]:
        """Decides again without what could not be loaded, once for each such failure. Where nobody else could answer,
        the picture is told of the first failure."""
        first, tried = done, {decision.checkpoint.name}
        while of_a_load(done[1]):
            try:
                candidates = self._router.candidates(query, arrived)
                assert not isinstance(candidates, Ensemble)
                rest = [c for c in candidates if c.name not in tried]
                if not any(c.state == "loadable" for c in rest):
                    return first
                decision = self._router.decide(query, rest, arrived, len(picture))
            except Exception as error:
                known_failure(error)
                return first
            tried.add(decision.checkpoint.name)
            done = await self._predicted(picture, query, decision, arrived)
        return done

    async def _predicted(
        self, picture: bytes, query: Query, decision: Decision, arrived: float
    ) -> tuple[Outcome, Answer | Failure]:
        decided = time.monotonic()
        serving = predictor(self._placement, decision.checkpoint)
        self._metrics.routed(decision)
        allowed_s = self._router.allowed_s(query)
        with self._router.promise(decision, arrived + allowed_s):
            outcome = await serving.predict(picture, arrived + allowed_s)
        now = time.monotonic()
        reason = outcome.slug if isinstance(outcome, Failure) else OK
        model, predicted_s = decision.checkpoint.model, decision.predicted_s
        if reason in (OK, DEADLINE_MISSED):
            self._metrics.kept(model, (now - arrived) / allowed_s, late=reason != OK)
            if predicted_s is not None:
                self._router.judge(decision, now - decided)
                self._metrics.predicted(model, (now - decided) / predicted_s)
        if not isinstance(outcome, Failure):
            answered = answer(outcome, decision, query.k, now - arrived)
            self._metrics.answered(model, outcome.decode_s, outcome.queue_s, outcome.forward_s)
            return Outcome(model, OK), answered
        if reason in (OVERLOADED, DEADLINE_MISSED):
            self._metrics.shed("queue" if reason == OVERLOADED else "deadline")
        return Outcome(model, reason), outcome


@dataclass(slots=True)
class _Fate:
    """What became of a request and its pictures, as far as it is known."""

    request: Outcome
    arrived: float
    """When its body had arrived, or, until then, its headers."""
    pictures: list[Outcome] = field(default_factory=list)


def _named(candidates: Sequence[Checkpoint] | Ensemble) -> str:
    return candidates.model if isinstance(candidates, Ensemble) else candidates[0].model
