"""A whole HTTP reply, as the path of ``POST /classify`` sends it: Starlette's responses cost more than the JSON in
them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import Send


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
