"""``GET /metrics``, the sum over all processes, and ``GET /metrics/targets``, the list of them for Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.domain.errors import NotReadyError
from service.http.requests import read_query
from service.http.schemas import TargetsQuery
from service.telemetry.exposition import Targets, added_up, read_all
from service.telemetry.metrics import REGISTRY


def add_metrics_paths(app: FastAPI, targets: Targets) -> None:
    """Adds both paths to the app."""

    @app.get("/metrics", summary="All processes' metrics, added up", response_class=Response)
    async def metrics() -> Response:
        try:
            found = await targets.find("topfive")
        except NotReadyError:
            found = []
        texts = await read_all(found)
        # In a thread: it takes milliseconds, in which requests must go on.
        text = await (asyncio.to_thread(added_up, texts) if texts else asyncio.to_thread(generate_latest, REGISTRY))
        headers = {"X-Processes": f"{len(texts)} of {len(found)}"} if found else {}
        return Response(text, media_type=CONTENT_TYPE_LATEST, headers=headers)

    @app.get("/metrics/targets", summary="Where Prometheus finds each process (http_sd)")
    async def metrics_targets(request: Request) -> JSONResponse:
        query = read_query(TargetsQuery, request.scope["query_string"])
        found = await targets.find(query.job)
        return JSONResponse([{"targets": [target.address], "labels": target.labels} for target in found])
