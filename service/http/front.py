"""The ASGI application of a front: it answers ``POST /classify`` and ``GET /healthz``, and has a device owner answer
everything else. It needs neither FastAPI nor torch, which keeps its process small."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.domain.errors import NotReadyError, failure_of
from service.http.reply import Reply, reply_to
from service.link import messages


class Calls(Protocol):
    """Has a device owner answer requests."""

    async def call(self, call: messages.Call) -> messages.Reply | None:
        """The owner's reply; None if there is no owner."""
        ...


class FrontApp:
    """The whole HTTP contract, with a device owner behind it.

    Args:
        classify: answers ``POST /classify``.
        calls: has an owner answer the rest.
        lifespan: runs while the application does.
        stopping: whether the service is stopping and turns requests away.
    """

    def __init__(
        self,
        classify: ASGIApp,
        calls: Calls,
        lifespan: Callable[[], AbstractAsyncContextManager[None]],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._classify = classify
        self._calls = calls
        self._lifespan = lifespan
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(self._lifespan, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/healthz" and scope["method"] in ("GET", "HEAD"):
            await Reply.of(200, "application/json", b'{"status":"live"}').send(send)
        elif self._stopping():
            failure = failure_of(NotReadyError("the service is stopping"))
            await reply_to(failure, {"connection": "close", "retry-after": "1"}).send(send)
        elif path == "/classify" and scope["method"] == "POST":
            await self._classify(scope, receive, send)
        else:
            await (await self._called(scope)).send(send)

    async def _called(self, scope: Scope) -> Reply:
        client = scope.get("client")
        headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        call = messages.Call(
            0, scope["method"], scope["path"], scope["query_string"], headers, None if client is None else tuple(client)
        )
        reply = await self._calls.call(call)
        if reply is None:
            return reply_to(failure_of(NotReadyError("the device owner is starting")), {"connection": "close"})
        return Reply(reply.status, reply.headers, reply.body)


async def _live(lifespan: Callable[[], AbstractAsyncContextManager[None]], receive: Receive, send: Send) -> None:
    """ASGI's lifespan protocol around a context manager."""
    await receive()
    async with lifespan():
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


class RequestIds:
    """Gives every request an id, if it has none, and returns it with the answer. Ray Serve does that for its replicas;
    an application that is served by itself needs it.

    Args:
        app: answers the requests.
        new: makes an id.
    """

    def __init__(self, app: ASGIApp, new: Callable[[], str]) -> None:
        self._app = app
        self._new = new

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        found = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        if found is None:
            found = self._new().encode("latin-1")
            scope["headers"] = [*scope["headers"], (b"x-request-id", found)]
        identified = (b"x-request-id", found)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], identified]
            await send(message)

        await self._app(scope, receive, send_with_id)
