"""A front and a device owner over fake engines, in one process and one event loop, with a real socket between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from service.fronts.classifier import FrontClassifier
from service.fronts.owners import Owners
from service.http.classify import ClassifyEndpoint
from service.http.front import FrontApp
from service.runtime.owner import Duties, owning
from service.telemetry.recorder import RequestMetrics
from tests.fakes import Fakes

#: Of Inception v3, the largest that any preset makes.
LARGEST_CROP = 299 * 299 * 3


@dataclass
class Front:
    """A front, and a client that calls it without a socket."""

    owners: Owners
    classifier: FrontClassifier
    app: FrontApp
    client: httpx.AsyncClient

    @property
    def slots_used(self) -> int:
        return 0 if self.owners.memory is None else self.owners.memory.used


@asynccontextmanager
async def owner_of(
    fakes: Fakes, path: Path, *, warm: bool = True, largest_crop: int = LARGEST_CROP
) -> AsyncIterator[None]:
    """A device owner that listens on ``path``."""
    async with fakes.app(warm=warm) as app:
        duties = Duties(app.classifies, app.others, fakes.settings.max_pixels, largest_crop)
        async with owning(path, duties):
            yield


@asynccontextmanager
async def front_of(fakes: Fakes, folder: Path) -> AsyncIterator[Front]:
    """A front for the owners whose sockets are in ``folder``."""
    owners = Owners(folder)
    classifier = FrontClassifier(owners, fakes.settings)
    endpoint = ClassifyEndpoint(classifier, fakes.settings, RequestMetrics([]))

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        yield

    app = FrontApp(endpoint, owners, lifespan)
    owners.begin()
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield Front(owners, classifier, app, client)
    finally:
        await owners.end()
        classifier.close()


@asynccontextmanager
async def fronted(fakes: Fakes, folder: Path, *, warm: bool = True) -> AsyncIterator[Front]:
    """A front with an owner behind it."""
    async with AsyncExitStack() as both:
        await both.enter_async_context(owner_of(fakes, folder / "0.sock", warm=warm))
        front = await both.enter_async_context(front_of(fakes, folder))
        await asyncio.wait_for(front.owners.wait(), 10)
        yield front
