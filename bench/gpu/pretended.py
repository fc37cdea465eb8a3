"""A service and an engine without a GPU, for ``--pretend``: ``python -m bench.gpu.pretended --port 8000 --fronts 2``.

The device is a pause of 0.2 ms a picture, which takes no CPU. Everything else is the service's own: HTTP, decoding,
queues, batches. So many processes as there would be fronts share one socket, each with a device of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.checkpoints.catalogue import Catalogue
from service.engines import TopK
from service.engines.fake import FakeEngine

PICTURE_S = 0.0002


class PretendedEngine(FakeEngine):
    """A fake engine that takes as long as its batch is large."""

    def run(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> TopK:
        time.sleep(PICTURE_S * len(crops))
        return super().run(crops, whole)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--fronts", type=int, default=1)
    options = parser.parse_args(arguments)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", options.port))
        listening.listen(1024)
        children = [child for _ in range(max(1, options.fronts)) if (child := _forked(listening))]

    def end(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    for child in children:
        os.waitpid(child, 0)


def _forked(listening: socket.socket) -> int:
    """A child that serves, by its number."""
    child = os.fork()
    if not child:
        try:
            _serve(listening)
        finally:
            os._exit(0)
    return child


def _serve(listening: socket.socket) -> None:
    import uvicorn

    from service.config.settings import Settings
    from service.domain.prediction import Limits
    from service.http.app import create_app
    from service.runtime.placement import LocalPlacement

    catalogue = Catalogue(untrained=True)
    placement = LocalPlacement(PretendedEngine, Limits(max_batch_size=128))

    app = create_app(catalogue, placement, Settings(untrained=True))
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")

    async def serve() -> None:
        await placement.warm_up([])
        await uvicorn.Server(config).serve(sockets=[listening])

    asyncio.run(serve())


if __name__ == "__main__":
    main()
