"""``/models``: list checkpoints, load and unload them. And ``POST /route``: which of them would answer now."""

from __future__ import annotations

import asyncio
import time

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from models.checkpoints.catalogue import Catalogue, Checkpoint, WeightsMissingError
from service.access.cooldown import Cooldown
from service.config.settings import Settings
from service.domain.errors import DEADLINE_MISSED, Failure, RateLimitedError
from service.domain.placement import Placement
from service.domain.query import Query
from service.http.callers import no_body, only_from_this_machine
from service.http.problems import problem
from service.http.requests import read_query
from service.http.responses import model_row
from service.http.schemas import MemoryRow, ModelList, ModelRow, NoQuery, RouteAnswer, UnloadQuery
from service.routing.router import Router

#: Predictions that are made without a picture assume a photograph of this size, as phones make them for the web.
_PHOTOGRAPH_BYTES = 100_000
#: How soon a checkpoint may be loaded, or unloaded, by hand again. The requests that come next pay for each unload with
#: a load: five a second took a network from 112 to 22 requests a second.
_AGAIN_AFTER_S = 30.0


class ModelPaths:
    """The handlers of these paths."""

    def __init__(self, catalogue: Catalogue, placement: Placement, router: Router, settings: Settings) -> None:
        self._catalogue = catalogue
        self._placement = placement
        self._router = router
        self._settings = settings
        self._cooldown = Cooldown(_AGAIN_AFTER_S)

    def add_to(self, app: FastAPI) -> None:
        """Adds the paths below ``/models``; ``/route`` needs the documentation that ``/classify`` has."""
        app.get("/models", summary="List every checkpoint, and every variant that has none")(self.list_models)
        app.get("/models/{name}", summary="Show one, by variant, alias or variant@label_set")(self.show_model)
        from_here = [Depends(only_from_this_machine), Depends(no_body)]
        app.post(
            "/models/{name}/load",
            summary="Load a checkpoint into memory (only from the service's own machine)",
            response_model=ModelRow,
            dependencies=from_here,
        )(self.load_model)
        app.post(
            "/models/{name}/unload",
            summary="Unload a checkpoint from memory (wait=true: once it is idle; only from the service's own machine)",
            response_model=ModelRow,
            dependencies=from_here,
        )(self.unload_model)

    async def route(self, request: Request) -> RouteAnswer:
        """Decides as for a photograph that arrives now, and neither queues nor loads anything."""
        query = read_query(Query, request.scope["query_string"])
        now = time.monotonic()
        checkpoints = self._router.candidates(query)
        decision = self._router.decide(query, checkpoints, now, _PHOTOGRAPH_BYTES, supposing=True)
        routing, snapshot = decision.routing, decision.snapshot
        return RouteAnswer(
            model=decision.checkpoint.model,
            predicted_ms=None if decision.predicted_s is None else round(decision.predicted_s * 1000, 3),
            footprint_mb=None if snapshot is None else round(snapshot.footprint_bytes / 1e6, 1),
            reason="named, without a budget" if routing is None else routing.reason,
            considered=[] if routing is None else routing.considered,
        )

    async def list_models(self) -> ModelList:
        memory = [
            MemoryRow(device=m.device, limit_mb=round(m.limit / 1e6, 1), held_mb=round(m.held / 1e6, 1))
            for m in self._placement.memory()
        ]
        return ModelList(models=[self._row(c) for c in self._catalogue.checkpoints()], memory=memory)

    async def show_model(self, name: str) -> ModelRow:
        return self._row(self._catalogue.find(name))

    async def load_model(self, name: str, request: Request) -> Response:
        """Loads a checkpoint, which counts as a use of it. Answers 504 after the default latency; the load goes on."""
        read_query(NoQuery, request.scope["query_string"])
        checkpoint = self._loadable(name)
        changes = not self._placement.resident(checkpoint)
        self._not_too_soon("loaded", checkpoint, changes=changes)
        try:
            async with asyncio.timeout(self._settings.default_latency_ms / 1000):
                failure = await self._placement.load(checkpoint)
        except TimeoutError:
            failure = Failure(DEADLINE_MISSED, f"{checkpoint.name} is still loading; GET /models says when it is ready")
        self._changed("loaded", checkpoint, failure, changes=changes)
        return self._answer(checkpoint, failure)

    async def unload_model(self, name: str, request: Request) -> Response:
        """Unloads a checkpoint; the next request for it loads it again. Answers 504 if its requests in flight take
        longer than the default latency; it then stays in memory and takes new requests again."""
        query = read_query(UnloadQuery, request.scope["query_string"])
        checkpoint = self._loadable(name)
        changes = self._placement.resident(checkpoint)
        self._not_too_soon("unloaded", checkpoint, changes=changes)
        try:
            async with asyncio.timeout(self._settings.default_latency_ms / 1000):
                failure = await self._placement.unload(checkpoint, wait=query.wait)
        except TimeoutError:
            failure = Failure(DEADLINE_MISSED, f"{checkpoint.name} is still in use, and stays in memory")
            # Meanwhile it took no new requests.
            self._cooldown.done(("unloaded", checkpoint.name))
        self._changed("unloaded", checkpoint, failure, changes=changes)
        return self._answer(checkpoint, failure)

    def _not_too_soon(self, what: str, checkpoint: Checkpoint, *, changes: bool) -> None:
        """Refuses a load or an unload that would change something, if the last one was a moment ago.

        Raises:
            RateLimitedError: it was.
        """
        wait_s = self._cooldown.wait_s((what, checkpoint.name)) if changes else 0.0
        if wait_s > 0:
            raise RateLimitedError(f"{checkpoint.name} was {what} by hand less than {_AGAIN_AFTER_S:g} s ago", wait_s)

    def _changed(self, what: str, checkpoint: Checkpoint, failure: Failure | None, *, changes: bool) -> None:
        if changes and failure is None:
            self._cooldown.done((what, checkpoint.name))

    def _loadable(self, name: str) -> Checkpoint:
        checkpoint = self._catalogue.find(name)
        if checkpoint.state != "loadable":
            raise WeightsMissingError(checkpoint)
        return checkpoint

    def _answer(self, checkpoint: Checkpoint, failure: Failure | None) -> Response:
        return problem(failure) if failure is not None else JSONResponse(self._row(checkpoint).model_dump(mode="json"))

    def _row(self, checkpoint: Checkpoint) -> ModelRow:
        # While a new file is being loaded, the one before is served.
        ((served, snapshot),) = self._placement.survey([checkpoint], _PHOTOGRAPH_BYTES).snapshots
        failure = self._placement.failure(checkpoint)
        safety = None if snapshot is None else self._router.safety(served)
        return model_row(served, self._placement.resident(checkpoint), snapshot, safety, failure)
