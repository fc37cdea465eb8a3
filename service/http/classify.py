"""The endpoint ``POST /classify``. Microseconds count on this path alone, so it reads the plain request itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from models.checkpoints.catalogue import Checkpoint
from service.config.settings import Settings
from service.domain.ensemble import Ensemble
from service.domain.errors import Failure, NoPictureError, failure_of, known_failure
from service.domain.outcome import GONE, GONE_STATUS, NO_MODEL, OK, Outcome, summary
from service.domain.query import Query
from service.http.disconnects import Watch
from service.http.problems import problem
from service.http.requests import Body, read_body, read_query
from service.http.responses import answer, bulk, single
from service.http.schemas import Answer
from service.http.uploads import Uploads
from service.inference.classifier import Classified, Classifier
from service.routing.router import Router
from service.telemetry.logs import log_access
from service.telemetry.recorder import RequestMetrics
from service.telemetry.tracing import RequestSpan, tracing


class ClassifyEndpoint:
    """Answers ``POST /classify``. Not thread-safe: use it from one event loop.

    Args:
        router: finds the candidates of a query.
        classifier: classifies one picture.
        settings: the limit on the body, and whether accesses are logged.
        metrics: count the outcome of each request.
        clock: seconds, monotonic, as deadlines are.
    """

    def __init__(
        self,
        router: Router,
        classifier: Classifier,
        settings: Settings,
        metrics: RequestMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._router = router
        self._classifier = classifier
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._tracing = tracing()
        self._uploads = Uploads()

    async def classify(self, request: Request) -> Response:
        """Reads query and body, finds the candidates, classifies each picture, answers."""
        arrived = self._clock()
        self._metrics.arrived()
        span = None if self._tracing is None else self._tracing.request(request, arrived)
        # The outcome of a request that is cancelled, by the watch below or by the server, because its caller left.
        outcome, pictures, response = Outcome(NO_MODEL, GONE), list[Outcome](), Response(status_code=GONE_STATUS)
        try:
            query = read_query(Query, request.scope["query_string"])
            upload = await self._uploads.read(request.receive, self._settings.max_body_bytes)
            # Budgets and timings begin here: the time that a client takes to send its body is not the service's.
            arrived = upload.ended
            body = await read_body(upload, request.headers.get("content-type", ""))
            # An error in the query fails the request, not each of its pictures.
            candidates = self._router.candidates(query, arrived)
            outcome = Outcome(NO_MODEL if query.model is None else _named(candidates), GONE)
            pictures = [outcome] * len(body.pictures)
            with Watch(request.receive):
                results = await self._results(body, query, candidates, arrived, span)
                pictures = [outcome_of(result, outcome.model) for result in results]
                outcome = summary(pictures) if body.bulk else pictures[0]
                answers = [_answer(result, query.k) for result in results]
                response = bulk(answers) if body.bulk else single(answers[0])
        except ClientDisconnect:
            pass
        except Exception as error:
            failure = known_failure(error)
            outcome, response = Outcome(outcome.model, failure.slug), problem(failure)
        finally:
            took_s = self._clock() - arrived
            self._metrics.left(outcome, pictures, took_s)
            if span is not None:
                span.end(outcome)
            if self._settings.access_log:
                trace_id = None if span is None else span.trace_id
                log_access(request, response, outcome, len(pictures), took_s, trace_id)
        return response

    async def _results(
        self,
        body: Body,
        query: Query,
        candidates: Sequence[Checkpoint] | Ensemble,
        arrived: float,
        span: RequestSpan | None,
    ) -> list[Classified | Failure]:
        """The result for each picture, in the body's order."""
        ones: list[Callable[[], Coroutine[Any, Any, Classified | Failure]]]
        ones = [partial(self._one, picture, query, candidates, arrived) for picture in body.pictures]
        if not body.bulk:
            # A task for a single picture would cost one more turn of the event loop.
            return [await ones[0]()]
        if span is not None:
            model = NO_MODEL if query.model is None else _named(candidates)
            told = partial(outcome_of, named=model)
            ones = [partial(span.picture, index, one, told) for index, one in enumerate(ones)]
        return await asyncio.gather(*(one() for one in ones))

    async def _one(
        self, picture: bytes | Failure, query: Query, candidates: Sequence[Checkpoint] | Ensemble, arrived: float
    ) -> Classified | Failure:
        if isinstance(picture, Failure):
            return picture
        if not picture:
            return failure_of(NoPictureError("the file is empty"))
        return await self._classifier.classify(picture, query, candidates, arrived)


def outcome_of(result: Classified | Failure, named: str) -> Outcome:
    """The outcome of a picture; ``named`` is its model if the router decided on none."""
    if isinstance(result, Failure):
        return Outcome(result.model or named, result.slug)
    return Outcome(result.decision.checkpoint.model, OK)


def _answer(result: Classified | Failure, k: int) -> Answer | Failure:
    return result if isinstance(result, Failure) else answer(result.prediction, result.decision, k, result.total_s)


def _named(candidates: Sequence[Checkpoint] | Ensemble) -> str:
    return candidates.model if isinstance(candidates, Ensemble) else candidates[0].model
