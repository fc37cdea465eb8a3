"""``POST /classify``: the one path on which microseconds count, so it takes the plain request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar
from urllib.parse import parse_qsl

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from models.checkpoints import Checkpoint
from service.answers import answer, bulk, problem, single
from service.bodies import read_body
from service.decider import Decider
from service.disconnects import Watch
from service.errors import (
    DEADLINE_MISSED,
    INTERNAL,
    OVERLOADED,
    BadParameterError,
    Failure,
    NoPictureError,
    failure_of,
)
from service.logs import log_access
from service.placement import Placement
from service.recording import GONE, GONE_STATUS, NO_MODEL, OK, Edge, Outcome, summary
from service.schemas import Answer, ClassifyQuery
from service.settings import Settings

log = logging.getLogger(__name__)
Query = TypeVar("Query", bound=BaseModel)


class Classifier:
    """``POST /classify``."""

    def __init__(self, decider: Decider, placement: Placement, settings: Settings, edge: Edge) -> None:
        self._decider = decider
        self._placement = placement
        self._settings = settings
        self._edge = edge

    async def classify(self, request: Request) -> Response:
        """Read the query, read the body, pick the checkpoint, predict, answer."""
        arrived = time.monotonic()
        self._edge.arrived()
        request_is, pictures_are = Outcome(NO_MODEL, "internal"), list[Outcome]()
        try:
            response, request_is, pictures_are = await self._answer(request, arrived)
        finally:
            self._edge.left(request_is, pictures_are, time.monotonic() - arrived)
        if self._settings.access_log:
            log_access(request, response, request_is, len(pictures_are), time.monotonic() - arrived)
        return response

    async def _answer(self, request: Request, arrived: float) -> tuple[Response, Outcome, list[Outcome]]:
        """The response, and what became of the request and its pictures."""
        try:
            query = read_query(ClassifyQuery, request.scope["query_string"])
            body = await read_body(request, self._settings.max_body_bytes)
            # What is wrong with the query is so for all of its pictures.
            checkpoints = self._decider.candidates(query, arrived)
        except ClientDisconnect:
            return Response(status_code=GONE_STATUS), Outcome(NO_MODEL, GONE), []
        except Exception as error:
            failure = known_failure(error)
            return problem(failure), Outcome(NO_MODEL, failure.slug), []
        named = checkpoints[0].variant.name if query.model is not None else NO_MODEL
        with Watch(request.receive):
            waiting = [self._one(picture, query, checkpoints, arrived, named) for picture in body.pictures]
            # A task for a lone picture would be one more turn of the event loop.
            results = await asyncio.gather(*waiting) if body.bulk else [await waiting[0]]
            outcomes, answers = [outcome for outcome, _ in results], [answer for _, answer in results]
            if body.bulk:
                return bulk(answers), summary(outcomes), outcomes
            return single(answers[0]), outcomes[0], outcomes
        gone = Outcome(named, GONE)
        return Response(status_code=GONE_STATUS), gone, [gone] * len(body.pictures)

    async def _one(
        self,
        picture: bytes | Failure,
        query: ClassifyQuery,
        checkpoints: Sequence[Checkpoint],
        arrived: float,
        named: str,
    ) -> tuple[Outcome, Answer | Failure]:
        if isinstance(picture, Failure):
            return Outcome(named, picture.slug), picture
        if not picture:
            failure = failure_of(NoPictureError("the file is empty"))
            return Outcome(named, failure.slug), failure
        try:
            # Nothing is awaited between the decision and the picture's place in the queue: the next one sees it.
            decision = self._decider.decide(query, checkpoints, arrived, len(picture))
            decided = time.monotonic()
            predictor = self._placement.predictor(decision.checkpoint)
        except Exception as error:
            failure = known_failure(error)
            if failure.slug == OVERLOADED:
                self._edge.shed("router")
            return Outcome(named, failure.slug), failure
        self._edge.routed(decision)
        allowed_s = self._decider.allowed_s(query)
        with self._decider.promise(decision, arrived + allowed_s):
            outcome = await predictor.predict(picture, arrived + allowed_s)
        now = time.monotonic()
        reason = outcome.slug if isinstance(outcome, Failure) else OK
        model, predicted_s = decision.checkpoint.variant.name, decision.predicted_s
        if reason in (OK, DEADLINE_MISSED):
            self._edge.kept(model, (now - arrived) / allowed_s, late=reason != OK)
            if predicted_s is not None:
                self._placement.judge(decision.checkpoint, predicted_s, now - decided)
                self._edge.predicted(model, (now - decided) / predicted_s)
        if not isinstance(outcome, Failure):
            self._edge.answered(model, outcome.decode_s, outcome.queue_s, outcome.forward_s)
            return Outcome(model, OK), answer(outcome, decision, query.k, now - arrived)
        if reason in (OVERLOADED, DEADLINE_MISSED):
            self._edge.shed("queue" if reason == OVERLOADED else "deadline")
        return Outcome(model, reason), outcome


def known_failure(error: Exception) -> Failure:
    """An error as a value; a defect of ours goes to the log, whole, and to the client in one plain sentence."""
    failure = failure_of(error)
    if failure.problem is INTERNAL:
        log.error("unexpected error", exc_info=error)
    return failure


@lru_cache(maxsize=1024)
def read_query(kind: type[Query], raw: bytes) -> Query:
    """The query string, checked. The same few come again and again.

    Raises:
        BadParameterError: unknown, repeated, or with a value that is not allowed.
    """
    pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True)
    names = [name for name, _ in pairs]
    for name in names:
        if name not in kind.model_fields:
            known = ", ".join(kind.model_fields) or "none"
            raise BadParameterError(f"unknown parameter {name!r}; known: {known}")
        if names.count(name) > 1:
            raise BadParameterError(f"{name} is given {names.count(name)} times")
    try:
        return kind.model_validate(dict(pairs))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        raise BadParameterError(f"{first['loc'][0]}={first['input']}: {message}") from error
