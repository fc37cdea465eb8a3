"""The ASGI application of a front: it answers ``POST /classify`` and ``GET /healthz``, and has a device owner answer
everything else. It needs neither FastAPI nor torch, which keeps its process small."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

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
    """

    def __init__(
        self,
        classify: ASGIApp,
        calls: Calls,
        lifespan: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self._classify = classify
        self._calls = calls
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(self._lifespan, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/healthz" and scope["method"] in ("GET", "HEAD"):
            await Reply.of(200, "application/json", b'{"status":"live"}').send(send)
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
