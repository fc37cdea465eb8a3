"""``POST /classify``: the one path on which microseconds count, so it takes the plain request."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import lru_cache
from urllib.parse import parse_qsl

from fastapi import Request, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from models.checkpoints import Catalogue, WeightsMissingError
from service.answers import answer, bulk, problem, single
from service.bodies import read_body
from service.errors import INTERNAL, BadParameterError, Failure, NoPictureError, NotReadyError, failure_of
from service.placement import Placement
from service.router import Decision, choose
from service.schemas import Answer, ClassifyQuery
from service.settings import Settings

log = logging.getLogger(__name__)
#: How long a named checkpoint that can be served is served without a look at the disk: each look gives the
#: interpreter's lock away, and getting it back from busy threads costs more than the look.
_TRUST_S = 1.0
access_log = logging.getLogger("topfive.access")


class Classifier:
    """``POST /classify``."""

    def __init__(self, catalogue: Catalogue, placement: Placement, settings: Settings) -> None:
        self._catalogue = catalogue
        self._placement = placement
        self._settings = settings
        self._named: dict[tuple[str, str | None], Decision] = {}
        self._trusted_until = 0.0

    async def classify(self, request: Request) -> Response:
        """Read the query, read the body, pick the checkpoint, predict, answer."""
        arrived = time.monotonic()
        try:
            query = _query(request.scope["query_string"])
            body = await read_body(request, self._settings.max_body_bytes)
            decision = self._decide(query, arrived)
        except ClientDisconnect:
            # Nobody is there to read the answer; the status is what proxies log for this.
            return Response(status_code=499)
        except Exception as error:
            response = problem(known_failure(error))
        else:
            waiting = [self._one(picture, query, decision, arrived) for picture in body.pictures]
            # A task for a lone picture would be one more turn of the event loop.
            response = bulk(await asyncio.gather(*waiting)) if body.bulk else single(await waiting[0])
        if self._settings.access_log:
            _log_access(request, response, arrived)
        return response

    def _decide(self, query: ClassifyQuery, arrived: float) -> Decision:
        """Raises UnknownModelError, WeightsMissingError or NoModelFitsError."""
        if query.model is None:
            preferred = query.labels or self._settings.labels or None
            rows = self._catalogue.checkpoints()
            served = [row for row in rows if row.state != "loadable" or self._placement.serves(row)]
            return choose(served, preferred, query.min_top1)
        if arrived > self._trusted_until:
            self._named.clear()
            self._trusted_until = arrived + _TRUST_S
        decision = self._named.get((query.model, query.labels))
        if decision is None:
            checkpoint = self._catalogue.find(query.model, query.labels)
            if checkpoint.state != "loadable":
                raise WeightsMissingError(checkpoint)
            decision = self._named[query.model, query.labels] = Decision(checkpoint, None)
        return decision

    async def _one(
        self, picture: bytes | Failure, query: ClassifyQuery, decision: Decision, arrived: float
    ) -> Answer | Failure:
        if isinstance(picture, Failure):
            return picture
        if not picture:
            return failure_of(NoPictureError("the file is empty"))
        allowed_ms = query.latency_ms or self._settings.default_latency_ms
        try:
            predictor = self._placement.predictor(decision.checkpoint)
        except NotReadyError as error:
            return failure_of(error)
        outcome = await predictor.predict(picture, arrived + allowed_ms / 1000)
        if isinstance(outcome, Failure):
            return outcome
        return answer(outcome, decision, query.k, time.monotonic() - arrived)


def known_failure(error: Exception) -> Failure:
    """An error as a value; a defect of ours goes to the log, whole, and to the client in one plain sentence."""
    failure = failure_of(error)
    if failure.problem is INTERNAL:
        log.error("unexpected error", exc_info=error)
    return failure


@lru_cache(maxsize=1024)
def _query(raw: bytes) -> ClassifyQuery:
    """The query string, checked. The same few come again and again.

    Raises:
        BadParameterError: unknown, repeated, or with a value that is not allowed.
    """
    pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True)
    names = [name for name, _ in pairs]
    for name in names:
        if name not in ClassifyQuery.model_fields:
            known = ", ".join(ClassifyQuery.model_fields)
            raise BadParameterError(f"unknown parameter {name!r}; known: {known}")
        if names.count(name) > 1:
            raise BadParameterError(f"{name} is given {names.count(name)} times")
    try:
        return ClassifyQuery.model_validate(dict(pairs))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        raise BadParameterError(f"{first['loc'][0]}={first['input']}: {message}") from error


def _log_access(request: Request, response: Response, arrived: float) -> None:
    served = response.headers.get("x-model-served", "-")
    elapsed_ms = (time.monotonic() - arrived) * 1000
    access_log.info("%s %d %s %.1f ms", request.url.path, response.status_code, served, elapsed_ms)
