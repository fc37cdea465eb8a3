"""A front: HTTP and decoding, with a device owner behind it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from service.config.settings import Settings
from service.fronts.classifier import FrontClassifier
from service.fronts.owners import Owners
from service.http.classify import ClassifyEndpoint
from service.http.front import FrontApp
from service.telemetry.recorder import RequestMetrics
from service.telemetry.tracing import start_tracing

#: Decoding threads of a front. Pillow releases the interpreter's lock, so that a second one decodes while HTTP is
#: done; the next front is worth more than a third one.
_DECODERS = 2
#: As in ``local.py``: decoding threads must not keep the event loop waiting.
_SWITCH_S = 0.0005


def front_app(settings: Settings, sockets: Path) -> FrontApp:
    """A front as an ASGI application.

    Args:
        settings: of the service.
        sockets: the folder of the device owners' sockets.
    """
    sys.setswitchinterval(_SWITCH_S)
    stop_tracing = start_tracing(settings)
    owners = Owners(sockets)
    classifier = FrontClassifier(owners, settings, min(_DECODERS, len(os.sched_getaffinity(0))))
    metrics = RequestMetrics([])

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        owners.begin()
        try:
            yield
        finally:
            await owners.end()
            classifier.close()
            await asyncio.to_thread(stop_tracing)

    return FrontApp(ClassifyEndpoint(classifier, settings, metrics), owners, lifespan)
