"""One process of a service without Ray: ``python -m service.solo.process ROLE FOLDER NUMBER``.

An ``owner`` owns a device, a ``front`` does HTTP and decoding, and ``whole`` does everything. The driver sends the
settings over standard input, and ends the process with SIGTERM. If the driver has died, the process ends by itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from service.config.fleet import Deployment
from service.config.settings import Settings
from service.lifecycle.record import is_stopping
from service.link.sockets import FOLDER
from service.telemetry.logs import configure_logging

#: How often a process looks whether the service is stopping.
_LOOK_EVERY_S = 0.05
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Runs until SIGTERM."""
    _end_with_driver()
    role, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    said = json.loads(sys.stdin.readline())
    settings = Settings.model_validate(said["settings"])
    deployment = Deployment.model_validate(said["deployment"])
    listeners = [socket.socket(fileno=descriptor) for descriptor in said["listeners"]]
    configure_logging(settings.log_format)
    if role == "owner":
        _run(_own(settings, deployment, folder, number))
    else:
        whole = role == "whole"
        app = _whole(settings, deployment, folder) if whole else _front(settings, folder, said["fronts"])
        _run(_listen(app, folder, listeners))


def _run(work: Any) -> None:
    import uvloop

    uvloop.run(work)


async def _own(settings: Settings, deployment: Deployment, folder: Path, number: int) -> None:
    from service.assembly.local import owner
    from service.http.access import metrics_reader
    from service.solo.targets import expose

    targets = expose(settings.host, "owner", folder, metrics_reader(settings))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with owner(settings, deployment, folder / FOLDER / f"{number}.sock", lambda: is_stopping(folder), targets):
        await stop.wait()


def _whole(settings: Settings, deployment: Deployment, folder: Path) -> Any:
    from service.assembly.local import local_app
    from service.http.access import metrics_reader
    from service.solo.targets import expose

    targets = expose(settings.host, "whole", folder, metrics_reader(settings))
    return local_app(settings, deployment, lambda: is_stopping(folder), targets)


def _front(settings: Settings, folder: Path, fronts: int) -> Any:
    from service.assembly.front import front_app
    from service.http.access import metrics_reader
    from service.solo.targets import expose

    expose(settings.host, "front", folder, metrics_reader(settings))
    return front_app(settings, folder / FOLDER, fronts)


async def _listen(app: Any, folder: Path, listeners: list[socket.socket]) -> None:
    """Answers HTTP on sockets that listen already, until SIGTERM."""
    import uvicorn

    from service.http.edge import Edge
    from service.http.server import configured

    async with _watched(folder) as stopping:
        await uvicorn.Server(configured(Edge(app, stopping), lifespan=True)).serve(listeners)


@asynccontextmanager
async def _watched(folder: Path) -> AsyncIterator[Callable[[], bool]]:
    """Yields a function that says whether the service is stopping, without looking at the disk each time."""
    stopping = False

    async def look() -> None:
        nonlocal stopping
        while not (stopping := is_stopping(folder)):  # noqa: ASYNC110 - it is a file that is looked at
            await asyncio.sleep(_LOOK_EVERY_S)

    looking = asyncio.create_task(look())
    try:
        yield lambda: stopping
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


def _end_with_driver() -> None:
    """Has the kernel end this process when the driver dies, however it dies."""
    driver = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != driver:
        sys.exit("the driver has died")


if __name__ == "__main__":
    main()
