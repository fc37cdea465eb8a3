"""The paths beside ``/classify``: what would answer (``/route``), what there is, and loading and unloading it."""

from __future__ import annotations

import asyncio
import time

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from models.checkpoints.catalogue import Catalogue, Checkpoint, WeightsMissingError
from service.config.settings import Settings
from service.domain.errors import DEADLINE_MISSED, Failure
from service.domain.placement import Placement
from service.domain.query import Query
from service.http.callers import no_body, only_from_this_machine
from service.http.problems import problem
from service.http.requests import read_query
from service.http.responses import model_row
from service.http.schemas import MemoryRow, ModelList, ModelRow, NoQuery, RouteAnswer, UnloadQuery
from service.routing.router import Router

#: The picture that predictions without one are for: a photograph as phones and cameras' web versions make them.
_PHOTOGRAPH_BYTES = 100_000


class Paths:
    """Handlers over a catalogue and a placement."""

    def __init__(self, catalogue: Catalogue, placement: Placement, router: Router, settings: Settings) -> None:
        self._catalogue = catalogue
        self._placement = placement
        self._router = router
        self._settings = settings

    def add_to(self, app: FastAPI) -> None:
        """Registers the paths that need no documentation beyond their shapes."""
        app.get("/models", summary="Every checkpoint, and every variant that has none")(self.list_models)
        app.get("/models/{name}", summary="One checkpoint, by variant, alias or variant@label_set")(self.show_model)
        from_here = [Depends(only_from_this_machine), Depends(no_body)]
        app.post(
            "/models/{name}/load",
            summary="Load a checkpoint into memory (only from the service's own machine)",
            response_model=ModelRow,
            dependencies=from_here,
        )(self.load_model)
        app.post(
            "/models/{name}/unload",
            summary="Give a checkpoint's memory back (wait=true: once idle; only from the service's own machine)",
            response_model=ModelRow,
            dependencies=from_here,
        )(self.unload_model)

    async def route(self, request: Request) -> RouteAnswer:
        """The decision for a photograph that would come now, without one."""
        query = read_query(Query, request.scope["query_string"])
        now = time.monotonic()
        checkpoints = self._router.candidates(query, now)
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
        """Loads a checkpoint, after which it is first in line to stay. 504 where that takes longer than a request
        may; it goes on all the same."""
        read_query(NoQuery, request.scope["query_string"])
        checkpoint = self._loadable(name)
        try:
            async with asyncio.timeout(self._settings.default_latency_ms / 1000):
                failure = await self._placement.load(checkpoint)
        except TimeoutError:
            failure = Failure(DEADLINE_MISSED, f"{checkpoint.name} is still being loaded")
        return self._answer(checkpoint, failure)

    async def unload_model(self, name: str, request: Request) -> Response:
        """Unloads a checkpoint; it is loaded again when it is asked for. 504 where its requests in flight take longer
        than a request may; it stays in memory then, and takes new ones again."""
        query = read_query(UnloadQuery, request.scope["query_string"])
        checkpoint = self._loadable(name)
        try:
            async with asyncio.timeout(self._settings.default_latency_ms / 1000):
                failure = await self._placement.unload(checkpoint, wait=query.wait)
        except TimeoutError:
            failure = Failure(DEADLINE_MISSED, f"{checkpoint.name} is still in use, and stays in memory")
        return self._answer(checkpoint, failure)

    def _loadable(self, name: str) -> Checkpoint:
        checkpoint = self._catalogue.find(name)
        if checkpoint.state != "loadable":
            raise WeightsMissingError(checkpoint)
        return checkpoint

    def _answer(self, checkpoint: Checkpoint, failure: Failure | None) -> Response:
        return problem(failure) if failure is not None else JSONResponse(self._row(checkpoint).model_dump(mode="json"))

    def _row(self, checkpoint: Checkpoint) -> ModelRow:
        (candidate,) = self._placement.survey([checkpoint], _PHOTOGRAPH_BYTES).candidates
        accuracy = self._placement.accuracy(checkpoint)
        failure = self._placement.failure(checkpoint)
        # Of a file that is still being loaded, the one before is served.
        served = candidate.checkpoint if isinstance(candidate.checkpoint, Checkpoint) else checkpoint
        return model_row(served, self._placement.resident(checkpoint), candidate.snapshot, accuracy, failure)
