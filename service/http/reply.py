"""A whole HTTP reply, as the path of ``POST /classify`` sends it: Starlette's responses cost more than the JSON in
them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import Send

from service.domain.errors import (
    ROLE_TOO_SMALL,
    SLOW_BODY,
    UNAUTHORIZED,
    UNSUPPORTED_ENCODING,
    Failure,
    problem_document,
)
from service.http.encodings import TAKEN

PROBLEM_MEDIA_TYPE = "application/problem+json"


class Reply(NamedTuple):
    """Status, headers and body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    """Names in lower case, as ASGI wants them."""
    body: bytes

    @classmethod
    def of(cls, status: int, media_type: str, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """A reply with a body and further headers."""
        found = [(b"content-length", b"%d" % len(body)), (b"content-type", media_type.encode("latin-1"))]
        for name, value in (headers or {}).items():
            found.append((name.lower().encode("latin-1"), value.encode("latin-1")))
        return cls(status, found, body)

    def header(self, name: str) -> str | None:
        """The first header of that name, if there is one."""
        wanted = name.lower().encode("latin-1")
        return next((value.decode("latin-1") for found, value in self.headers if found == wanted), None)

    def response(self) -> Response:
        """The same as a response of Starlette."""
        response = Response(status_code=self.status)
        response.raw_headers, response.body = self.headers, self.body
        return response

    async def send(self, send: Send) -> None:
        """Sends it over ASGI."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


def reply_to(failure: Failure, headers: dict[str, str] | None = None) -> Reply:
    """The reply to a request that failed. ``Retry-After`` is in whole seconds, rounded up; ``retry_after_ms`` in the
    document is exact."""
    headers = dict(headers or {})
    if failure.slug == SLOW_BODY:
        # The rest of the body is not read, so the connection cannot be used again.
        headers["connection"] = "close"
    if failure.slug == UNSUPPORTED_ENCODING:
        headers["accept-encoding"] = TAKEN
    retry_after_ms = failure.extras.get("retry_after_ms")
    if retry_after_ms is not None:
        headers["retry-after"] = str(max(1, math.ceil(retry_after_ms / 1000)))
    if failure.status in (401, 403):
        headers |= _challenge(failure)
    if quota := failure.extras.get("quota"):
        # draft-ietf-httpapi-ratelimit-headers: nothing is left until the window ends.
        headers["ratelimit-policy"] = f'"pictures";q={quota["pictures"]};w={quota["seconds"]}'
        headers["ratelimit"] = f'"pictures";r=0;t={headers["retry-after"]}'
    body = json.dumps(problem_document(failure), ensure_ascii=False, separators=(",", ":")).encode()
    return Reply.of(failure.status, PROBLEM_MEDIA_TYPE, body, headers)


def _challenge(failure: Failure) -> dict[str, str]:
    """How to send a key, and what was wrong with the one that came (RFC 6750, section 3)."""
    if failure.slug == UNAUTHORIZED:
        wrong = ', error="invalid_token"' if failure.extras.get("wrong") else ""
        return {"www-authenticate": f'Bearer realm="topfive"{wrong}'}
    if failure.slug == ROLE_TOO_SMALL:
        return {"www-authenticate": 'Bearer realm="topfive", error="insufficient_scope"'}
    return {}
