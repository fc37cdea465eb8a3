"""Errors as HTTP: a problem document (RFC 9457) for each failure, and ``/problems``, which explains each kind."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from models.validation import first_error
from service.domain.errors import (
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    PROBLEMS,
    TABLE,
    BadBodyError,
    BadParameterError,
    Failure,
    known_failure,
)
from service.http.reply import reply_to
from service.http.requests import announces_body


def problem(failure: Failure, headers: dict[str, str] | None = None) -> Response:
    """``reply_to`` as a response of Starlette."""
    return reply_to(failure, headers).response()


def add_problems_paths(app: FastAPI) -> None:
    """Adds ``GET /problems`` and ``GET /problems/{slug}``, where the ``type`` of every problem document leads."""

    @app.get("/problems", summary="Every kind of problem that an answer can report")
    async def list_problems() -> dict[str, list[dict[str, Any]]]:
        return {"problems": [_kind(slug) for slug in PROBLEMS]}

    @app.get("/problems/{slug}", summary="What a kind of problem means and what to do about it")
    async def show_problem(slug: str) -> dict[str, Any]:
        if slug not in PROBLEMS:
            raise HTTPException(404)
        return _kind(slug)


def answer_errors_with_problems(app: FastAPI) -> None:
    """Makes the app answer every exception with a problem document, whether a handler, FastAPI or Starlette raised
    it."""
    app.add_exception_handler(HTTPException, _from_http)
    app.add_exception_handler(RequestValidationError, _from_validation)
    for kind in (*TABLE, Exception):
        app.add_exception_handler(kind, _from_table)


async def _from_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED}.get(error.status_code)
    if kind is None:
        return problem(Failure(TABLE[BadBodyError].slug, str(error.detail)), _unread(request))
    headers = {**(error.headers or {}), **_unread(request)}
    return problem(Failure(kind.slug, f"{request.method} {request.url.path}"), headers)


async def _from_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem(Failure(TABLE[BadParameterError].slug, str(first_error(error))), _unread(request))


async def _from_table(request: Request, error: Exception) -> Response:
    return problem(known_failure(error), _unread(request))


def _unread(request: Request) -> dict[str, str]:
    """The headers of an answer to a request whose body, if it has one, was not read."""
    return {"Connection": "close"} if announces_body(request.scope["headers"]) else {}


def _kind(slug: str) -> dict[str, Any]:
    problem = PROBLEMS[slug]
    return {"type": problem.type, "status": problem.status, "title": problem.title, "mend": problem.mend}
