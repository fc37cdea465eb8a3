"""The ASGI application of a front: it answers ``POST /classify`` and ``GET /healthz``, and has a device owner answer
everything else. It needs neither FastAPI nor torch, which keeps its process small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from service.domain.errors import NotReadyError, failure_of
from service.http.cors import cross_origin
from service.http.others import body_refused, without_body
from service.http.reply import Reply, reply_to
from service.http.requests import announces_body
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
        origins: whose web pages may call it; the owner must know the same.
    """

    def __init__(
        self,
        classify: ASGIApp,
        calls: Calls,
        lifespan: Callable[[], AbstractAsyncContextManager[None]],
        origins: Sequence[str] = (),
    ) -> None:
        self._classify = cross_origin(classify, origins)
        self._live = cross_origin(self._health, origins)
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
            await self._live(scope, receive, send)
        elif path == "/classify" and scope["method"] == "POST":
            await self._classify(scope, receive, send)
        else:
            await (await self._called(scope)).send(send)

    async def _health(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if announces_body(scope["headers"]):
            await body_refused(scope["method"], scope["path"]).send(send)
        else:
            reply = Reply.of(200, "application/json", b'{"status":"live"}')
            await reply.send(without_body(send) if scope["method"] == "HEAD" else send)

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
