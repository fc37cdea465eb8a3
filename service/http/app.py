"""HTTP: paths, their documentation, and problems for everything that is no answer.

Gets everything it needs as arguments, and knows neither Ray nor torch, so that all of HTTP runs in tests without
either.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from models.checkpoints.catalogue import Catalogue
from service.config.settings import Settings
from service.domain.errors import METHOD_NOT_ALLOWED, NOT_FOUND, PROBLEMS, TABLE, Failure, known_failure
from service.domain.placement import Placement
from service.domain.query import Query
from service.http.callers import announces_body
from service.http.classify import ClassifyHandler
from service.http.docs_pages import add_docs_pages
from service.http.models import Paths
from service.http.responses import PROBLEM_MEDIA_TYPE, problem
from service.http.schemas import Answer, BulkAnswer, ProblemDocument, RouteAnswer
from service.inference.classifier import Classifier
from service.routing.router import Router
from service.telemetry.exposition import OwnProcess, Targets, add_metrics_paths
from service.telemetry.recorder import RequestMetrics

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(
    catalogue: Catalogue,
    placement: Placement,
    settings: Settings,
    lifespan: Lifespan | None = None,
    targets: Targets | None = None,
) -> FastAPI:
    """The whole HTTP contract over a catalogue of checkpoints and a placement of predictors. Without targets this
    process is all there is to measure."""
    app = FastAPI(
        title="TopFive",
        description="A picture in, the five most probable labels out.",
        version="0.1.0",
        lifespan=lifespan,
        # FastAPI's own take their scripts from the internet.
        docs_url=None,
        redoc_url=None,
    )
    add_docs_pages(app)
    router = Router(catalogue, placement, settings)
    request_metrics = RequestMetrics(c.variant.name for c in catalogue.checkpoints() if c.state == "loadable")
    path = ClassifyHandler(router, Classifier(router, placement, request_metrics), settings, request_metrics)
    app.add_middleware(_ClassifyFirst, path=path)
    app.add_api_route(
        "/classify",
        path.classify,
        methods=["POST"],
        response_model=None,
        summary="Classify one picture, or up to 64",
        responses=_responses(),
        openapi_extra={"parameters": _parameters(), "requestBody": _REQUEST_BODY},
    )

    paths = Paths(catalogue, placement, router, settings)
    paths.add_to(app)
    app.add_api_route(
        "/route",
        paths.route,
        methods=["POST"],
        response_model=RouteAnswer,
        summary="Which checkpoint would answer now, and why",
        openapi_extra={"parameters": _parameters()},
    )

    add_metrics_paths(app, targets or OwnProcess())

    @app.get("/healthz", summary="200 while the process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/readyz", summary="200 once everything that is to be served is loaded, 503 before and while stopping")
    async def readyz() -> dict[str, str]:
        placement.check_ready()
        return {"status": "ready"}

    @app.get("/problems", summary="Every kind of problem that answers may have")
    async def list_problems() -> dict[str, list[dict[str, Any]]]:
        return {"problems": [_kind(slug) for slug in PROBLEMS]}

    @app.get("/problems/{slug}", summary="What a kind of problem means and what to do about it")
    async def show_problem(slug: str) -> dict[str, Any]:
        if slug not in PROBLEMS:
            raise HTTPException(404)
        return _kind(slug)

    _answer_with_problems(app)
    return app


class _ClassifyFirst:
    """Takes ``POST /classify`` before routing, dependencies and exit stacks do, which that path needs none of and
    which cost it a third of its time. The route stays for the documentation, and for every other method."""

    def __init__(self, app: ASGIApp, path: ClassifyHandler) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/classify" and scope["method"] == "POST":
            response = await self._path.classify(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _answer_with_problems(app: FastAPI) -> None:
    """Everything that is raised in a handler, by Starlette or by us, leaves as a problem document."""

    def unread(request: Request) -> dict[str, str]:
        # None of these paths reads a body, however long it goes on.
        return {"Connection": "close"} if announces_body(request) else {}

    async def from_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED}.get(error.status_code)
        if kind is None:
            return problem(Failure("bad-body", str(error.detail)), unread(request))
        headers = {**(error.headers or {}), **unread(request)}
        return problem(Failure(kind.slug, f"{request.method} {request.url.path}"), headers)

    async def from_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return problem(Failure("bad-parameter", f"{first['loc'][-1]}: {first['msg']}"), unread(request))

    async def from_table(request: Request, error: Exception) -> Response:
        return problem(known_failure(error), unread(request))

    app.add_exception_handler(HTTPException, from_http)
    app.add_exception_handler(RequestValidationError, from_validation)
    for kind in (*TABLE, Exception):
        app.add_exception_handler(kind, from_table)


def _kind(slug: str) -> dict[str, Any]:
    problem = PROBLEMS[slug]
    return {"type": problem.type, "status": problem.status, "title": problem.title, "mend": problem.mend}


_REQUEST_BODY: dict[str, Any] = {
    "description": "The bytes of a JPEG, PNG, WebP, GIF or BMP file; or multipart, every part with a file name; or "
    "JSON with base64. At most 64 pictures.",
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
                    "image": {"type": "string", "description": "base64, or a data: URL"},
                    "images": {"type": "array", "items": {"type": "string"}, "maxItems": 64},
                },
            }
        },
    },
}


def _parameters() -> list[dict[str, Any]]:
    """The query parameters for /docs, out of the model that checks them."""
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
