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

#: Where a key may be.
_KEYS = ("authorization", "x-api-key")


def add_metrics_paths(app: FastAPI, targets: Targets, *, keyed: bool = False) -> None:
    """Adds both paths to the app.

    Args:
        app: the app.
        targets: where the metrics are.
        keyed: whether they may only be read with a key. That of whoever asks for the sum is used.
    """

    @app.get("/metrics", summary="All processes' metrics, added up", response_class=Response)
    async def metrics(request: Request) -> Response:
        try:
            found = await targets.find("topfive")
        except NotReadyError:
            found = []
        sent = {name: request.headers[name] for name in _KEYS if keyed and name in request.headers}
        texts = await read_all(found, sent)
        # In a thread: it takes milliseconds, in which requests must go on.
        text = await (asyncio.to_thread(added_up, texts) if texts else asyncio.to_thread(generate_latest, REGISTRY))
        headers = {"X-Processes": f"{len(texts)} of {len(found)}"} if found else {}
        return Response(text, media_type=CONTENT_TYPE_LATEST, headers=headers)

    @app.get("/metrics/targets", summary="Where Prometheus finds each process (http_sd)")
    async def metrics_targets(request: Request) -> JSONResponse:
        query = read_query(TargetsQuery, request.scope["query_string"])
        found = await targets.find(query.job)
        return JSONResponse([{"targets": [target.address], "labels": target.labels} for target in found])
