"""Which web pages may call the service from a browser (CORS, the Fetch standard): none, unless a setting names them."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

#: Headers of answers that pages may read beside the few that browsers always show them.
EXPOSED = ("X-Model-Served", "Server-Timing", "Retry-After", "X-Request-ID")
#: Browsers do not ask again for a preflight's answer for so long; ten minutes are the most that Chrome keeps it.
_MAX_AGE_S = 600


def cross_origin(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application, open to pages of these origins; the application itself if there are none.

    Args:
        app: the application.
        origins: such as ``https://example.com``, or ``*`` for every page.
    """
    return _Cors(app, origins) if origins else app


class _Cors(CORSMiddleware):
    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "OPTIONS", "POST"),
            allow_headers=("*",),
            expose_headers=EXPOSED,
            max_age=_MAX_AGE_S,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Starlette's, but without a body, and with the same status whether the page is allowed or not: the headers
        tell the browser."""
        answer = super().preflight_response(request_headers)
        kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        return Response(status_code=204, headers=kept)
