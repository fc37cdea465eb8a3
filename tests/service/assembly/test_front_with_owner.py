"""A front and a device owner as they are assembled, in one process: the whole service, and what a front needs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.assembly import front as module
from service.assembly import local
from service.assembly.front import front_app
from service.config.fleet import Deployment
from service.config.settings import Settings
from service.domain.prediction import Limits
from service.engines.fake import FakeEngine
from service.http.front import FrontApp
from service.runtime.placement import LocalPlacement
from tests.left_over import no_loop_errors, nothing_left
from tests.pictures import photo, picture
from tests.waiting import soon


@asynccontextmanager
async def started(app: FrontApp) -> AsyncIterator[None]:
    """Runs the application's lifespan, as a server does."""
    received: asyncio.Queue[Any] = asyncio.Queue()
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    running = asyncio.create_task(app({"type": "lifespan"}, received.get, send))
    received.put_nowait({"type": "lifespan.startup"})
    await soon(lambda: sent == ["lifespan.startup.complete"])
    yield
    received.put_nowait({"type": "lifespan.shutdown"})
    await running
    assert sent[1:] == ["lifespan.shutdown.complete"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An owner of the networks in the box, whose engines are pretended."""
    monkeypatch.setattr(local, "local_placement", lambda *_: LocalPlacement(FakeEngine, Limits()))
    monkeypatch.setattr(local, "tune", lambda: None, raising=False)
    monkeypatch.setattr(module, "tune", lambda: None)
    return Settings(cache_dir=tmp_path, device="cpu")


async def test_the_whole_service_over_a_front_and_an_owner(settings: Settings, tmp_path: Path) -> None:
    app = front_app(settings, tmp_path / "o")
    transport = httpx.ASGITransport(app)
    with nothing_left(), no_loop_errors():
        async with started(app), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/healthz")).status_code == 200
            early = await client.post("/classify?model=lenet5", content=picture())
            assert (early.status_code, early.json()["type"]) == (503, "/problems/not-ready")
            (tmp_path / "o").mkdir()
            stopping = False
            async with local.owner(
                settings, Deployment(variants=["lenet5"]), tmp_path / "o" / "0.sock", lambda: stopping
            ):
                await soon(lambda: app._calls.one() is not None)  # type: ignore[attr-defined]
                for content in (picture(7), picture(7), photo()):
                    reply = await client.post("/classify?model=lenet5", content=content)
                    assert (reply.status_code, reply.json()["checkpoint"]["name"]) == (200, "lenet5@mnist")
                assert (await client.post("/classify?model=googlenet", content=photo())).status_code == 404
                rows = (await client.get("/models")).json()["models"]
                assert {row["variant"] for row in rows} == {"lenet5"}
                assert (await client.get("/readyz")).status_code == 200
            assert not (tmp_path / "o" / "0.sock").exists()
            assert (await client.get("/models")).status_code == 503


async def test_the_slots_hold_the_largest_crop_of_any_checkpoint(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    duties: list[Any] = []

    @asynccontextmanager
    async def owning(path: Path, given: Any) -> AsyncIterator[None]:
        duties.append((path, given))
        yield

    monkeypatch.setattr(local, "owning", owning)
    async with local.owner(settings, Deployment(variants=["lenet5"]), tmp_path / "0.sock"):
        pass
    ((path, given),) = duties
    # Another checkpoint may be imported while the owner runs, so that every preset counts: Inception v3 has 299 pixels.
    assert (path, given.largest_crop, given.max_pixels) == (tmp_path / "0.sock", 299 * 299 * 3, settings.max_pixels)


def test_a_front_needs_neither_torch_nor_fastapi() -> None:
    code = """
import sys
from service.assembly.front import front_app
heavy = {"torch", "fastapi", "onnxruntime", "ray", "matplotlib", "safetensors"} & set(sys.modules)
print(sorted(heavy))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
