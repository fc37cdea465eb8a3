"""The ASGI application: its paths, and their documentation for ``/docs``.

It gets everything it needs as arguments and imports neither Ray nor torch, so that tests run all of HTTP without them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from models.checkpoints.catalogue import Catalogue
from service.config.settings import Settings
from service.domain.classified import Classifies
from service.domain.errors import TABLE
from service.domain.placement import Placement
from service.domain.query import Query
from service.http.access import AccessControl, Guard
from service.http.classify import ClassifyEndpoint
from service.http.cors import cross_origin
from service.http.docs_pages import add_docs_pages, document_keys
from service.http.metrics import add_metrics_paths
from service.http.models import ModelPaths
from service.http.others import Others
from service.http.problems import add_problems_paths, answer_errors_with_problems
from service.http.reply import PROBLEM_MEDIA_TYPE
from service.http.schemas import Answer, BulkAnswer, ProblemDocument, RouteAnswer
from service.inference.classifier import Classifier
from service.inference.rated import Rated
from service.routing.router import Router
from service.telemetry.exposition import OwnProcess, Targets
from service.telemetry.recorder import RequestMetrics

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(
    catalogue: Catalogue,
    placement: Placement,
    settings: Settings,
    lifespan: Lifespan | None = None,
    targets: Targets | None = None,
    shares: int = 1,
) -> ClassifyFirst:
    """The whole HTTP contract.

    Args:
        catalogue: the checkpoints that requests may name.
        placement: the predictors that serve them.
        settings: limits, defaults, and whether accesses are logged.
        lifespan: runs while the application does; nothing by default.
        targets: the processes whose metrics ``/metrics`` joins; this process alone by default.
        shares: how many processes like this one divide the requests, and so what a caller may send.
    """
    app = FastAPI(
        title="TopFive",
        description="Send a picture, get its five most probable labels.",
        version="0.1.0",
        lifespan=lifespan,
        # FastAPI's own pages load their scripts from the internet.
        docs_url=None,
        redoc_url=None,
    )
    add_docs_pages(app)
    router = Router(catalogue, placement, settings)
    request_metrics = RequestMetrics(c.variant.name for c in catalogue.checkpoints() if c.state == "loadable")
    classifies: Classifies = Classifier(router, placement, request_metrics)
    access = AccessControl.of(settings)
    others: ASGIApp = Others(app)
    if access is not None:
        rates = access.rates(settings, shares)
        classifies, others = Rated(classifies, rates), Guard(others, access, rates)
        if access.keyring is not None:
            document_keys(app)
    app.add_api_route(
        "/classify",
        _answered_first,
        methods=["POST"],
        response_model=None,
        summary="Classify one picture, or up to 64",
        responses=_responses(),
        openapi_extra={"parameters": _parameters(), "requestBody": _REQUEST_BODY},
    )

    model_paths = ModelPaths(catalogue, placement, router, settings)
    model_paths.add_to(app)
    app.add_api_route(
        "/route",
        model_paths.route,
        methods=["POST"],
        response_model=RouteAnswer,
        summary="Say which checkpoint would answer now, and why",
        openapi_extra={"parameters": _parameters()},
    )

    add_metrics_paths(app, targets or OwnProcess(), keyed=settings.metrics_key)

    @app.get("/healthz", summary="200 while the process runs")
    async def healthz() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/readyz", summary="200 once the networks to serve are loaded; 503 before that, and while stopping")
    async def readyz() -> dict[str, str]:
        placement.check_ready()
        return {"status": "ready"}

    add_problems_paths(app)
    answer_errors_with_problems(app)
    origins = settings.origins
    classify = ClassifyEndpoint(classifies, settings, request_metrics, access)
    return ClassifyFirst(
        cross_origin(others, origins), classifies, cross_origin(classify, origins), app.router.lifespan_context
    )


class ClassifyFirst:
    """The whole HTTP contract as an ASGI application. It answers ``POST /classify`` itself, before FastAPI: its
    middleware, routing, dependencies and exit stacks cost that path a third of its time, and it needs none of them.

    Args:
        others: answers everything else.
        classifies: classifies pictures, for any protocol.
        classify: answers ``POST /classify``.
        lifespan: runs while the application does.
    """

    def __init__(
        self,
        others: ASGIApp,
        classifies: Classifies,
        classify: ASGIApp,
        lifespan: Callable[[Any], AbstractAsyncContextManager[Any]],
    ) -> None:
        self.others = others
        self.classifies = classifies
        self.lifespan = lifespan
        self._classify = classify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = scope["type"] == "http" and scope["path"] == "/classify" and scope["method"] == "POST"
        await (self._classify if first else self.others)(scope, receive, send)


async def _answered_first() -> None:
    """The route ``POST /classify`` as FastAPI knows it, for the documentation and for other methods."""


_REQUEST_BODY: dict[str, Any] = {
    "description": "The bytes of a JPEG, PNG, WebP, GIF or BMP file; or multipart/form-data, whose parts with a file "
    "name are the pictures; or JSON with pictures in base64. At most 64 pictures.",
    "required": True,
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
        },
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "image": {"type": "string", "description": "Base64, or a data: URL."},
                    "images": {"type": "array", "items": {"type": "string"}, "maxItems": 64},
                },
            }
        },
    },
}


def _parameters() -> list[dict[str, Any]]:
    """OpenAPI's description of the query parameters, from the model that checks them."""
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.get("description", ""),
            "schema": schema,
        }
        for name, schema in Query.model_json_schema()["properties"].items()
    ]


def _responses() -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the answers: one for each status."""
    documented: dict[int | str, dict[str, Any]] = {200: {"model": Answer | BulkAnswer}}
    for row in TABLE.values():
        documented.setdefault(
            row.status,
            {
                "description": row.title,
                "content": {PROBLEM_MEDIA_TYPE: {"schema": ProblemDocument.model_json_schema()}},
            },
        )
    return documented
