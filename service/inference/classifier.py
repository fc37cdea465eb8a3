"""Classification of one picture: a decision of the router, then a prediction of the checkpoint that it names.

``Classifier.classify`` knows no protocol. Every protocol calls it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from models.checkpoints.catalogue import Checkpoint
from service.domain.classified import Classified
from service.domain.decision import Decision
from service.domain.ensemble import Ensemble
from service.domain.errors import DEADLINE_MISSED, OVERLOADED, Failure, known_failure, of_a_load
from service.domain.outcome import OK
from service.domain.picture import Picture
from service.domain.placement import Placement
from service.domain.query import Query
from service.inference.ensemble import predictor
from service.routing.router import Router
from service.telemetry.recorder import RequestMetrics


class Classifier:
    """Classifies pictures, one per call. Not thread-safe: use it from one event loop.

    Args:
        router: decides which checkpoint answers.
        placement: where the checkpoints are served.
        metrics: count the outcome of each picture.
        clock: seconds, monotonic, as deadlines are.
    """

    def __init__(
        self,
        router: Router,
        placement: Placement,
        metrics: RequestMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._router = router
        self._placement = placement
        self._metrics = metrics
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()

    def begin(self, query: Query, arrived: float, caller: str = "") -> Request:
        """Finds the candidates of a request, as ``Classifies.begin`` says."""
        return Request(self, query, self._router.candidates(query), arrived, caller)

    async def classify(
        self,
        picture: bytes | Picture,
        query: Query,
        candidates: Sequence[Checkpoint | Ensemble],
        arrived: float,
        caller: str = "",
    ) -> Classified | Failure:
        """Classifies one picture. Returns errors as values, since each picture of a request has its own answer.

        Args:
            picture: the bytes of an encoded picture.
            query: the caller's request.
            candidates: the result of ``router.candidates`` for the query.
            arrived: when the picture's last byte arrived, on the clock; the budget begins here.
            caller: who asks.
        """
        try:
            if isinstance(candidates[-1], Ensemble):
                # The members join their queues one turn of the event loop after the decision. The next ensemble is
                # decided on after that, so that it sees them there.
                async with self._one_at_a_time:
                    await asyncio.sleep(0)
            # Nothing is awaited between the decision and joining the queue, so that the next decision sees the picture.
            decision = self._router.decide(query, candidates, arrived, len(picture), caller, picture=picture)
            done = await self._predict(picture, query, decision, arrived, caller)
            if query.model is None and of_a_load(done):
                done = await self._decide_again(picture, query, decision, arrived, done, caller)
            return done
        except Exception as error:
            failure = known_failure(error)
            if failure.slug in (OVERLOADED, DEADLINE_MISSED):
                self._metrics.shed("router" if failure.slug == OVERLOADED else "deadline")
            return failure

    async def _decide_again(
        self,
        picture: bytes | Picture,
        query: Query,
        decision: Decision,
        arrived: float,
        first: Classified | Failure,
        caller: str,
    ) -> Classified | Failure:
        """Decides again without the checkpoints that could not be loaded, until one answers. Returns the first failure
        if no other checkpoint can answer."""
        done, tried = first, {decision.checkpoint.name}
        while of_a_load(done):
            try:
                candidates = self._router.candidates(query)
                rest = [c for c in candidates if c.name not in tried]
                if not any(c.state == "loadable" for c in rest):
                    return first
                decision = self._router.decide(query, rest, arrived, len(picture), caller, picture=picture)
            except Exception as error:
                known_failure(error)
                return first
            tried.add(decision.checkpoint.name)
            done = await self._predict(picture, query, decision, arrived, caller)
        return done

    async def _predict(
        self, picture: bytes | Picture, query: Query, decision: Decision, arrived: float, caller: str
    ) -> Classified | Failure:
        decided = self._clock()
        serving = predictor(self._placement, decision.checkpoint, self._clock)
        self._metrics.routed(decision)
        allowed_s = self._router.allowed_s(query)
        with self._router.admit(decision, arrived + allowed_s, caller):
            outcome = await serving.predict(picture, arrived + allowed_s, False, caller)
        now = self._clock()
        reason = outcome.slug if isinstance(outcome, Failure) else OK
        model, predicted_s = decision.checkpoint.model, decision.predicted_s
        if reason in (OK, DEADLINE_MISSED):
            self._metrics.kept(model, (now - arrived) / allowed_s, late=reason != OK)
            if predicted_s is not None:
                self._router.learn(decision, now - decided, missed=reason != OK)
                self._metrics.predicted(model, (now - decided) / predicted_s)
        if isinstance(outcome, Failure):
            if reason in (OVERLOADED, DEADLINE_MISSED):
                self._metrics.shed("queue" if reason == OVERLOADED else "deadline")
            return replace(outcome, model=model)
        self._metrics.answered(model, outcome.decode_s, outcome.queue_s, outcome.forward_s)
        return Classified(outcome, decision.checkpoint, decision.routing, now - arrived)


class Request:
    """One request: a ``domain.classified.Asking``.

    Args:
        classifier: classifies its pictures.
        query: what the caller asks for.
        candidates: the result of ``router.candidates`` for the query.
        arrived: when the body's last byte arrived, on the classifier's clock.
        caller: who asks.
    """

    __slots__ = ("_arrived", "_caller", "_candidates", "_classifier", "_query")

    def __init__(
        self,
        classifier: Classifier,
        query: Query,
        candidates: Sequence[Checkpoint | Ensemble],
        arrived: float,
        caller: str = "",
    ) -> None:
        self._classifier = classifier
        self._query = query
        self._candidates = candidates
        self._arrived = arrived
        self._caller = caller

    @property
    def named(self) -> str | None:
        if self._query.model is None:
            return None
        return self._candidates[0].model

    async def check(self) -> None:
        """``Classifier.begin`` has done so."""

    async def classify(self, picture: bytes | Picture) -> Classified | Failure:
        return await self._classifier.classify(picture, self._query, self._candidates, self._arrived, self._caller)
