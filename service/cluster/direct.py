"""A shorter way from HAProxy to an ingress replica: a Unix socket, on which the replica serves its application itself.

Ray Serve gives HAProxy a port of each ingress replica. On it Serve makes ids and records of its own for every request,
wraps ``receive`` and ``send``, and runs two tasks, which costs as much CPU time as classifying a digit; HAProxy has
counted and routed the request already. So a replica also listens on a socket in the service's folder, and
``lifecycle/haproxy.py`` sends requests there. Serve still starts, watches and replaces the replica, and asks for its
health over the port.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from pathlib import Path

from ray import serve
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.edge import Edge
from service.http.server import serving
from service.lifecycle.haproxy import DIRECT

log = logging.getLogger(__name__)

_BACKLOG = 2048


class Direct:
    """An application that also listens on a Unix socket, from the start of its lifespan until its end.

    Args:
        app: the application.
        path: the socket's.
    """

    def __init__(self, app: ASGIApp, path: Path) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        stop = asyncio.Event()
        stopped = asyncio.create_task(self._listen(stop))

        async def receive_after_stop() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                # Running requests are answered before the application closes what they need.
                stop.set()
                await stopped
            return message

        try:
            await self._app(scope, receive_after_stop, send)
        finally:
            stop.set()
            await stopped

    async def _listen(self, stop: asyncio.Event) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.setblocking(False)
            try:
                listener.bind(str(self._path))
                listener.listen(_BACKLOG)
            except OSError as error:
                log.warning("a replica has no socket of its own and is asked over Serve's port: %s", error)
                return
            try:
                async with serving(Edge(self._app), [listener]):
                    await stop.wait()
            finally:
                with suppress(OSError):
                    self._path.unlink()


def direct(app: ASGIApp, folder: Path) -> Direct:
    """The application of the ingress replica that this process is.

    Args:
        app: the application.
        folder: the service's.
    """
    sockets = folder / DIRECT
    sockets.mkdir(exist_ok=True)
    return Direct(app, sockets / serve.get_replica_context().replica_tag)
