"""Problem documents (RFC 9457): whatever is no answer leaves as one, and ``/problems`` explains each kind."""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service.domain.errors import (
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    PROBLEMS,
    SLOW_BODY,
    TABLE,
    Failure,
    known_failure,
    problem_document,
)
from service.http.callers import announces_body

PROBLEM_MEDIA_TYPE = "application/problem+json"


def problem(failure: Failure, headers: dict[str, str] | None = None) -> Response:
    """A problem document, with Retry-After in whole seconds where the failure knows when to come back."""
    headers = dict(headers or {})
    if failure.slug == SLOW_BODY:
        # What is left of the body is not read any more.
        headers["Connection"] = "close"
    retry_after_ms = failure.extras.get("retry_after_ms")
    if retry_after_ms is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_ms / 1000)))
    return JSONResponse(problem_document(failure), failure.status, headers, media_type=PROBLEM_MEDIA_TYPE)


def add_problems_paths(app: FastAPI) -> None:
    """Registers ``/problems`` and a path for each kind below it."""

    @app.get("/problems", summary="Every kind of problem that answers may have")
    async def list_problems() -> dict[str, list[dict[str, Any]]]:
        return {"problems": [_kind(slug) for slug in PROBLEMS]}

    @app.get("/problems/{slug}", summary="What a kind of problem means and what to do about it")
    async def show_problem(slug: str) -> dict[str, Any]:
        if slug not in PROBLEMS:
            raise HTTPException(404)
        return _kind(slug)


def answer_with_problems(app: FastAPI) -> None:
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
