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
from service.errors import DEADLINE_MISSED, INTERNAL, BadParameterError, Failure, NoPictureError, failure_of
from service.placement import Placement
from service.schemas import Answer, ClassifyQuery
from service.settings import Settings

log = logging.getLogger(__name__)
#: Nobody is there to read the answer; the status is what proxies log for this.
_GONE = 499
access_log = logging.getLogger("topfive.access")
Query = TypeVar("Query", bound=BaseModel)


class Classifier:
    """``POST /classify``."""

    def __init__(self, decider: Decider, placement: Placement, settings: Settings) -> None:
        self._decider = decider
        self._placement = placement
        self._settings = settings

    async def classify(self, request: Request) -> Response:
        """Read the query, read the body, pick the checkpoint, predict, answer."""
        arrived = time.monotonic()
        try:
            query = read_query(ClassifyQuery, request.scope["query_string"])
            body = await read_body(request, self._settings.max_body_bytes)
            # What is wrong with the query is so for all of its pictures.
            checkpoints = self._decider.candidates(query, arrived)
        except ClientDisconnect:
            return Response(status_code=_GONE)
        except Exception as error:
            response = problem(known_failure(error))
        else:
            response = Response(status_code=_GONE)
            with Watch(request.receive):
                waiting = [self._one(picture, query, checkpoints, arrived) for picture in body.pictures]
                # A task for a lone picture would be one more turn of the event loop.
                response = bulk(await asyncio.gather(*waiting)) if body.bulk else single(await waiting[0])
        if self._settings.access_log:
            _log_access(request, response, arrived)
        return response

    async def _one(
        self, picture: bytes | Failure, query: ClassifyQuery, checkpoints: Sequence[Checkpoint], arrived: float
    ) -> Answer | Failure:
        if isinstance(picture, Failure):
            return picture
        if not picture:
            return failure_of(NoPictureError("the file is empty"))
        try:
            # Nothing is awaited between the decision and the picture's place in the queue: the next one sees it.
            decision = self._decider.decide(query, checkpoints, arrived, len(picture))
            decided = time.monotonic()
            predictor = self._placement.predictor(decision.checkpoint)
        except Exception as error:
            return known_failure(error)
        deadline = arrived + self._decider.allowed_s(query)
        with self._decider.promise(decision, deadline):
            outcome = await predictor.predict(picture, deadline)
        now = time.monotonic()
        if decision.predicted_s is not None and getattr(outcome, "slug", DEADLINE_MISSED) == DEADLINE_MISSED:
            self._placement.judge(decision.checkpoint, decision.predicted_s, now - decided)
        return outcome if isinstance(outcome, Failure) else answer(outcome, decision, query.k, now - arrived)


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


def _log_access(request: Request, response: Response, arrived: float) -> None:
    served = response.headers.get("x-model-served", "-")
    elapsed_ms = (time.monotonic() - arrived) * 1000
    access_log.info("%s %d %s %.1f ms", request.url.path, response.status_code, served, elapsed_ms)
