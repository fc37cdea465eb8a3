"""Requests over ASGI that httpx does not make: without a body that may be read, or from another address."""

from __future__ import annotations

from typing import Any

import httpx


async def raw(
    client: httpx.AsyncClient,
    path: str,
    headers: list[tuple[bytes, bytes]],
    peer: tuple[str, int] | None = ("127.0.0.1", 1),
) -> list[dict[str, Any]]:
    """Sends a request whose body must not be read, and returns the messages of the response."""
    app = client._transport.app  # type: ignore[attr-defined]
    path, _, query = path.partition("?")
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body is read")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": query.encode(),
        "headers": headers,
        "client": peer,
    }
    await app(scope, receive, send)
    return sent


def asks_from(client: httpx.AsyncClient, peer: str) -> httpx.AsyncClient:
    """A client of the same app whose requests come from another address."""
    transport = httpx.ASGITransport(client._transport.app, client=(peer, 1))  # type: ignore[attr-defined]
    return httpx.AsyncClient(transport=transport, base_url=client.base_url)
