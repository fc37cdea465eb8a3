"""Problem documents and their headers, and that every error becomes one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from service.domain.errors import BadBodyError, Failure, OverloadedError, failure_of
from service.http.problems import answer_errors_with_problems
from service.http.problems import problem as problem_response
from tests.fakes import Fakes
from tests.problems import problem


@pytest.mark.parametrize(
    ("retry_after_ms", "seconds"),
    [
        (0.0, "1"),
        (0.4, "1"),
        (999.9, "1"),
        (1000.0, "1"),
        (1000.1, "2"),
        (1200.0, "2"),
        (1999.9, "2"),
        (2000.0, "2"),
        (2000.1, "3"),
        (3_600_000.0, "3600"),
    ],
)
def test_retry_after_is_in_whole_seconds_rounded_up(retry_after_ms: float, seconds: str) -> None:
    response = problem_response(Failure("overloaded", "full", {"retry_after_ms": retry_after_ms}))
    assert response.headers["retry-after"] == seconds


def test_an_overload_says_in_both_forms_when_to_come_back() -> None:
    response = problem_response(failure_of(OverloadedError("full", 1.2)))
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")
    assert b'"retry_after_ms":1200.0' in bytes(response.body)


@pytest.mark.parametrize(("slug", "closed"), [("slow-body", True), ("body-too-large", False), ("overloaded", False)])
def test_only_a_slow_body_closes_the_connection(slug: str, closed: bool) -> None:
    headers = {"x-own": "kept"}
    response = problem_response(Failure(slug, "said"), headers)
    assert (response.headers.get("connection") == "close") is closed
    assert response.headers["x-own"] == "kept"
    assert "retry-after" not in response.headers
    assert headers == {"x-own": "kept"}


@pytest.fixture
async def small() -> AsyncIterator[httpx.AsyncClient]:
    """An app with paths that fail in every way, also in ways in which no path of the service fails."""
    app = FastAPI()
    answer_errors_with_problems(app)

    @app.post("/number/{number}")
    async def number(number: int) -> int:
        return number

    @app.post("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout")

    @app.post("/broken")
    async def broken() -> None:
        raise KeyError("secret")

    @app.post("/known")
    async def known() -> None:
        raise BadBodyError("it is broken")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize(
    ("path", "status", "slug", "says"),
    [
        ("/number/seven", 400, "bad-parameter", "path.number: Input should be a valid integer"),
        ("/teapot", 400, "bad-body", "short and stout"),
        ("/broken", 500, "internal", "the service failed on this request; its log has the cause"),
        ("/known", 400, "bad-body", "it is broken"),
        ("/nowhere", 404, "not-found", "POST /nowhere"),
    ],
)
async def test_every_error_becomes_a_problem_and_an_unread_body_closes_the_connection(
    small: httpx.AsyncClient, path: str, status: int, slug: str, says: str
) -> None:
    answer = await small.post(path)
    assert problem(answer, status, slug)["detail"].startswith(says)
    assert "secret" not in answer.text
    assert "connection" not in answer.headers
    answer = await small.post(path, content=b"a body")
    problem(answer, status, slug)
    assert answer.headers["connection"] == "close"


async def test_every_problem_type_resolves(fakes: Fakes) -> None:
    async with fakes.client() as client:
        rows = (await client.get("/problems")).json()["problems"]
        assert {"bad-body", "overloaded", "not-found", "internal"} <= {row["type"].split("/")[2] for row in rows}
        for row in rows:
            assert set(row) == {"type", "status", "title", "mend"}
            assert (await client.get(row["type"])).json() == row
        problem(await client.get("/problems/none-such"), 404, "not-found")


async def test_other_paths_and_methods_are_problems_too(fakes: Fakes) -> None:
    async with fakes.client() as client:
        problem(await client.get("/nothing"), 404, "not-found")
        answer = await client.get("/classify")
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == "OPTIONS, POST"
