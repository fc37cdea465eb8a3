"""The four kinds of users.

In a closed loop each user sends requests of its own kind. In an open loop all users are alike and send what the pool
hands them.
"""

from __future__ import annotations

from time import perf_counter, time
from typing import TYPE_CHECKING, ClassVar

import gevent
from locust import FastHttpUser, between, constant, task
from locust.exception import CatchResponseError, StopUser

from loadtest._connection import FAILURES, Connection, reason
from loadtest._key import authorization
from loadtest._measured import PHASES
from loadtest._outcomes import Outcome, read_outcome, unreachable
from loadtest._requests import Kind, Request

if TYPE_CHECKING:
    from loadtest._pool import Pool
    from loadtest._run import Run

#: A pause after a request without a response: otherwise a service that is down would get connections without end.
_NO_RESPONSE_S = 0.5


class TopFiveUser(FastHttpUser):
    """A user that sends requests over one connection and keeps it."""

    abstract = True
    kind: ClassVar[Kind]
    load: ClassVar[Run]
    """The current run."""
    pool: ClassVar[Pool | None]
    """The pool of an open loop; None in a closed one."""

    def on_start(self) -> None:
        assert self.host is not None
        # A name and a password in the URL may be for a proxy, but there is one header for both.
        self._connection = Connection(self.host, authorization() or self.client.auth_header, self.network_timeout)

    @task
    def work(self) -> None:
        if self.pool is not None:
            self.pool.work(self.send)
            raise StopUser
        if self.load.ended_sending:
            # Locust would end a user that it believes to be between two requests, although it has just begun one.
            raise StopUser
        if not self.send(next(self.load.requests[self.kind])):
            gevent.sleep(_NO_RESPONSE_S)

    def send(self, request: Request, due: float | None = None) -> bool:
        """Sends a request, records what became of it, and returns whether there was a response.

        Args:
            due: when it should have been sent, by ``perf_counter``; None for now.
        """
        began = perf_counter()
        lag_s = None if due is None else began - due
        due = began if due is None else due
        self.load.sent(request, due, lag_s)
        body = b""
        try:
            status, body = self._connection.post(request.path, request.body, request.headers)
            outcome = read_outcome(request, status, body)
        except FAILURES as error:
            outcome = unreachable(reason(error))
        latency_ms = (perf_counter() - due) * 1000
        self.load.ended(request, due, outcome, latency_ms)
        self._enter(request, outcome, latency_ms, len(body))
        if lag_s is not None:
            self.environment.stats.get("lag", "GENERATOR").log(lag_s * 1000, 0)
        return outcome.status > 0

    def _enter(self, request: Request, outcome: Outcome, latency_ms: float, length: int) -> None:
        """Adds a request to Locust's entries; those of phases and models stay out of Locust's sum over requests."""
        refused = outcome.verdict == "refused"
        self.environment.events.request.fire(
            request_type="REFUSED" if refused else "POST",
            name=outcome.refusals[0] if refused else f"/classify {request.name}",
            response_time=latency_ms,
            response_length=length,
            exception=CatchResponseError(outcome.failure) if outcome.failure else None,
            context={},
            start_time=time() - latency_ms / 1000,
            url=request.path,
        )
        stats = self.environment.stats
        for picture in outcome.pictures:
            stats.get(picture.model, "MODEL").log(latency_ms, 0)
            for phase, value in zip(PHASES, picture[2:], strict=True):
                stats.get(phase, "SERVER").log(value, 0)


class ClassifyUser(TopFiveUser):
    """A user that sends one picture and names the model."""

    kind = "classify"
    weight = 4
    wait_time = constant(0)


class BudgetUser(TopFiveUser):
    """A user that sends one picture and a budget; the service picks the model."""

    kind = "budget"
    weight = 2
    wait_time = constant(0)


class BulkUser(TopFiveUser):
    """A user that sends eight pictures at once and then pauses."""

    kind = "bulk"
    weight = 1
    wait_time = between(0.2, 0.6)


class JunkUser(TopFiveUser):
    """A user that now and then sends a body that is not a picture."""

    kind = "junk"
    weight = 1
    wait_time = between(0.5, 2)


USER_CLASSES: dict[Kind, type[TopFiveUser]] = {
    user_class.kind: user_class for user_class in (ClassifyUser, BudgetUser, BulkUser, JunkUser)
}
