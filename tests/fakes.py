"""The service over fake engines, without Ray, torch or sockets."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.config.settings import Settings
from service.domain.prediction import Limits
from service.engines import Engine
from service.engines.fake import FakeEngine
from service.http.app import ClassifyFirst, create_app
from service.profiling.profiles import Profile
from service.runtime.placement import LocalPlacement
from tests.pictures import picture
from tests.profiles import Measured


class Fakes:
    """Makes services. Tests set the fields first: checkpoints that have weights, profiles, limits and settings."""

    def __init__(self, cache_dir: Path) -> None:
        self.engines: dict[str, FakeEngine] = {}
        self.seconds = 0.0
        self.limits = Limits()
        self.settings = Settings(cache_dir=cache_dir)
        self.loadable = {"lenet5@mnist"}
        self.top1: dict[str, float | None] = {}
        self.profiles: list[Profile] = []
        self.memory_limit_bytes = sys.maxsize
        self.pinned: set[str] = set()
        self.placements: list[LocalPlacement] = []

    def load(self, checkpoint: Checkpoint) -> Engine:
        engine = FakeEngine(checkpoint, self.seconds)
        self.engines[checkpoint.name] = engine
        return engine

    @asynccontextmanager
    async def app(self, *, warm: bool = True) -> AsyncIterator[ClassifyFirst]:
        """A new service.

        Args:
            warm: whether the checkpoints are loaded first, as at a real start.
        """
        catalogue = _Chosen(self.settings.cache_dir, self.loadable, self.top1)
        placement = LocalPlacement(
            self.load,
            self.limits,
            profiles=Measured(*self.profiles),
            memory_limit_bytes=self.memory_limit_bytes,
            pinned=self.pinned,
        )
        self.placements.append(placement)
        app = create_app(catalogue, placement, self.settings)
        if warm:
            await placement.warm_up([c for c in catalogue.checkpoints() if c.state == "loadable"])
        yield app
        await placement.close()

    @asynccontextmanager
    async def client(self, *, warm: bool = True) -> AsyncIterator[httpx.AsyncClient]:
        """A client of a new service, which it calls without a socket; ``warm`` as for ``app``."""
        async with self.app(warm=warm) as app:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                yield client

    @contextmanager
    def held(self, name: str) -> Iterator[threading.Event]:
        """Holds the forward passes of a checkpoint until the end of the block. Yields an event that is set once one
        has begun."""
        engine, began, release = self.engines[name], threading.Event(), threading.Event()
        run = engine.run

        def held(*batch: Any) -> Any:
            began.set()
            assert release.wait(30)
            return run(*batch)

        engine.run = held  # type: ignore[method-assign]
        try:
            yield began
        finally:
            engine.run = run  # type: ignore[method-assign]
            release.set()

    @asynccontextmanager
    async def busy(self, client: httpx.AsyncClient, name: str, query: str = "") -> AsyncIterator[None]:
        """Keeps the device busy with a request for a checkpoint, which is answered at the end of the block."""
        with self.held(name) as began:
            running = asyncio.create_task(client.post(f"/classify?model={name}{query}", content=picture()))
            assert await asyncio.to_thread(began.wait, 30)
            yield
        assert (await running).status_code == 200

    def queued(self, name: str) -> int:
        """How many pictures of a checkpoint wait or are being decoded in the newest service."""
        return self.placements[-1]._predictors[name].queued


async def until_resident(client: httpx.AsyncClient, name: str) -> None:
    """Waits until a load in the background is over."""
    for _ in range(3_000):
        if (await client.get(f"/models/{name}")).json()["resident"]:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError(f"{name} was not loaded")


class _Chosen(Catalogue):
    """A catalogue in which the chosen checkpoints, and no others, have weights."""

    def __init__(self, cache_dir: Path, loadable: set[str], top1: dict[str, float | None]) -> None:
        super().__init__(cache_dir)
        self._loadable = loadable
        self._top1 = top1

    def _read(self) -> list[Checkpoint]:
        rows = []
        for row in super()._read():
            path = Path("pretended.safetensors") if row.name in self._loadable else None
            rows.append(replace(row, path=path, top1=self._top1.get(row.name, row.top1)))
        return rows
