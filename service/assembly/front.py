"""A front: HTTP and decoding, with a device owner behind it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from service.assembly.interpreter import tune
from service.config.settings import Settings
from service.fronts.classifier import FrontClassifier
from service.fronts.owners import Owners
from service.http.access import AccessControl
from service.http.classify import ClassifyEndpoint
from service.http.front import FrontApp
from service.inference.decoders import Decoders
from service.telemetry.recorder import RequestMetrics
from service.telemetry.tracing import start_tracing

#: The most decoding threads of a front. Beyond, they wait for the interpreter's lock; another front does not.
_MOST_DECODERS = 4


def front_app(settings: Settings, sockets: Path, fronts: int = 1) -> FrontApp:
    """A front as an ASGI application.

    Args:
        settings: of the service.
        sockets: the folder of the device owners' sockets.
        fronts: how many of them share the cores, which decode.
    """
    tune()
    stop_tracing = start_tracing(settings)
    owners = Owners(sockets)
    decoders = min(_MOST_DECODERS, max(1, len(os.sched_getaffinity(0)) // fronts))
    classifier = FrontClassifier(owners, settings, Decoders(decoders, settings.most_work))
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

    # An owner counts what callers send, and asks for keys on all other paths.
    classify = ClassifyEndpoint(classifier, settings, metrics, AccessControl.of(settings))
    return FrontApp(classify, owners, lifespan, settings.origins)
