"""The service over fake engines, without Ray, torch or sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx

from models.checkpoints import Catalogue, Checkpoint
from service.api import create_app
from service.engines import Engine
from service.engines.fake import FakeEngine
from service.placement import LocalPlacement
from service.predictor import Limits
from service.settings import Settings


class Fakes:
    """A catalogue in which chosen checkpoints count as loadable, over fake engines that tests may adjust."""

    def __init__(self, cache_dir: Path) -> None:
        self.engines: dict[str, FakeEngine] = {}
        self.seconds = 0.0
        self.limits = Limits()
        self.settings = Settings(cache_dir=cache_dir)
        self.loadable = {"lenet5@mnist"}
        self.top1: dict[str, float | None] = {}

    def load(self, checkpoint: Checkpoint) -> Engine:
        engine = FakeEngine(checkpoint, self.seconds)
        self.engines[checkpoint.name] = engine
        return engine

    @asynccontextmanager
    async def client(self, *, warm: bool = True) -> AsyncIterator[httpx.AsyncClient]:
        """HTTP straight into the app, without a socket."""
        catalogue = _Chosen(self.settings.cache_dir, self.loadable, self.top1)
        placement = LocalPlacement(self.load, self.limits)
        app = create_app(catalogue, placement, self.settings)
        if warm:
            await placement.warm_up([c for c in catalogue.checkpoints() if c.state == "loadable"])
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://topfive") as client:
            yield client
        await placement.close()


class _Chosen(Catalogue):
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
