"""What Ray Serve and HAProxy do for an application, where neither stands before it: ids of requests, and turning
requests away while the service stops."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.domain.errors import NotReadyError, failure_of
from service.http.reply import reply_to

_LOCAL = ("127.0.0.1", 0)
#: Longer ids are replaced.
_LONGEST_ID = 200


class Edge:
    """Gives every request an id if it has none, and returns the id with the answer.

    Args:
        app: answers the requests.
        stopping: whether the service is stopping: all requests but ``GET /healthz`` are turned away then.
        new_id: makes an id.
    """

    def __init__(
        self,
        app: ASGIApp,
        stopping: Callable[[], bool] = lambda: False,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self._app = app
        self._stopping = stopping
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope.get("client") is None:
            # Who connects over a Unix socket is on this machine.
            scope["client"] = _LOCAL
        found = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        if found is None or len(found) > _LONGEST_ID:
            # It goes into the answer and the log.
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"x-request-id"]
            found = self._new_id().encode("latin-1")
            scope["headers"] = [*scope["headers"], (b"x-request-id", found)]
        identified = (b"x-request-id", found)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], identified]
            await send(message)

        if self._stopping() and scope["path"] != "/healthz":
            failure = failure_of(NotReadyError("the service is stopping"))
            await reply_to(failure, {"connection": "close", "retry-after": "1"}).send(send_with_id)
        else:
            await self._app(scope, receive, send_with_id)
