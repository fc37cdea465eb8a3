"""Serves an ASGI application over HTTP on sockets that listen already, with uvicorn."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from service.http.protocol import Bounded, Connections

#: How long a stop waits for running requests.
_ANSWER_WITHIN_S = 5
#: Idle connections are kept this long: longer than the minute for which most clients and load balancers keep theirs.
_KEEP_ALIVE_S = 75
#: The most connections of a process, as of HAProxy; and files that it opens beside them.
_MOST_CONNECTIONS, _FILES_BESIDE, _FEWEST_CONNECTIONS = 4096, 200, 16


def most_connections() -> int:
    """How many connections this process may have at once. Raises its limit on open files as far as it may."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if files == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(_FEWEST_CONNECTIONS, min(_MOST_CONNECTIONS, files - _FILES_BESIDE))


def configured(app: ASGIApp, *, lifespan: bool) -> uvicorn.Config:
    """uvicorn's configuration for an application.

    Args:
        app: the application.
        lifespan: whether uvicorn runs the application's lifespan.
    """
    # uvicorn calls it as it would call a class.
    protocol: Any = partial(Bounded, Connections(most_connections()))
    return uvicorn.Config(
        app,
        loop="none",
        http=protocol,
        ws="none",
        lifespan="on" if lifespan else "off",
        log_level="warning",
        access_log=False,
        # The caller's address is read from the headers where it matters (callers.py).
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_ANSWER_WITHIN_S,
    )


@asynccontextmanager
async def serving(app: ASGIApp, listeners: Sequence[socket.socket]) -> AsyncIterator[None]:
    """Serves while the block runs, in this event loop. At its end running requests are answered first. The
    application's lifespan is the caller's business, and so are signals."""
    server = _WithoutSignals(configured(app, lifespan=False))
    running = asyncio.create_task(server.serve(list(listeners)))
    try:
        yield
    finally:
        server.should_exit = True
        await running


class _WithoutSignals(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
