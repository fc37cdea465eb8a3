"""Answers an HTTP request that a front has forwarded, with an ASGI application of this process."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import ASGIApp, Message

from service.domain.errors import known_failure, problem_document
from service.link.messages import Call, Reply


async def called(app: ASGIApp, call: Call) -> Reply:
    """Has an application answer a request without a body, and gathers the answer."""
    status, headers, parts, sent = 500, list[tuple[bytes, bytes]](), list[bytes](), False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            # The caller is still there. When it has gone, this request is cancelled.
            await asyncio.Event().wait()
        sent = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], [(bytes(n), bytes(v)) for n, v in message["headers"]]
        else:
            parts.append(message.get("body", b""))

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "method": call.method,
        "path": call.path,
        "raw_path": call.path.encode(),
        "root_path": "",
        "query_string": call.query,
        "headers": call.headers,
        "client": call.client,
        "server": None,
    }
    try:
        await app(scope, receive, send)
    except Exception as error:
        failure = known_failure(error, f"{call.method} {call.path} failed")
        if not parts:
            status, headers = failure.status, [(b"content-type", b"application/problem+json")]
            parts = [json.dumps(problem_document(failure)).encode()]
    return Reply(call.id, status, headers, b"".join(parts))
