"""The endpoint ``POST /classify``. Microseconds count on this path alone, so it is an ASGI application by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from service.config.settings import Settings
from service.domain.classified import Asking, Classified, Classifies
from service.domain.errors import Failure, NoPictureError, failure_of, known_failure
from service.domain.outcome import GONE, GONE_STATUS, NO_MODEL, OK, Outcome, summary
from service.domain.query import Query
from service.http.access import AccessControl
from service.http.body_memory import BodyMemory, Room
from service.http.callers import KEY, caller_of
from service.http.disconnects import Watches
from service.http.reply import Reply, reply_to
from service.http.requests import Body, announces_body, read_body, read_head, read_query
from service.http.responses import bulk, single
from service.http.turned_away import TurnedAway
from service.http.uploads import Uploads
from service.telemetry.logs import Access, log_access
from service.telemetry.recorder import RequestMetrics
from service.telemetry.tracing import RequestSpan, tracing

#: How many pictures of a bulk request begin in one turn of the event loop, on which small ones are decoded: other
#: requests do not wait until all 64 are.
_IN_A_TURN = 4
#: What a caller who has gone is answered: nobody reads it.
_GONE = Reply.of(GONE_STATUS, "text/plain", b"")
#: A connection cannot be used again after a body that was not read to its end.
_CLOSE = {"connection": "close"}


class ClassifyEndpoint:
    """Answers ``POST /classify``. Not thread-safe: use it from one event loop.

    Args:
        classifies: classifies the pictures.
        settings: the limit on the body, and whether accesses are logged.
        metrics: count the outcome of each request.
        access: lets requests in; None for all of them.
        clock: seconds, monotonic, as deadlines are.
    """

    def __init__(
        self,
        classifies: Classifies,
        settings: Settings,
        metrics: RequestMetrics,
        access: AccessControl | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._classifies = classifies
        self._max_body_bytes = settings.max_body_bytes
        self._access_log = settings.access_log
        self._metrics = metrics
        self._access = access
        self._clock = clock
        self._tracing = tracing()
        self._memory = BodyMemory(settings.max_bodies_bytes)
        self._uploads = Uploads(self._memory)
        self._watches = Watches()
        self._turned_away = TurnedAway(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request over ASGI."""
        await (await self.reply(scope, receive)).send(send)

    async def reply(self, scope: Scope, receive: Receive) -> Reply:
        """Reads query and body, classifies each picture, and makes the reply."""
        arrived = self._clock()
        self._metrics.arrived()
        span = None if self._tracing is None else self._tracing.request(Request(scope), arrived)
        # The outcome of a request that is cancelled, by the watch below or by the server, because its caller left.
        outcome, pictures, reply = Outcome(NO_MODEL, GONE), list[Outcome](), _GONE
        room, unread = Room(self._memory), True
        try:
            if self._access is not None:
                self._access.enter(scope, "classify")
            caller = caller_of(scope)
            self._turned_away.check(caller, arrived)
            query = read_query(Query, scope["query_string"])
            head, length = read_head(scope["headers"])
            upload = await self._uploads.read(receive, room, self._max_body_bytes, length, head.copies)
            # Budgets and timings begin here: the time that a client takes to send its body is not the service's.
            arrived, unread = upload.ended, False
            body = await read_body(upload, head, room, self._max_body_bytes)
            # Otherwise the pictures' bytes would be kept a second time.
            del upload
            # An error in the query fails the request, not each of its pictures.
            asking = self._classifies.begin(query, arrived, caller)
            outcome = Outcome(asking.named or NO_MODEL, GONE)
            pictures = [outcome] * len(body.pictures)
            with self._watches.watch(receive):
                results = await self._results(body, asking, span)
                self._turned_away.answered(caller, results)
                if self._access is not None:
                    self._access.answered(scope, results)
                named = asking.named or NO_MODEL
                pictures = [outcome_of(result, named) for result in results]
                outcome = summary(pictures) if body.bulk else pictures[0]
                reply = bulk(results, query.k) if body.bulk else single(results[0], query.k)
        except ClientDisconnect:
            pass
        except Exception as error:
            failure = known_failure(error)
            # It is the request's, so that no picture of it counts.
            outcome, pictures = Outcome(outcome.model, failure.slug), []
            reply = reply_to(failure, _CLOSE if unread and announces_body(scope["headers"]) else None)
        finally:
            room.free()
            took_s = self._clock() - arrived
            self._metrics.left(outcome, pictures, took_s)
            if span is not None:
                span.end(outcome)
            if self._access_log:
                trace_id = None if span is None else span.trace_id
                _log(scope, reply, outcome, len(pictures), took_s, trace_id)
        return reply

    async def _results(self, body: Body, asking: Asking, span: RequestSpan | None) -> list[Classified | Failure]:
        """The result for each picture, in the body's order."""
        if not body.bulk:
            # A task for a single picture would cost one more turn of the event loop.
            return [await _one(body.pictures[0], asking)]
        if not any(isinstance(picture, bytes) and picture for picture in body.pictures):
            # An error of the query comes first. Where another process finds it, it would not without a picture.
            await asking.check()
        ones: list[Callable[[], Coroutine[Any, Any, Classified | Failure]]]
        ones = [partial(_one, picture, asking) for picture in body.pictures]
        if span is not None:

            def told(result: Classified | Failure) -> Outcome:
                return outcome_of(result, asking.named or NO_MODEL)

            ones = [partial(span.picture, index, one, told) for index, one in enumerate(ones)]
        return await _all(ones)


async def _one(picture: bytes | Failure, asking: Asking) -> Classified | Failure:
    if isinstance(picture, Failure):
        return picture
    if not picture:
        return failure_of(NoPictureError("the file is empty"))
    return await asking.classify(picture)


async def _all(
    ones: list[Callable[[], Coroutine[Any, Any, Classified | Failure]]],
) -> list[Classified | Failure]:
    """Runs all at once. An error of the query ends the others, since it is each one's."""
    tasks: list[asyncio.Task[Classified | Failure]] = []
    try:
        for one in ones:
            if tasks and not len(tasks) % _IN_A_TURN:
                await asyncio.sleep(0)
            tasks.append(asyncio.create_task(one()))
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def outcome_of(result: Classified | Failure, named: str) -> Outcome:
    """The outcome of a picture; ``named`` is its model if the router decided on none."""
    if isinstance(result, Failure):
        return Outcome(result.model or named, result.slug)
    return Outcome(result.served.model, OK)


def _log(scope: Scope, reply: Reply, outcome: Outcome, pictures: int, took_s: float, trace_id: str | None) -> None:
    request = Request(scope)
    log_access(
        Access(
            request_id=request.headers.get("x-request-id"),
            method=request.method,
            path=request.url.path,
            status=reply.status,
            server_timing=reply.header("server-timing") or "",
            outcome=outcome,
            pictures=pictures,
            took_s=took_s,
            trace_id=trace_id,
            key=None if (key := scope.get(KEY)) is None else key.name,
        )
    )
