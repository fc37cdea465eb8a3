"""What holds for every path but ``POST /classify``: none takes a body, GET has HEAD beside it, and OPTIONS tells the
methods."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.domain.errors import METHOD_NOT_ALLOWED, BadBodyError, Failure, failure_of
from service.http.reply import Reply, reply_to
from service.http.requests import announces_body


class Others:
    """An application whose paths take no bodies.

    A body is not read: its connection closes after the answer. Otherwise strangers could send endless ones.

    Args:
        routes: knows the paths and their methods.
        app: answers the requests; ``routes`` itself by default.
    """

    def __init__(self, routes: Starlette, app: ASGIApp | None = None) -> None:
        self._routes = routes
        self._app = routes if app is None else app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, body, allowed = scope["method"], announces_body(scope["headers"]), self._methods(scope)
        if method == "HEAD":
            send = without_body(send)
        if body:
            # Whatever answers: there is no such path, or it ends with a slash too many.
            send = closing(send)
        if allowed and method not in allowed:
            failure = Failure(METHOD_NOT_ALLOWED.slug, f"{method} {scope['path']}")
            await reply_to(failure, {"allow": ", ".join(allowed)}).send(send)
        elif allowed and body:
            await body_refused(method, scope["path"]).send(send)
        elif allowed and method == "OPTIONS":
            await Reply(204, [(b"allow", ", ".join(allowed).encode())], b"").send(send)
        elif method == "HEAD":
            await self._app({**scope, "method": "GET"}, receive, send)
        else:
            await self._app(scope, receive, send)

    def _methods(self, scope: Scope) -> list[str]:
        """The methods of a path; none if there is no such path."""
        found: set[str] = set()
        for route in self._routes.routes:
            if route.matches({**scope, "method": "GET"})[0] is not Match.NONE:
                # A folder of files has no methods of its own.
                found |= getattr(route, "methods", None) or {"GET"}
        return sorted(found | ({"HEAD"} if "GET" in found else set()) | {"OPTIONS"}) if found else []


def body_refused(method: str, path: str) -> Reply:
    """The reply to a request with a body on a path that takes none."""
    failure = failure_of(BadBodyError(f"{method} {path} takes no body; send it without one"))
    return reply_to(failure, {"connection": "close"})


def closing(send: Send) -> Send:
    """Sends an answer that ends its connection."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", []) if bytes(pair[0]).lower() != b"connection"]
            message = {**message, "headers": [*kept, (b"connection", b"close")]}
        await send(message)

    return sending


def without_body(send: Send) -> Send:
    """Sends an answer's status and headers alone."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return sending
