"""What stands before an application where neither Ray Serve nor HAProxy does."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from service.http.edge import Edge


class App:
    """Answers with what it is told, and remembers the scopes."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            request = Request(scope, receive)
            text = f"{request.headers.get('x-request-id')} {(await request.body()).decode()}"
            await PlainTextResponse(text, 201, {"x-other": "kept"})(scope, receive, send)


def client_of(edge: Edge, address: tuple[str, int] = ("192.0.2.7", 80)) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(edge, client=address), base_url="http://localhost")


async def test_a_request_without_an_id_gets_one_and_the_answer_has_it() -> None:
    app = App()
    ids = iter(["one", "two"])
    async with client_of(Edge(app, new_id=lambda: next(ids))) as client:
        replies = [await client.post("/a", content=b"body") for _ in range(2)]
    assert [reply.text for reply in replies] == ["one body", "two body"]
    assert [reply.headers.get_list("x-request-id") for reply in replies] == [["one"], ["two"]]
    assert [(reply.status_code, reply.headers["x-other"]) for reply in replies] == [(201, "kept")] * 2


async def test_a_requests_own_id_is_kept() -> None:
    app = App()
    async with client_of(Edge(app, new_id=lambda: pytest.fail("no other id is needed"))) as client:
        reply = await client.get("/a", headers={"X-Request-ID": "mine"})
    assert reply.text == "mine "
    assert reply.headers.get_list("x-request-id") == ["mine"]
    assert [name for name, _ in app.scopes[0]["headers"]].count(b"x-request-id") == 1


async def test_ids_differ() -> None:
    app = App()
    async with client_of(Edge(app)) as client:
        found = {(await client.get("/a")).headers["x-request-id"] for _ in range(10)}
    assert len(found) == 10


async def test_while_the_service_stops_all_but_the_health_check_is_turned_away() -> None:
    app, stopping = App(), False
    async with client_of(Edge(app, lambda: stopping, lambda: "id")) as client:
        assert (await client.post("/classify", content=b"x")).status_code == 201
        stopping = True
        assert (await client.get("/healthz")).status_code == 201
        for method, path in (("POST", "/classify"), ("GET", "/readyz"), ("GET", "/healthz/")):
            reply = await client.request(method, path)
            assert (reply.status_code, reply.json()["type"]) == (503, "/problems/not-ready")
            assert (reply.headers["connection"], reply.headers["retry-after"]) == ("close", "1")
            assert reply.headers["x-request-id"] == "id"
    assert [scope["path"] for scope in app.scopes] == ["/classify", "/healthz"]


@pytest.mark.parametrize(("client", "seen"), [(("192.0.2.7", 80), ("192.0.2.7", 80)), (None, ("127.0.0.1", 0))])
async def test_who_connects_over_a_unix_socket_is_on_this_machine(client: Any, seen: tuple[str, int]) -> None:
    app = App()
    async with client_of(Edge(app), client) as asked:
        await asked.get("/a")
    assert app.scopes[0]["client"] == seen


async def test_what_is_no_request_passes() -> None:
    app = App()
    scope = {"type": "lifespan"}
    await Edge(app, lambda: True)(scope, None, None)  # type: ignore[arg-type]  # nothing is received or sent
    assert app.scopes == [{"type": "lifespan"}]


async def test_a_long_id_is_replaced() -> None:
    """It would go into the answer, the log and every trace."""
    for length, kept in ((200, True), (201, False)):
        seen: list[Any] = []

        async def app(scope: Any, _receive: Any, _send: Any, seen: list[Any] = seen) -> None:
            seen.extend(value for name, value in scope["headers"] if name == b"x-request-id")

        scope = {"type": "http", "path": "/", "client": None, "headers": [(b"x-request-id", length * b"a")]}
        await Edge(app, new_id=lambda: "new")(scope, nothing, nothing)
        assert seen == [length * b"a" if kept else b"new"]


async def nothing(*_arguments: Any) -> Any:
    raise AssertionError
