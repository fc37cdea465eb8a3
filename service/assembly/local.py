"""Processes that have networks: the whole service in one, or a device owner behind fronts.

A replica of a fleet without fronts runs ``local_app``, and so can any ASGI server. ``topfive classify`` and the
replicas of fleets with an ingress use ``local_placement`` alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI

from models.checkpoints.catalogue import LOOK_EVERY_S, Catalogue, Checkpoint
from models.images.preprocess import PRESETS
from models.networks.variants import find_variant
from service.assembly.interpreter import tune
from service.config.capacity import Machine, memory_limit, parked_limit
from service.config.fleet import Deployment
from service.config.settings import Settings
from service.domain.prediction import Limits
from service.engines.buckets import Buckets
from service.engines.loader import device_name, engine_loader
from service.http.app import ClassifyFirst, create_app
from service.inference.decoders import Decoders
from service.profiling.profiler import Profiler
from service.runtime.gpu_decoding import gpu_decoding
from service.runtime.owner import Duties, owning
from service.runtime.placement import LocalPlacement
from service.telemetry import gauges
from service.telemetry.exposition import Targets
from service.telemetry.logs import log_left_out
from service.telemetry.tracing import start_tracing

#: Bounds for the number of decoding threads, which is otherwise the number of cores. Two threads keep a GPU waiting
#: (540 photographs a second on an H100, with every network); more than eight wait for the interpreter's lock.
_FEWEST_DECODERS, _MOST_DECODERS = 2, 8


def local_placement(
    settings: Settings, deployment: Deployment, stopping: Callable[[], bool] = lambda: False
) -> LocalPlacement:
    """A placement of predictors in this process, on the device that the settings name.

    Args:
        settings: of the service.
        deployment: the part of the fleet that this process serves.
        stopping: whether the service is stopping.
    """
    tune()
    cores = len(os.sched_getaffinity(0))
    loader = engine_loader(
        device=settings.device,
        engine=None if deployment.engine == "auto" else deployment.engine,
        precision=settings.precision,
        threads=deployment.threads or cores,
        cache_dir=settings.cache_dir,
        max_batch_size=deployment.max_batch_size or settings.max_batch_size,
    )
    limit_bytes = memory_limit(settings, lambda: _free_bytes(loader.device))
    decoding = gpu_decoding(loader.device) if settings.decode == "gpu" else None
    profiler = Profiler(loader)
    gauges.count("topfive_oom_splits_total", lambda: Buckets.halvings)
    return LocalPlacement(
        lambda checkpoint: profiler.loader_of(checkpoint)(checkpoint),
        Limits(loader.max_batch_size, deployment.max_queue, deployment.max_queue_bytes, settings.max_pixels),
        decoders=Decoders(min(_MOST_DECODERS, max(_FEWEST_DECODERS, cores)), settings.most_work),
        stopping=stopping,
        profiles=profiler,
        gpu_decoding=decoding,
        # Networks and decoded pictures share the device's memory.
        memory_limit_bytes=limit_bytes if decoding is None else max(0, limit_bytes - decoding.held_bytes),
        parked_limit_bytes=parked_limit(settings, loader.device, lambda: Machine.this().free_bytes),
        pinned=[find_variant(name).name for name in deployment.pinned],
        prepare=loader.prepare,
        device=f"{deployment.name}: {device_name(loader.device)}",
    )


def _free_bytes(device: str) -> int:
    """The memory of a device that nobody uses."""
    if device == "cpu":
        return Machine.this().free_bytes
    import torch

    free_bytes, _ = torch.cuda.mem_get_info(device)
    return int(free_bytes)


def local_app(
    settings: Settings,
    deployment: Deployment,
    stopping: Callable[[], bool] = lambda: False,
    targets: Targets | None = None,
) -> ClassifyFirst:
    """The whole service as one ASGI application.

    Args:
        settings: of the service.
        deployment: what is served.
        stopping: whether the service is stopping; ``GET /readyz`` says so.
        targets: finds the metrics of all processes of the service; by default this process is the only one.
    """
    stop_tracing = start_tracing(settings)
    catalogue = _catalogue(settings, deployment)
    placement = local_placement(settings, deployment, stopping)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with _serving(catalogue, placement, stop_tracing):
            yield

    return create_app(catalogue, placement, settings, lifespan, targets, deployment.replicas)


@asynccontextmanager
async def owner(
    settings: Settings,
    deployment: Deployment,
    path: Path,
    stopping: Callable[[], bool] = lambda: False,
    targets: Targets | None = None,
) -> AsyncIterator[None]:
    """A device owner: everything but HTTP and decoding, which fronts do, while the block runs.

    Args:
        settings: of the service.
        deployment: what is served.
        path: the Unix socket that fronts connect to.
        stopping: whether the service is stopping; ``GET /readyz`` says so.
        targets: finds the metrics of all processes of the service.
    """
    stop_tracing = start_tracing(settings)
    catalogue = _catalogue(settings, deployment)
    placement = local_placement(settings, deployment, stopping)
    app = create_app(catalogue, placement, settings, targets=targets, shares=deployment.replicas)
    crops = [*PRESETS.values(), *(checkpoint.preprocess for checkpoint in catalogue.checkpoints())]
    largest_crop = max(crop.side * crop.side * crop.channels for crop in crops)
    duties = Duties(app.classifies, app.others, settings.max_pixels, largest_crop)
    async with _serving(catalogue, placement, stop_tracing), owning(path, duties):
        yield


@asynccontextmanager
async def _serving(
    catalogue: Catalogue, placement: LocalPlacement, stop_tracing: Callable[[], None]
) -> AsyncIterator[None]:
    """Loads what is to be served, and gives it back after the block."""
    served = [c for c in catalogue.checkpoints() if c.state == "loadable"]
    # In the background: /healthz and /readyz answer, and loaded networks serve, while the others load.
    warming = asyncio.create_task(serve(placement, served))
    try:
        yield
    finally:
        warming.cancel()
        with suppress(asyncio.CancelledError):
            await warming
        await placement.close()
        await asyncio.to_thread(stop_tracing)


def _catalogue(settings: Settings, deployment: Deployment) -> Catalogue:
    return Catalogue(
        settings.cache_dir,
        untrained=settings.untrained,
        variants=deployment.names(),
        left_out=log_left_out,
        look_every_s=LOOK_EVERY_S,
    )


async def serve(placement: LocalPlacement, checkpoints: Sequence[Checkpoint]) -> None:
    """Loads the checkpoints that are to be served, and tries again while none of them could be loaded. Networks that
    are loaded already serve meanwhile."""
    await placement.warm_up(checkpoints)
    await placement.keep_trying()
