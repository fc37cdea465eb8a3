"""Requests that a front forwards: an application sees them as any other, and its answer comes whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.domain.errors import OverloadedError
from service.link.messages import Call
from service.runtime.calls import called

CALL = Call(7, "POST", "/models/lenet5/löad", b"wait=true", [(b"host", b"localhost")], ("192.0.2.1", 1234))


class App:
    """Answers as a test says, and remembers what it was asked."""

    def __init__(self, *messages: dict[str, Any], error: Exception | None = None) -> None:
        self.messages = messages
        self.error = error
        self.scope: Scope = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.body = await Request(scope, receive).body()
        for message in self.messages:
            await send(message)
        if self.error is not None:
            raise self.error


def start(status: int = 201, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def test_the_answer_has_the_calls_id_and_all_parts_of_the_body() -> None:
    app = App(start(201, (b"a", b"1"), (b"a", b"2")), part(b"one ", more=True), part(b"two"))
    reply = await called(app, CALL)
    assert (reply.id, reply.status, reply.headers, reply.body) == (7, 201, [(b"a", b"1"), (b"a", b"2")], b"one two")


async def test_the_application_sees_the_request_as_the_front_got_it_without_a_body() -> None:
    app = App(start(), part(b""))
    await called(app, CALL)
    request = Request(app.scope)
    assert (request.method, request.url.path, request.url.query) == ("POST", "/models/lenet5/löad", "wait=true")
    assert (request.headers["host"], request.client) == ("localhost", ("192.0.2.1", 1234))
    assert app.body == b""


async def test_a_caller_may_be_unknown() -> None:
    app = App(start(), part(b""))
    await called(app, Call(1, "GET", "/", b"", [], None))
    assert Request(app.scope).client is None


async def test_a_streamed_answer_comes_whole() -> None:
    async def lines() -> AsyncIterator[bytes]:
        for number in range(5):
            await asyncio.sleep(0)
            yield b"%d\n" % number

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(lines())(scope, receive, send)

    reply = await asyncio.wait_for(called(app, CALL), 10)
    assert (reply.status, reply.body) == (200, b"0\n1\n2\n3\n4\n")


async def test_the_caller_counts_as_there() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        await send(start(409 if await request.is_disconnected() else 200))
        await send(part(b""))

    assert (await asyncio.wait_for(called(app, CALL), 10)).status == 200


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [(RuntimeError("secret"), 500, "internal"), (OverloadedError("full", 2.0), 429, "overloaded")],
)
@pytest.mark.parametrize("begun", [False, True], ids=["before the status", "after the status"])
async def test_an_application_that_raises_is_answered_with_a_problem(
    error: Exception, status: int, slug: str, begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await called(App(*([start(200, (b"content-type", b"text/html"))] if begun else []), error=error), CALL)
    document = json.loads(reply.body)
    assert (reply.status, document["status"], document["type"]) == (status, status, f"/problems/{slug}")
    assert reply.headers == [(b"content-type", b"application/problem+json")]
    assert b"secret" not in reply.body
    assert ("secret" in caplog.text) is (slug == "internal")


async def test_an_application_that_raises_after_its_answer_has_answered() -> None:
    reply = await called(App(start(503), part(b"own words"), error=RuntimeError("logged")), CALL)
    assert (reply.status, reply.body) == (503, b"own words")


async def test_a_call_that_is_cancelled_is_no_failure() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(called(app, CALL))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
